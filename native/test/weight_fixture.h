// Random weights in file form, for the tests of packing and products.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fixture.h"
#include "quant.h"

namespace kvasir_test {

inline std::vector<int32_t> weight_types() {
  return {KVASIR_F32,  KVASIR_F16,  KVASIR_BF16, KVASIR_Q4_0, KVASIR_Q4_1, KVASIR_Q5_0,  KVASIR_Q5_1,
          KVASIR_Q8_0, KVASIR_Q3_K, KVASIR_Q4_K, KVASIR_Q5_K, KVASIR_Q6_K, KVASIR_IQ4_NL};
}

// Byte offsets of the f16 scales of one block, -1 for none.
struct Halves {
  int first, second;
};
inline Halves scale_offsets(int32_t dtype) {
  switch (dtype) {
    case KVASIR_Q3_K: return {108, -1};
    case KVASIR_Q6_K: return {208, -1};
    case KVASIR_Q4_1:
    case KVASIR_Q5_1:
    case KVASIR_Q4_K:
    case KVASIR_Q5_K: return {0, 2};
    case KVASIR_Q4_0:
    case KVASIR_Q5_0:
    case KVASIR_Q8_0:
    case KVASIR_IQ4_NL: return {0, -1};
    default: return {-1, -1};
  }
}

enum class Scales {
  kUsual,   // around 1/64 in size, both signs
  kFinite,  // any finite half
  kAny,     // any bytes: NaN, infinities, subnormals
};

// [rows, k] of `dtype` as a file holds it.
inline std::vector<uint8_t> random_weight(Random& random, int32_t dtype, int rows, int k, Scales scales) {
  const kvasir::QuantInfo& info = *kvasir::quant_info(dtype);
  std::vector<uint8_t> bytes(kvasir::quant_row_bytes(info, k) * static_cast<size_t>(rows));
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.bits() >> 56);
  if (scales == Scales::kAny) return bytes;
  if (info.elements == 1) {
    for (size_t i = 0; i < bytes.size(); i += static_cast<size_t>(info.bytes)) {
      uint8_t* p = &bytes[i];
      const float value = random.normal();
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      if (dtype == KVASIR_F32) std::memcpy(p, &value, 4);
      if (dtype == KVASIR_BF16) std::memcpy(p, reinterpret_cast<const uint8_t*>(&bits) + 2, 2);
      if (dtype == KVASIR_F16) p[1] = static_cast<uint8_t>((p[1] & 0x83) | 0x38);  // 0.5 to 1, both signs
    }
    return bytes;
  }
  const Halves at = scale_offsets(dtype);
  for (size_t i = 0; i < bytes.size(); i += static_cast<size_t>(info.bytes)) {
    for (const int offset : {at.first, at.second}) {
      if (offset < 0) continue;
      uint8_t& high = bytes[i + static_cast<size_t>(offset) + 1];
      if (scales == Scales::kFinite) {
        if ((high & 0x7c) == 0x7c) high = static_cast<uint8_t>(high & 0xbf);
      } else {
        high = static_cast<uint8_t>((high & 0x83) | 0x20);  // 2^-7 to 2^-6
      }
    }
  }
  return bytes;
}

// The same as doubles [rows, k].
inline std::vector<double> weight_values(int32_t dtype, const std::vector<uint8_t>& bytes, int rows, int k) {
  const size_t stride = kvasir::quant_row_bytes(*kvasir::quant_info(dtype), k);
  std::vector<float> row(static_cast<size_t>(k));
  std::vector<double> values;
  for (int r = 0; r < rows; ++r) {
    kvasir::dequantize_row(dtype, bytes.data() + static_cast<size_t>(r) * stride, row.data(), k);
    values.insert(values.end(), row.begin(), row.end());
  }
  return values;
}

inline kvasir_tensor make_weight(Context& context, int32_t dtype, int rows, int k, const std::vector<uint8_t>& bytes) {
  const kvasir_tensor id = context.make(dtype, {rows, k}, KVASIR_MODEL);
  const size_t stride = kvasir::quant_row_bytes(*kvasir::quant_info(dtype), k);
  EXPECT_OK(kvasir_tensor_write(context, id, bytes.data(), static_cast<double>(stride * static_cast<size_t>(rows)), 0));
  return id;
}

}  // namespace kvasir_test
