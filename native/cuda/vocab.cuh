// Maxima and sums over a row of logits by one block, in double; the order of additions depends on the row's length only.
#pragma once
#include "device.h"
#include "problem.h"

namespace kvasir {

#ifdef KVASIR_EMULATION
constexpr int kVocabThreads = 256;  // fibers cost more than the rows of tests are long
#else
constexpr int kVocabThreads = 512;  // 1024 leave 64 registers a thread
#endif

// Every function is for all threads of the block, and gives all of them the result. parts: shared, a number a warp.
__device__ inline double block_sum(double (&parts)[kVocabThreads / 32], double mine) {
  const double sum = warp_sum(mine);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  double total = 0;
  for (int w = 0; w < kVocabThreads / 32; w++) total += parts[w];
  return total;
}

// NaN if there is one.
__device__ inline double row_max(double (&parts)[kVocabThreads / 32], const float* row, int32_t vocab) {
  float most = -INFINITY;
  bool number = true;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < vocab; i += kVocabThreads) {
    number = number && row[i] == row[i];
    most = fmaxf(most, row[i]);
  }
  most = warp_max(most);
  number = __all_sync(kFullWarp, number ? 1 : 0) != 0;
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = number ? static_cast<double>(most) : static_cast<double>(NAN);
  __syncthreads();
  double all = parts[0];
  for (int w = 1; w < kVocabThreads / 32; w++) all = parts[w] != parts[w] || parts[w] > all ? parts[w] : all;
  for (int w = 0; w < kVocabThreads / 32; w++) all = parts[w] != parts[w] ? parts[w] : all;
  return all;
}

// What a kernel found in a row that the host has to report: set in pinned memory, looked at when the host waits next.
__device__ __forceinline__ void note_problem(uint32_t* problem, double most, bool finite = false) {
  if (threadIdx.x != 0) return;
  const uint32_t row = blockIdx.x & kRowMask;
  if (most != most) *problem = kNanInRow | row;
  else if (finite && fabs(most) > 3.5e38) *problem = kInfinityInRow | row;
}

// ln of the sum of exponentials; the largest itself where it is infinite.
__device__ inline double row_log_sum(double (&parts)[kVocabThreads / 32], const float* row, int32_t vocab, double most) {
  double sum = 0;
  const bool finite = fabs(most) <= 3.5e38;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); finite && i < vocab; i += kVocabThreads) sum += exp(static_cast<double>(row[i]) - most);
  const double total = block_sum(parts, sum);
  return finite ? most + log(total) : most;
}

}  // namespace kvasir
