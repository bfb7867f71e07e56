// The best k of stored scores, exact, in order of position, lower positions first among equals: thresholds of index_select.h, then
// counts and places block by block.
//
// Ladder (not measured yet: no device was at hand)
//   1  two passes over all scores, two ballots a warp
#pragma once
#include "index_draw.cuh"
#include "mutants.h"

namespace kvasir {

// priorities := scores - ln u (Duffield, Lund, Thorup 2007), u by the draw's bits of (draw, KV head, position). Grid: (blocks, heads).
__global__ void add_noise(const IndexShape shape, const ScoreOut of, float* priorities, uint32_t draw, int32_t begin) {
  const int32_t head = static_cast<int32_t>(blockIdx.y);
  const uint32_t hash = draw_key(draw, head / shape.group);
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < kScanKeys; i += kScanThreads) {
    const int32_t key = static_cast<int32_t>(blockIdx.x) * kScanKeys + i;
    if (key >= of.keys) return;
    const size_t at = static_cast<size_t>(head) * of.stride + static_cast<size_t>(key);
    const float u = (static_cast<float>(draw_bits(hash, begin + key)) + 1.0f) * 2.3283064365386963e-10f;
    priorities[at] = of.scores[at] - logf(u);
  }
}

__global__ void begin_selection(Selection* rows, int32_t* histograms, int32_t wanted) {
  const int32_t row = static_cast<int32_t>(blockIdx.x);
  histograms[row * 256 + static_cast<int32_t>(threadIdx.x)] = 0;
  if (threadIdx.x == 0) rows[row] = Selection{0, 0, wanted};
}

// counts [rows][blocks][2]: better than the threshold, and equal to it. Grid: (blocks, rows).
__global__ void count_selected(const float* scores, size_t stride, int32_t keys, const Selection* rows, int32_t* counts, int32_t blocks) {
  KVASIR_SHARED(int32_t, sums, [2]);
  const int32_t row = static_cast<int32_t>(blockIdx.y), block = static_cast<int32_t>(blockIdx.x);
  if (threadIdx.x == 0) sums[0] = sums[1] = 0;
  __syncthreads();
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < kScanKeys; i += kScanThreads) {
    const int32_t key = block * kScanKeys + i;
    if (key >= keys) break;
    const uint32_t bits = ordered_bits(scores[static_cast<size_t>(row) * stride + static_cast<size_t>(key)]), least = rows[row].least;
    if (bits > least) atomicAdd(sums, 1);
    if (bits == least) atomicAdd(sums + 1, 1);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    counts[row * blocks + block] = sums[0];
    counts[(static_cast<int32_t>(gridDim.y) + row) * blocks + block] = sums[1];
  }
}

// Selected keys as hits. dropped: how many of those equal to the threshold are left out after all (of a sample, the one that sets
// its weights). scores: not null for a sample: bias = max(0, threshold - score). Grid: (blocks, rows).
__global__ void place_selected(const float* priorities, const float* scores, size_t stride, int32_t keys, const Selection* rows,
                               const int32_t* counts, int32_t blocks, int32_t dropped, const HitsOut to) {
  KVASIR_SHARED(int32_t, sums, [2]);
  KVASIR_SHARED(int32_t, placed, [2 * (kScanThreads / 32)]);
  const int32_t row = static_cast<int32_t>(blockIdx.y), block = static_cast<int32_t>(blockIdx.x);
  int32_t better, better_total, equal, equal_total;
  sum_before(counts + row * blocks, blocks, block, sums, &better, &better_total);
  __syncthreads();
  sum_before(counts + (static_cast<int32_t>(gridDim.y) + row) * blocks, blocks, block, sums, &equal, &equal_total);
  const Selection chosen = rows[row];
  const int32_t most_equal = chosen.equal - dropped;
  if (block == 0 && threadIdx.x == 0) {
    to.counts[row] = better_total + most_equal;
    to.errors[row] = NAN;
  }
  for (int32_t i = 0; i < kScanKeys; i += kScanThreads) {
    const int32_t key = block * kScanKeys + i + static_cast<int32_t>(threadIdx.x);
    const size_t from = static_cast<size_t>(row) * stride + static_cast<size_t>(key);
    const uint32_t bits = key < keys ? ordered_bits(priorities[from]) : 0u;
    const Standing s = standing_of(bits, key < keys, chosen.least, placed, &better, &equal);
    if (s.is_better || (s.is_equal && (is_seeded(Mutant::kSelectTie) || s.equal < most_equal))) {
      const int32_t place = s.better + at_most(s.equal, most_equal);
      if (place < to.capacity) {
        const size_t at = static_cast<size_t>(row) * static_cast<size_t>(to.capacity) + static_cast<size_t>(place);
        to.tokens[at] = to.begin + key;
        to.bias[at] = scores == nullptr ? 0.0f : fmaxf(0.0f, float_of_ordered(chosen.least) - scores[from]);
      }
    }
  }
}

}  // namespace kvasir
