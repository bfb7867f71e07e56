// Sizes and names of element types; the twin of core/dtype.ts.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "kvasir_abi.h"

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

}  // namespace kvasir
