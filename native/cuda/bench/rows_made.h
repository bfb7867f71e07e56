// Caches and queries made on the device: tokens belong to topics, a query asks for one, so that few keys hold most of its mass.
#pragma once
#include <cstdint>

#include "runtime.h"

namespace kvasir {

// out [heads, rows, dim] halves; topics 0: noise alone.
void fill_rows(Runtime& runtime, uint16_t* out, int32_t heads, int32_t rows, int32_t dim, int32_t topics, float spread, uint32_t seed);
// out [n, heads, dim]; dim at most 1024.
void fill_queries(Runtime& runtime, float* out, int32_t n, int32_t heads, int32_t group, int32_t dim, int32_t topics, float sharp,
                  uint32_t seed);

}  // namespace kvasir
