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

// Where a key stands among those that a selection takes: how many before it beat the threshold, and how many equal it.
struct Standing {
  bool is_better, is_equal;
  int32_t better, equal;
};

// The standing of each thread's key in a round of kScanThreads. least: the threshold's bits. placed: shared, [2 * kScanThreads / 32].
// better, equal: of the rounds before this one; this one's are added. All threads of a block call it.
__device__ inline Standing standing_of(uint32_t bits, bool is_key, uint32_t least, int32_t* placed, int32_t* better, int32_t* equal) {
  constexpr int32_t kWarps = kScanThreads / 32;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32, warp = static_cast<int32_t>(threadIdx.x) / 32;
  Standing s{is_key && bits > least, is_key && bits == least, *better, *equal};
  const uint32_t betters = __ballot_sync(kFullWarp, s.is_better ? 1 : 0), equals = __ballot_sync(kFullWarp, s.is_equal ? 1 : 0);
  __syncthreads();
  if (lane == 0) placed[warp] = __popc(betters), placed[kWarps + warp] = __popc(equals);
  __syncthreads();
  for (int32_t w = 0; w < kWarps; w++) {
    if (w < warp) s.better += placed[w], s.equal += placed[kWarps + w];
    *better += placed[w], *equal += placed[kWarps + w];
  }
  const uint32_t lower = (1u << lane) - 1;
  s.better += __popc(betters & lower), s.equal += __popc(equals & lower);
  return s;
}

}  // namespace kvasir
