// What kernels of indexes and of prompt sinks share.
#pragma once
#include "attention_keys.cuh"
#include "index_types.h"

namespace kvasir {

__device__ inline KeyRow row_of(const RowTable& table, int32_t head, int32_t position) {
  return find_row(table.segments, table.count, table.row_bytes, head, position);
}

// Bits that order as floats do.
__device__ inline uint32_t ordered_bits(float x) {
  const uint32_t bits = __float_as_uint(x);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float float_of_ordered(uint32_t bits) {
  return __uint_as_float((bits >> 31) != 0 ? bits & 0x7fffffffu : ~bits);
}

// The block's sum or greatest of every head's `value`, in an order of its own: always the same bits.
template <bool kSum>
__device__ inline void fold_block(float* shared, float* out, float value) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32, warp = static_cast<int32_t>(threadIdx.x) / 32;
  value = kSum ? warp_sum(value) : warp_max(value);
  __syncthreads();
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  if (threadIdx.x != 0) return;
  float all = shared[0];
  for (int32_t w = 1; w < kScanThreads / 32; w++) all = kSum ? all + shared[w] : fmaxf(all, shared[w]);
  *out = all;
}

}  // namespace kvasir
