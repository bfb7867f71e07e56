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

struct ByteKernels {
  // out[r * 32 + j] = row r . column j, panel [units][32][4], column_scales [32].
  void (*dot)(float* out, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* column_scales, int32_t units);
  // Of scores [count, 32] the best of each column beside what it had: best [32], which [32]; row r is first + r. Of equals the first.
  void (*best)(float* best, int32_t* which, const float* scores, int32_t count, int32_t first);
};

}  // namespace kvasir
