// What ranges of keys leave behind becomes what all of them say, for every type of vector.
#pragma once
#include <algorithm>
#include <limits>

#include "attention.h"
#include "attention_elements.h"

namespace kvasir {
namespace {

template <class V>
class MergeCore {
  using F = typename V::F;
  static constexpr int W = V::kWidth;

 public:
  static_assert(AttentionParts::kMost % W == 0);

  static void merge(const AttentionParts& parts, size_t row, int32_t rows, size_t d, float* o, float* lse) {
    for (int32_t i = 0; i < rows; i++, row++) {
      float max = kNothing;
      for (int32_t r = 0; r < parts.ranges; r++) max = std::max(max, sums_of(parts, r, row)[0]);
      float weights[AttentionParts::kMost], sum = 0.0f;
      for (int32_t r = 0; r < parts.ranges; r++) weights[r] = sums_of(parts, r, row)[0] - max;
      for (int32_t r = parts.ranges; r % W != 0; r++) weights[r] = 0.0f;
      for (int32_t r = 0; r < parts.ranges; r += W) V::store(weights + r, V::exp2(V::load(weights + r)));
      for (int32_t r = 0; r < parts.ranges; r++) {
        const float part = sums_of(parts, r, row)[1];
        if (part == 0.0f) weights[r] = 0.0f;  // no keys: what lies in o does not matter
        sum += weights[r] * part;
      }
      const float inverse = sum > 0.0f ? 1.0f / sum : sum == 0.0f ? 0.0f : sum;  // NaN stays
      for (size_t c = 0; c < d; c += kColumns) {
        const size_t some = std::min(kColumns, d - c);
        if (some == kColumns) add<true>(parts, row, weights, inverse, c, some, d, o + i * d);
        else add<false>(parts, row, weights, inverse, c, some, d, o + i * d);
      }
      if (lse != nullptr) lse[i] = sum == 0.0f ? -std::numeric_limits<float>::infinity() : kLn2 * max + __builtin_logf(sum);
    }
  }

 private:
  static constexpr size_t kColumns = 64;

  static const float* sums_of(const AttentionParts& parts, int32_t range, size_t row) {
    return parts.sums + 2 * (static_cast<size_t>(range) * parts.rows + row);
  }

  template <bool kAll>
  static void add(const AttentionParts& parts, size_t row, const float* weights, float inverse, size_t c, size_t some, size_t d, float* o) {
    const size_t n = kAll ? kColumns : some;
    float to[kColumns] = {};
    for (int32_t r = 0; r < parts.ranges; r++) {
      if (weights[r] == 0.0f) continue;
      const float* part = parts.o + (static_cast<size_t>(r) * parts.rows + row) * d + c;
      for (size_t k = 0; k < n; k++) to[k] += weights[r] * part[k];
    }
    for (size_t k = 0; k < n; k++) o[c + k] = to[k] * inverse;
  }
};

}  // namespace
}  // namespace kvasir
