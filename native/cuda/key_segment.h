// Rows of a layer's cache as kernels get them.
#pragma once
#include <cstdint>

namespace kvasir {

// Rows [start, start + count) of the cache; pointers are those of head 0, row 0.
struct KeySegment {
  const char* keys;  // [kvHeads, capacity, headDim]
  const char* values;
  const float* key_scales;  // [kvHeads, capacity] with KVASIR_I8, else null
  const float* value_scales;
  int32_t start, count, capacity;
};

}  // namespace kvasir
