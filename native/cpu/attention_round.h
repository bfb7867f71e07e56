// A tile of keys and values as 16-bit integers: what the prefill core multiplies.
//
// A query or key row x becomes round(x / step) with the step that makes its Euclidean norm 46,000 at most
// (and its entries 16 bits): by Cauchy-Schwarz no dot product, nor any part of one, leaves 32 bits, and its error is
// about 9e-6 |q||k|, less than what f16 keys carry already. Values are 13-bit integers relative to two factors, of
// their column and of their row in the tile of 64 keys; the row's factor joins the weight, which becomes a 13-bit
// integer relative to the query's largest in the tile: 64 · 8191 · 4095 < 2^31. So what is rounded is a key's
// contribution: an attention sink, with most of the mass and a value near 0, must not round the other keys away.
// (Without the rows' factors: 4 times the error of f16 on such heads, and 1 % faster.)
#pragma once
#include <cstring>

#include "attention.h"
#include "attention_elements.h"

namespace kvasir {
namespace {

template <class V>
struct RoundedTile {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int W = V::kWidth;
  static constexpr int kKeys = 64;
  static constexpr float kNorm = 46000.0f;  // squared: below 2^31
  static constexpr float kWeight = 8191.0f, kValue = 4095.0f;

  size_t padded;          // columns, whole vectors
  int16_t* keys;          // [kKeys, padded]
  int16_t* values;        // [kKeys / 2][padded][2]
  float* key_steps;       // [kKeys]
  float* value_steps;     // [padded]
  float* row_logs;        // [kKeys] log2 of the rows' factors of values
  float* row_inverse;     // [kKeys] and their inverse
  float* column_inverse;  // [padded] of value_steps
  float* wide;            // [kKeys, padded]

  // Lays the arrays out at `memory`, 64-byte aligned; returns their bytes.
  size_t place(size_t columns, char* memory) {
    padded = columns;
    const size_t floats = kKeys * 3 + padded * 2 + kKeys * padded;
    float* at = reinterpret_cast<float*>(memory);
    if (memory != nullptr) {
      key_steps = at, row_logs = at + kKeys, row_inverse = at + 2 * kKeys, value_steps = at + 3 * kKeys;
      column_inverse = value_steps + padded, wide = column_inverse + padded;
      keys = reinterpret_cast<int16_t*>(wide + kKeys * padded), values = keys + kKeys * padded;
    }
    return floats * sizeof(float) + 2 * kKeys * padded * sizeof(int16_t);
  }

  // The step that keeps a row's norm and entries in range.
  template <class E>
  static float step_of(const typename E::T* x, size_t width) {
    F squares = V::zero(), top = V::zero();
    for (size_t c = 0; c < width; c += W) {
      const F v = E::load(x + c);
      squares = V::fma(v, v, squares);
      top = V::max(top, V::abs(v));
    }
    const float by_norm = __builtin_sqrtf(V::sum(squares)) / kNorm, by_entry = V::max_lane(top) / 32767.0f;
    const float step = by_norm > by_entry ? by_norm : by_entry;
    return step > 1e-30f ? step : 1e-30f;  // a row of zeros gets any step
  }

  // Rows whose width is whole vectors are rounded from where they are, others from a widened copy.
  template <class E>
  void load(const KvRun& run, int32_t at, size_t d, int32_t count) {
    const typename E::T* keys = static_cast<const typename E::T*>(run.keys) + at * d;
    const typename E::T* values = static_cast<const typename E::T*>(run.values) + at * d;
    const float* key_scales = run.key_scales == nullptr ? nullptr : run.key_scales + at;
    const float* value_scales = run.value_scales == nullptr ? nullptr : run.value_scales + at;
    if (d == padded) {
      round_keys<E>(keys, key_scales, count);
      round_values<E>(values, value_scales, count);
    } else {
      for (int32_t k = 0; k < count; k++) widen_row<V, E>(wide + k * padded, keys + k * d, d, padded);
      round_keys<ElementF32<V>>(wide, key_scales, count);
      for (int32_t k = 0; k < count; k++) widen_row<V, E>(wide + k * padded, values + k * d, d, padded);
      round_values<ElementF32<V>>(wide, value_scales, count);
    }
  }

