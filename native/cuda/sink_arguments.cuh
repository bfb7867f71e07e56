// A prompt's sampled queries, for the kernels that say what they look at.
#pragma once
#include "attention.h"
#include "attention_keys.cuh"
#include "index_types.h"

namespace kvasir {

struct SinkArguments {
  RowTable rows;
  const float* q;          // [n, heads, dim]
  int32_t heads, group, dim;
  float scale, softcap;
  int32_t window;
  int32_t first, every;    // query of this batch's first row, and how far the next one is
  int32_t queries;         // of this batch
  int32_t position;        // of query 0
  int32_t start, keys;     // positions [start, start + keys) of the cache
  float* scores;           // [queries * heads, stride]; -inf where a query does not see the key
  size_t stride;

  __device__ int32_t position_of(int32_t row) const { return position + first + row / heads * every; }
  __device__ int32_t least(int32_t row) const { return window == 0 ? start : at_least(start, position_of(row) - window + 1); }
};

// Of all a call's queries that are sampled: without rows, first and queries, which are a launch's, and scores.
SinkArguments sink_arguments(const Attention& call, int32_t window, int32_t every);
// For the next launch.
RowTable staged_rows(Runtime& runtime, const Attention& call);
// Before the first whose position is a multiple of `every`.
int32_t skipped_queries(int32_t position, int32_t every);

}  // namespace kvasir
