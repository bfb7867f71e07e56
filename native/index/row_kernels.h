// Dot products of queries with rows of the cache, for exact scores of candidates.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

struct RowKernels {
  // out[g] = q[g] . row for `group` queries, q [group, dim] floats, row [dim] of one element type.
  void (*dot_f32)(float* out, const float* q, const float* row, int32_t group, int32_t dim);
  void (*dot_f16)(float* out, const float* q, const uint16_t* row, int32_t group, int32_t dim);
  void (*dot_i8)(float* out, const float* q, const int8_t* row, int32_t group, int32_t dim);
};

}  // namespace kvasir