 private:
  // keys and key_steps; rows behind count are zero.
  template <class E>
  void round_keys(const typename E::T* from, const float* scales, int32_t count) {
    for (int32_t k = 0; k < count; k++, from += padded) {
      int16_t* to = keys + k * padded;
      const float step = step_of<E>(from, padded);
      key_steps[k] = scales == nullptr ? step : step * scales[k];
      const F inverse = V::set(1.0f / step);
      for (size_t c = 0; c < padded; c += W) V::store_i16(to + c, V::round(V::mul(E::load(from + c), inverse)));
    }
    if (count == kKeys) return;
    std::memset(keys + count * padded, 0, (kKeys - count) * padded * sizeof(int16_t));
    for (int32_t k = count; k < kKeys; k++) key_steps[k] = 0.0f;
  }

  // values and both their factors; rows behind count are zero.
  template <class E>
  void round_values(const typename E::T* from, const float* scales, int32_t count) {
    alignas(64) float row[kKeys];  // scales of the rows, 1 unless I8, 0 behind count
    for (int32_t k = 0; k < kKeys; k++) row[k] = k >= count ? 0.0f : scales == nullptr ? 1.0f : scales[k];
    for (size_t c = 0; c < padded; c += W) {
      F top = V::zero();
      for (int32_t k = 0; k < count; k++)
        top = V::max(top, V::abs(V::mul(E::load(from + k * padded + c), V::set(row[k]))));
      const F step = V::max(V::mul(top, V::set(1.0f / kValue)), V::set(1e-35f));  // a column of zeros gets any step
      V::store(value_steps + c, step);
      V::store(column_inverse + c, V::div(V::set(1.0f), step));
    }
    for (int32_t k = 0; k < count; k++) {
      F top = V::zero();
      for (size_t c = 0; c < padded; c += W) {
        top = V::max(top, V::abs(V::mul(E::load(from + k * padded + c), V::load(column_inverse + c))));
      }
      row_logs[k] = log_above(V::max_lane(top) * row[k] / kValue);
    }
    for (int32_t k = count; k < kKeys; k++) row_logs[k] = 0.0f;
    for (int32_t k = 0; k < kKeys; k += W) {
      const F inverse = V::exp2(V::sub(V::zero(), V::load(row_logs + k)));
      V::store(row_inverse + k, inverse);
      V::store(row + k, V::mul(inverse, V::load(row + k)));
    }
    for (int32_t k = 0; k < kKeys; k += 2) {
      // A last odd row is paired with itself, times 0.
      const typename E::T* low = from + (k < count ? k : 0) * padded;
      const typename E::T* high = from + (k + 1 < count ? k + 1 : 0) * padded;
      const F even = V::set(row[k]), odd = V::set(row[k + 1]);
      for (size_t c = 0; c < padded; c += W) {
        const F inverse = V::load(column_inverse + c);
        const I a = V::round(V::mul(V::mul(E::load(low + c), inverse), even));
        const I b = V::round(V::mul(V::mul(E::load(high + c), inverse), odd));
        V::istore(values + (k / 2 * padded + c) * 2, V::pack_pairs(a, b));
      }
    }
  }

  // log2(x) or a little more: the bits of a float are its logarithm, 0.0861 too low at most. Rows that are smaller than
  // 2^-16 of their columns are as good as zero.
  static float log_above(float x) {
    if (!(x > 0x1p-16f)) x = 0x1p-16f;
    int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return static_cast<float>(bits) * 0x1p-23f - (127.0f - 0.0862f);
  }
};

}  // namespace
}  // namespace kvasir
