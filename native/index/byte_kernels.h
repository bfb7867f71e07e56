// Products of many rows with many rows in bytes: what clusters, lists and extensions are made by, where .01 to .03 of the
// scores' spread does not matter. One side lies in panels of 32 columns, four dimensions of a column next to each other.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

// Rows as ByteKernels want them: row . column = base + scale * column scale * (sum of code * column code + shift).
struct ByteTerms {
  const int8_t* codes;    // [count, 4 * units]
  const float* scales;    // [count]
  const float* bases;     // [count]
  const int32_t* shifts;  // [count]: -128 times the sum of the codes, as columns' codes are 128 too large
};

// What passes: of row r the columns whose scores are >= thresholds[r], bits of masks[r * stride], the scores in their order behind the
// counts[r] that it has. There is room for a panel behind them.
struct BytePassed {
  const float* thresholds;  // [count]
  uint32_t* masks;          // [count, stride]
  size_t stride;
  float* scores;            // [count, room]
  size_t room;
  int32_t* counts;          // [count]
};

// How columns become codes: (x - mean) * inverse of each dimension, rounded by the largest of a column; of unit u dimensions
// order[4 u] ... order[4 u + 3], dim where there is none.
struct BytePacking {
  const float *means, *inverses;  // [dim]
  const int32_t* order;           // [4 * units]
  int32_t dim, units;
};

struct ByteKernels {
  // Columns [count <= 32, dim], which are overwritten, to the first places of a panel [units][32][4], and their scales. One that is
  // equal to the mean in all dimensions, or not finite, leaves both as they are: codes of 128 and a scale of 0.
  void (*pack)(uint8_t* panel, float* scales, float* columns, int32_t count, const BytePacking& how);
  // out[r * 32 + j] = row r . column j, panel [units][32][4], column_scales [32].
  void (*dot)(float* out, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* column_scales, int32_t units);
  // Of the same products those that pass.
  void (*above)(const BytePassed& passed, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* column_scales,
                int32_t units);
  // Of scores [count, 32] the best of each column beside what it had: best [32], which [32]; row r is first + r. Of equals the first.
  void (*best)(float* best, int32_t* which, const float* scores, int32_t count, int32_t first);
};

}  // namespace kvasir
