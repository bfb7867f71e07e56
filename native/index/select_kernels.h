// Passes over stored scores, of which selection is made: no heap, no sort of what is not a candidate.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

// Counts of floats are multiples of 32; what lies behind the last score is -INFINITY.
struct SelectKernels {
  // cells[i] = max over `depth` runs of `cells_count` scores: scores[r * cells_count + i]; a multiple of 32 cells.
  void (*max_cells)(float* cells, const float* scores, int32_t cells_count, int32_t count);
  // Least and largest of the scores above -INFINITY; *low > *high where there is none.
  void (*range)(float* low, float* high, const float* scores, int32_t count);
  int32_t (*count_at_least)(const float* scores, int32_t count, float threshold);
  // Indexes and values of scores >= threshold, ascending; room for as many as there are, and 16 more. Returns how many.
  int32_t (*compress)(int32_t* ids, float* values, const float* scores, int32_t count, float threshold);
  // noise[i] = -ln u of position first + i under `key` (draw.h), u in (0, 1].
  void (*draw_noise)(float* noise, uint32_t key, int32_t first, int32_t count);
  // out = scores + noise
  void (*add)(float* out, const float* scores, const float* noise, int32_t count);
  // out[i] = q . row ids[i] + offset of `rows` [.., dim] of one element type (KVASIR_F32, KVASIR_F16, KVASIR_I8; without its
  // scale): the sums of RowKernels. Rows are prefetched ahead.
  void (*rescore)(float* out, const float* q, const void* rows, int32_t dtype, int32_t dim, int32_t offset, const int32_t* ids,
                  int32_t count);
};

}  // namespace kvasir
