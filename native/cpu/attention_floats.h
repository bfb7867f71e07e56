// The range core's inner loops in float arithmetic, over f32 and f16 caches and over tiles that were widened to float.
#pragma once
#include "attention_elements.h"

namespace kvasir {
namespace {

template <class V>
struct FloatLoops {
  using F = typename V::F;
  static constexpr int W = V::kWidth;

  // scores [R][kTile] = q [R, width] · keys [count, width], or wherever they lie. Sums of four keys wait until they fill a vector: stored
  // in pieces, they would be read as one before they are there.
  template <class E, int R, class Keys, class Ahead>
  static void score(float* scores, const float* q, Keys keys, size_t width, int32_t count, Ahead& ahead) {
    // R by K accumulators; four rows of two keys where registers are few.
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
        const typename E::T* row[4];
        if (first + 4 <= count) {
          for (int j = 0; j < 4; j++) row[j] = row_at<typename E::T>(keys, first + j, width);
        } else {
          for (int j = 0; j < 4; j++) row[j] = row_at<typename E::T>(keys, first + j < count ? first + j : count - 1, width);
        }
        F acc[R][4];
#pragma GCC unroll 2
        for (int j = 0; j < 4; j += K) dot<E, R, K>(q, row, j, width, acc, ahead);
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) quads[i][g] = V::quad(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
      }
#pragma GCC unroll 4
      for (int i = 0; i < R; i++) V::store(scores + i * kTile + k, V::join(quads[i]));
    }
  }

  // o [R, width] = o · rescale + weights [R][kTile] · values [count, width], up to four vectors of columns at a time.
  template <class E, int R, class Values, class Ahead>
  static void sum(float* o, const float* weights, const float* rescale, Values values, size_t width, int32_t count, Ahead& ahead) {
    constexpr int C = V::kRegisters >= 32 || R <= 2 ? 4 : R == 3 ? 3 : 2;
    size_t c = 0;
    // Two and two rather than three and one.
    for (; c + C * W <= width && (C != 3 || c + 4 * W != width); c += C * W) sum_columns<E, R, C>(o, weights, rescale, values, width, count, c, ahead);
    if constexpr (C == 3) {
      for (; c + 2 * W <= width; c += 2 * W) sum_columns<E, R, 2>(o, weights, rescale, values, width, count, c, ahead);
    }
    for (; c < width; c += W) sum_columns<E, R, 1>(o, weights, rescale, values, width, count, c, ahead);
  }

 private:
  // Rows next to each other, or wherever they lie.
  template <class T>
  static const T* row_at(const T* rows, int32_t k, size_t width) {
    return rows + static_cast<size_t>(k) * width;
  }
  template <class T>
  static const T* row_at(const void* const* rows, int32_t k, size_t) {
    return static_cast<const T*>(rows[k]);
  }

  // acc[i][j ... j + K) = products of R rows and K keys, lane by lane.
  template <class E, int R, int K, class Ahead>
  static void dot(const float* q, const typename E::T* const* row, int j, size_t width, F (*acc)[4], Ahead& ahead) {
    constexpr size_t kBytes = K * W * sizeof(typename E::T);
    F sum[R][K];
#pragma GCC unroll 4
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
      for (int l = 0; l < K; l++) sum[i][l] = V::zero();
    size_t c = 0;
    for (; c + 4 * W <= width; c += 4 * W) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; v++) multiply<E, R, K>(q + c + v * W, row + j, c + v * W, width, sum);
      ahead.template advance<4 * kBytes>();
    }
    for (; c < width; c += W) {
      multiply<E, R, K>(q + c, row + j, c, width, sum);
      ahead.template advance<kBytes>();
    }
#pragma GCC unroll 4
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
      for (int l = 0; l < K; l++) acc[i][j + l] = sum[i][l];
  }

  // One vector of columns; the keys share the loads of q.
  template <class E, int R, int K>
  [[gnu::always_inline]] static void multiply(const float* q, const typename E::T* const* row, size_t c, size_t width, F (&sum)[R][K]) {
    // Where sums leave four registers, one of these stays in memory.
    constexpr int kHeld = V::kRegisters == 16 && R * K == 12 ? R - 1 : R;
    F x[kHeld];
#pragma GCC unroll 4
    for (int i = 0; i < kHeld; i++) x[i] = V::load(q + i * width);
#pragma GCC unroll 4
    for (int l = 0; l < K; l++) {
      const F key = E::load(row[l] + c);
#pragma GCC unroll 4
      for (int i = 0; i < kHeld; i++) sum[i][l] = V::fma(key, x[i], sum[i][l]);
      if constexpr (kHeld < R) V::add_product_at(sum[R - 1][l], key, q + (R - 1) * width);
    }
  }

  template <class E, int R, int C, class Values, class Ahead>
  static void sum_columns(float* o, const float* weights, const float* rescale, Values values, size_t width, int32_t count, size_t column,
                          Ahead& ahead) {
    constexpr size_t kBytes = C * W * sizeof(typename E::T);
    F acc[R][C];
#pragma GCC unroll 4
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) acc[i][c] = V::mul(V::load(o + i * width + column + c * W), V::set(rescale[i]));
    int32_t k = 0;
    for (; k + 4 <= count; k += 4) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) {
        add_weighted<E, R, C>(row_at<typename E::T>(values, k + j, width) + column, weights + k + j, acc);
      }
      ahead.template advance<4 * kBytes>();
    }
    for (; k < count; k++) {
      add_weighted<E, R, C>(row_at<typename E::T>(values, k, width) + column, weights + k, acc);
      ahead.template advance<kBytes>();
    }
#pragma GCC unroll 4
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) V::store(o + i * width + column + c * W, acc[i][c]);
  }

  template <class E, int R, int C>
  [[gnu::always_inline]] static void add_weighted(const typename E::T* row, const float* weights, F (&acc)[R][C]) {
    F p[R];
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) p[i] = V::set(weights[i * kTile]);
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) {
      const F x = E::load(row + c * W);
#pragma GCC unroll 4
      for (int i = 0; i < R; i++) acc[i][c] = V::fma(x, p[i], acc[i][c]);
    }
  }
};

}  // namespace
}  // namespace kvasir
