// Kernels of graph search and of exact nearest keys: rows gathered by pointer, widening, and picking what is above a threshold.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

// Queries [group] against rows of 4-bit codes (graph_codes.h).
struct GraphCodeTerms {
  const int8_t* lines;     // [group][low, high nibbles][line_bytes], zeros behind row_bytes
  size_t line_bytes;       // row_bytes rounded up to 64
  size_t row_bytes;        // a multiple of 32
  const int32_t* offsets;  // [group]: what sums of unsigned nibbles have too much, negated
  const float *factors, *bases;  // [group]
};

struct GraphKernels {
  // out[i * group + g] = q[g] . row i for rows anywhere in memory (the caller prefetches): q [group, dim] floats, rows of one
  // element type (KVASIR_F32, KVASIR_F16, KVASIR_I8; scales of the latter are the caller's business).
  void (*score)(float* out, const float* q, const void* const* rows, int32_t count, int32_t dtype, int32_t group, int32_t dim);
  // out[i * group + g] = bases[g] + factors[g] * scales[i] * (sum of nibbles of row i * line g + offsets[g]).
  void (*score_codes)(float* out, const GraphCodeTerms& terms, int32_t group, const uint8_t* const* rows, const float* scales,
                      int32_t count);
  // The same, out[g * stride + i]: what a group's heads select from.
  void (*score_code_heads)(float* out, size_t stride, const GraphCodeTerms& terms, int32_t group, const uint8_t* const* rows,
                           const float* scales, int32_t count);
  // out[i] = row[i] for one row of the element type.
  void (*widen)(float* out, const void* row, int32_t dtype, int32_t dim);
  // out[i] = row[i] - less[i]; returns the sum of their squares. out may be the row.
  float (*widen_less)(float* out, const void* row, int32_t dtype, int32_t dim, const float* less);
  // Of scores [32] those >= threshold, in order: scores to kept, first + place to ids; returns how many. Both have room for 32.
  int32_t (*above)(float* kept, int32_t* ids, const float* scores, float threshold, int32_t first);
  // The places of the bits that are set in words [count], ascending; returns how many. Room for 64 more is behind them.
  int32_t (*list_bits)(int32_t* ids, const uint64_t* words, int32_t count);
};

}  // namespace kvasir
