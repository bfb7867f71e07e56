// Four passes over 8 bits of a score each.
//
// Ladder (not measured yet: no device was at hand)
//   1  histograms in shared memory, merged by atomics; every pass reads all scores
#include "index_select.h"

#include "index_device.cuh"
#include "launch.h"

namespace kvasir {
namespace {

// Counts by the 8 bits from `shift` on of scores whose higher bits are the threshold's. Grid: (blocks, rows).
__global__ void count_scores(const float* scores, size_t stride, int32_t keys, const Selection* rows, int32_t* histograms, int32_t shift) {
  KVASIR_SHARED(int32_t, bins, [256]);
  const int32_t row = static_cast<int32_t>(blockIdx.y), thread = static_cast<int32_t>(threadIdx.x);
  bins[thread] = 0;
  __syncthreads();
  const uint32_t known = shift == 24 ? 0u : rows[row].least >> (shift + 8);
  for (int32_t i = thread; i < kScanKeys; i += kScanThreads) {
    const int32_t key = static_cast<int32_t>(blockIdx.x) * kScanKeys + i;
    if (key >= keys) break;
    const uint32_t bits = ordered_bits(scores[static_cast<size_t>(row) * stride + static_cast<size_t>(key)]);
    if (shift == 24 || bits >> (shift + 8) == known) atomicAdd(bins + (bits >> shift & 255u), 1);
  }
  __syncthreads();
  if (bins[thread] != 0) atomicAdd(histograms + row * 256 + thread, bins[thread]);
}

// The bin that holds the k-th best; histograms are cleared for the next pass. Grid: rows, 256 threads.
__global__ void choose_bin(Selection* rows, int32_t* histograms, int32_t shift) {
  KVASIR_SHARED(int32_t, bins, [256]);
  const int32_t row = static_cast<int32_t>(blockIdx.x), thread = static_cast<int32_t>(threadIdx.x);
  bins[thread] = histograms[row * 256 + thread];
  histograms[row * 256 + thread] = 0;
  __syncthreads();
  if (thread != 0) return;
  int32_t wanted = rows[row].wanted, bin = 255;
  while (bin > 0 && wanted > bins[bin]) wanted -= bins[bin--];
  rows[row].least |= static_cast<uint32_t>(bin) << shift;
  rows[row].wanted = wanted;
  rows[row].equal = wanted;
}

}  // namespace

void find_thresholds(Runtime& runtime, const float* scores, size_t stride, int32_t keys, int32_t rows, Selection* selections,
                     int32_t* histograms) {
  const dim3 grid(blocks_of(keys, kScanKeys), static_cast<uint32_t>(rows));
  for (int32_t shift = 24; shift >= 0; shift -= 8) {
    launch(runtime, "count_scores", count_scores, grid, dim3(kScanThreads), 0, scores, stride, keys, selections, histograms, shift);
    launch(runtime, "choose_bin", choose_bin, dim3(grid.y), dim3(256), 0, selections, histograms, shift);
  }
}

}  // namespace kvasir
