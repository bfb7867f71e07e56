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

  // scores [R][kTile] = q [R, width] · keys [count, width], in units of the steps; sums of four keys wait as in FloatLoops.
  template <int R, class Ahead>
  static void score(float* scores, const int16_t* q, const int8_t* keys, size_t width, int32_t count,
                    Ahead& ahead) {
    constexpr int K = V::kRegisters >= 32 || R <= 3 ? 4 : 2;
    for (int32_t k = 0; k < count; k += W) {
      F quads[R][W / 4];
#pragma GCC unroll 1
      for (int g = 0; g < W / 4; g++) {
        const int32_t first = k + 4 * g;
        if (first >= count) {
          for (int i = 0; i < R; i++) quads[i][g] = V::zero();
          continue;
        }
        const int8_t* row[4];
        for (int j = 0; j < 4; j++) row[j] = keys + static_cast<size_t>(first + j < count ? first + j : count - 1) * width;
        I acc[R][4];
#pragma GCC unroll 2
        for (int j = 0; j < 4; j += K) dot<R, K>(q, row, j, width, acc);
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) {
          quads[i][g] = V::quad(V::to_float(acc[i][0]), V::to_float(acc[i][1]), V::to_float(acc[i][2]), V::to_float(acc[i][3]));
        }
        ahead.advance(4 * width);
      }
#pragma GCC unroll 4
      for (int i = 0; i < R; i++) V::store(scores + i * kTile + k, V::join(quads[i]));
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
  // acc[i][j ... j + K) = products of R rows and K keys, lane by lane.
  template <int R, int K>
  static void dot(const int16_t* q, const int8_t* const* row, int j, size_t width, I (*acc)[4]) {
    I sum[R][K];
#pragma GCC unroll 4
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
      for (int l = 0; l < K; l++) sum[i][l] = V::izero();
    for (size_t c = 0; c < width; c += 2 * W) {
#pragma GCC unroll 4
      for (int l = 0; l < K; l++) {
        const I x = V::load_words(row[j + l] + c);
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) V::madd_at(sum[i][l], x, q + i * width + c);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
      for (int l = 0; l < K; l++) acc[i][j + l] = sum[i][l];
  }

  template <int R, int C, class Ahead>
  static void sum_columns(float* o, const int16_t* weights, const float* rescale, const float* gain,
                          const int8_t* values, size_t width, int32_t count, size_t column, Ahead& ahead) {
    I acc[R][C][2];
#pragma GCC unroll 4
    for (int i = 0; i < R; i++)
#pragma GCC unroll 2
      for (int c = 0; c < C; c++) acc[i][c][0] = V::izero(), acc[i][c][1] = V::izero();
    const auto add = [&](int32_t k, const int8_t* low, const int8_t* high) __attribute__((always_inline)) {
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
    };
    constexpr size_t kBytes = C * 2 * W;  // of a key
    const int8_t* at = values + column;
    int32_t k = 0;
    for (; k + 4 <= count; k += 4, at += 4 * width) {
      add(k, at, at + width), add(k + 2, at + 2 * width, at + 3 * width);
      ahead.template advance<4 * kBytes>();
    }
    for (; k < count; k += 2, at += 2 * width) {
      add(k, at, k + 1 < count ? at + width : at);  // behind the last key the weight is 0: any row will do
      ahead.advance(2 * kBytes);
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
