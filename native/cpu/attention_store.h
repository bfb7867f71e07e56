// Rows of floats into a cache: f32 copies, f16 rounds to nearest, i8 scales each row by its largest entry.
#pragma once
#include <cstring>

#include "attention_elements.h"
#include "kvasir_backend.h"

namespace kvasir {
namespace {

template <class V>
struct RowStore {
  static constexpr size_t W = V::kWidth;

  static void store(int32_t dtype, void* dst, float* scales, const float* src, size_t src_stride, int32_t rows,
                    int32_t head_dim) {
    const size_t d = static_cast<size_t>(head_dim);
    for (int32_t r = 0; r < rows; r++) {
      const float* from = src + r * src_stride;
      if (dtype == KVASIR_F32) std::memcpy(static_cast<float*>(dst) + r * d, from, d * sizeof(float));
      else if (dtype == KVASIR_F16) store_f16(static_cast<uint16_t*>(dst) + r * d, from, d);
      else scales[r] = store_i8(static_cast<int8_t*>(dst) + r * d, from, d);
    }
  }

 private:
  static void store_f16(uint16_t* to, const float* from, size_t d) {
    size_t c = 0;
    for (; c + W <= d; c += W) V::store_f16(to + c, V::load(from + c));
    if (c == d) return;
    float tail[W] = {};
    uint16_t rounded[W];
    std::memcpy(tail, from + c, (d - c) * sizeof(float));
    V::store_f16(rounded, V::load(tail));
    std::memcpy(to + c, rounded, (d - c) * sizeof(uint16_t));
  }

  static float store_i8(int8_t* to, const float* from, size_t d) {
    float tail[W] = {};
    const size_t whole = d / W * W;
    std::memcpy(tail, from + whole, (d - whole) * sizeof(float));
    auto top = V::abs(V::load(tail));
    for (size_t c = 0; c < whole; c += W) top = V::max(top, V::abs(V::load(from + c)));
    const float max = V::max_lane(top);
    // A row so small that 127 / max overflows is zero for every purpose; so is one that is no number.
    const bool usable = max > 1e-30f && max < __builtin_inff();
    const auto inverse = V::set(usable ? 127.0f / max : 0.0f);
    if (!usable) {
      std::memset(to, 0, d);
      return 0.0f;
    }
    for (size_t c = 0; c < whole; c += W) V::store_i8(to + c, V::round(V::mul(V::load(from + c), inverse)));
    if (whole < d) {
      int8_t rounded[W];
      V::store_i8(rounded, V::round(V::mul(V::load(tail), inverse)));
      std::memcpy(to + whole, rounded, d - whole);
    }
    return max / 127.0f;
  }
};

}  // namespace
}  // namespace kvasir
