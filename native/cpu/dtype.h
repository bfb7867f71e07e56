// Sizes and names of element types; the twin of core/dtype.ts.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "kvasir_backend.h"

namespace kvasir {

struct DType {
  const char* name;
  int32_t elements;  // of one block; plain types are blocks of one
  int32_t bytes;     // of one block
};

constexpr int32_t kDTypeCount = 15;
constexpr DType kDTypes[kDTypeCount] = {
    {"f32", 1, 4},     {"f16", 1, 2},     {"bf16", 1, 2},    {"i32", 1, 4},      {"i8", 1, 1},
    {"q4_0", 32, 18},  {"q4_1", 32, 20},  {"q5_0", 32, 22},  {"q5_1", 32, 24},   {"q8_0", 32, 34},
    {"q3_k", 256, 110}, {"q4_k", 256, 144}, {"q5_k", 256, 176}, {"q6_k", 256, 210}, {"iq4_nl", 32, 18},
};

inline const char* dtype_name(int32_t dtype) {
  return dtype >= 0 && dtype < kDTypeCount ? kDTypes[dtype].name : "unknown";
}
inline bool is_plain(int32_t dtype) { return kDTypes[dtype].elements == 1; }

inline std::string shape_text(const int32_t* shape, int32_t rank) {
  std::string text = "[";
  for (int32_t i = 0; i < rank; i++) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

// IEEE half and bfloat16 to float, exactly; for contents that are converted once, not in kernels.
inline float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
  float value;
  if (exponent == 0) {
    value = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal: mantissa * 2^-24
    return sign != 0 ? -value : value;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline float bfloat_to_float(uint16_t b) {
  const uint32_t bits = static_cast<uint32_t>(b) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

}  // namespace kvasir
