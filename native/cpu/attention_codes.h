// The range core's inner loops over int8 caches: 16-bit integer products instead of widening every code to float, which
// costs more than the memory. Queries and weights become 16-bit integers; their rounding is 1/100 of the codes' own.
#pragma once
#include <cstring>

#include "attention_elements.h"

namespace kvasir {
namespace {

template <class V>
struct CodeLoops {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int W = V::kWidth;

  // Entries fit 16 bits, and by Cauchy-Schwarz products with codes of up to 1024 dimensions 32 bits:
  // 500,000 · 127 · sqrt(1024) < 2^31. Returns the step.
  static float round_query(int16_t* to, const float* q, size_t width) {
    F squares = V::zero(), top = V::zero();
    for (size_t c = 0; c < width; c += W) {
      const F x = V::load(q + c);
      squares = V::fma(x, x, squares), top = V::max(top, V::abs(x));
    }
    const float by_norm = __builtin_sqrtf(V::sum(squares)) / 500000.0f, by_entry = V::max_lane(top) / 32767.0f;
    const float step = by_norm > by_entry ? by_norm : by_entry;
    if (!(step > 1e-30f)) {
      std::memset(to, 0, width * sizeof(int16_t));
      return 0.0f;
    }
    for (size_t c = 0; c < width; c += W) V::store_i16(to + c, V::round(V::mul(V::load(q + c), V::set(1.0f / step))));
    return step;
  }

  // Weights [kTile] to integers relative to the largest; returns the factor.
  static float round_weights(int16_t* to, const float* weights, int32_t count) {
    F top = V::zero();
    for (int32_t k = 0; k < count; k += W) top = V::max(top, V::load(weights + k));
    const float max = V::max_lane(top);
    if (!(max > 1e-35f)) {
      std::memset(to, 0, kTile * sizeof(int16_t));
      return 0.0f;
    }
    for (int32_t k = 0; k < count; k += W)
      V::store_i16(to + k, V::round(V::mul(V::load(weights + k), V::set(32767.0f / max))));
    return max / 32767.0f;
  }

  // scores [R][kTile] = q [R, width] · keys [count, width], in units of the steps.
  template <int R, class Ahead>
  static void score(float* scores, const int16_t* q, const int8_t* keys, size_t width, int32_t count,
                    Ahead& ahead) {
    constexpr int K = V::kRegisters >= 32 || R <= 2 ? 4 : 2;
    for (int32_t k = 0; k < count; k += K) {
      const int8_t* row[K];
      for (int j = 0; j < K; j++) row[j] = keys + (k + j < count ? k + j : count - 1) * width;
      I acc[R][K];
#pragma GCC unroll 4
      for (int i = 0; i < R; i++)
#pragma GCC unroll 4
        for (int j = 0; j < K; j++) acc[i][j] = V::izero();
      for (size_t c = 0; c < width; c += 2 * W) {
#pragma GCC unroll 4
        for (int j = 0; j < K; j++) {
          const I x = V::load_words(row[j] + c);
#pragma GCC unroll 4
          for (int i = 0; i < R; i++) V::madd(acc[i][j], x, V::iload(q + i * width + c));
        }
      }
      F sums[R][4];
#pragma GCC unroll 4
      for (int i = 0; i < R; i++)
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) sums[i][j] = V::to_float(acc[i][j % K]);
#pragma GCC unroll 4
      for (int i = 0; i < R; i++) {
        float out[4];
        V::sum4(sums[i][0], sums[i][1], sums[i][2], sums[i][3], out);
        std::memcpy(scores + i * kTile + k, out, K * sizeof(float));
      }
      ahead.advance(K * width);
    }
  }

  // o [R, width] = o · rescale + gain · weights [R][kTile] · values [count, width]
  template <int R, class Ahead>
  static void sum(float* o, const int16_t* weights, const float* rescale, const float* gain, const int8_t* values,
                  size_t width, int32_t count, Ahead& ahead) {
    size_t c = 0;
    if constexpr (V::kRegisters >= 32) {
      for (; c + 4 * W <= width; c += 4 * W)
        sum_columns<R, 2>(o, weights, rescale, gain, values, width, count, c, ahead);
    }
    for (; c < width; c += 2 * W) sum_columns<R, 1>(o, weights, rescale, gain, values, width, count, c, ahead);
  }

 private:
  template <int R, int C, class Ahead>
  static void sum_columns(float* o, const int16_t* weights, const float* rescale, const float* gain,
                          const int8_t* values, size_t width, int32_t count, size_t column, Ahead& ahead) {
    I acc[R][C][2];
#pragma GCC unroll 4
    for (int i = 0; i < R; i++)
#pragma GCC unroll 2
      for (int c = 0; c < C; c++) acc[i][c][0] = V::izero(), acc[i][c][1] = V::izero();
    for (int32_t k = 0; k < count; k += 2) {
      // Behind the last key the weight is 0: any row will do.
      const int8_t* low = values + k * width + column;
      const int8_t* high = k + 1 < count ? low + width : low;
#pragma GCC unroll 2
      for (int c = 0; c < C; c++) {
        const I a = V::load_words(low + c * 2 * W), b = V::load_words(high + c * 2 * W);
        const I first = V::zip_low(a, b), second = V::zip_high(a, b);
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
          const I p = V::pair(weights + i * kTile + k);
          V::madd(acc[i][c][0], first, p), V::madd(acc[i][c][1], second, p);
        }
      }
      ahead.advance(2 * C * 2 * W);
    }
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) {
      const F keep = V::set(rescale[i]), factor = V::set(gain[i]);
#pragma GCC unroll 2
      for (int c = 0; c < C; c++) {
        float* to = o + i * width + column + c * 2 * W;
        V::unzip(acc[i][c][0], acc[i][c][1]);
        V::store(to, V::fma(V::to_float(acc[i][c][0]), factor, V::mul(V::load(to), keep)));
        V::store(to + W, V::fma(V::to_float(acc[i][c][1]), factor, V::mul(V::load(to + W), keep)));
      }
    }
  }
};

}  // namespace
}  // namespace kvasir
