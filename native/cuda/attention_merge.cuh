// Merging of attention in parts: (o, l) with l = ln sum exp, o = sum exp(s - l) v, weighted by exp(l - L).
//
// Ladder (not measured yet: no device was at hand)
//   1  a warp a row, a lane every 32nd dimension; parts are read once
#pragma once
#include <cstdint>

#include "attention_keys.cuh"
#include "mutants.h"

namespace kvasir {

// As many parts as a launch takes; more are merged in turns.
constexpr int32_t kMostParts = 32;
constexpr int32_t kMergeWarps = 4;

struct MergeParts {
  const float* o[kMostParts];    // [rows, d]
  const float* lse[kMostParts];  // [rows]
  int32_t count;

  __device__ int32_t size() const { return count; }
  __device__ const float* o_of(int32_t part, int32_t row, int32_t d) const {
    return o[part] + static_cast<size_t>(row) * static_cast<size_t>(d);
  }
  __device__ float lse_of(int32_t part, int32_t row) const { return lse[part][row]; }
};

// Parts behind each other: what splits of the keys leave.
struct MergeSplits {
  const float* o;    // [count, rows, d]
  const float* lse;  // [count, rows]
  int32_t count, rows;

  __device__ int32_t size() const { return is_seeded(Mutant::kMergeLastSplit) ? count - 1 : count; }
  __device__ const float* o_of(int32_t part, int32_t row, int32_t d) const {
    return o + (static_cast<size_t>(part) * static_cast<size_t>(rows) + static_cast<size_t>(row)) * static_cast<size_t>(d);
  }
  __device__ float lse_of(int32_t part, int32_t row) const {
    return lse[static_cast<size_t>(part) * static_cast<size_t>(rows) + static_cast<size_t>(row)];
  }
};

// out may be one of the parts; out_lse may be null. Grid: rows / kMergeWarps.
template <class Parts>
__global__ void __launch_bounds__(32 * kMergeWarps)
    merge_rows(const KVASIR_GRID_CONSTANT Parts parts, float* out, float* out_lse, int32_t rows, int32_t d) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
  const int32_t row = static_cast<int32_t>(blockIdx.x) * kMergeWarps + static_cast<int32_t>(threadIdx.x) / 32;
  if (row >= rows) return;
  float most = -INFINITY, sum = 0.0f;
  for (int32_t p = 0; p < parts.size(); p++) {
    const float l = parts.lse_of(p, row);
    most = l <= most ? most : l;  // what is no number stays
  }
  const float reference = most == -INFINITY ? 0.0f : most;
  for (int32_t p = 0; p < parts.size(); p++) sum += expf(parts.lse_of(p, row) - reference);
  for (int32_t i = lane; i < d; i += 32) {
    float total = 0.0f;
    for (int32_t p = 0; p < parts.size(); p++) {
      const float weight = expf(parts.lse_of(p, row) - reference);
      if (weight != 0.0f) total += weight * parts.o_of(p, row, d)[i];  // what an empty part holds must not matter
    }
    out[static_cast<size_t>(row) * static_cast<size_t>(d) + static_cast<size_t>(i)] = sum == 0.0f ? 0.0f : total / sum;
  }
  __syncwarp();  // all have read what may be overwritten
  if (lane == 0 && out_lse != nullptr) out_lse[row] = sum == 0.0f ? -INFINITY : most + logf(sum);
}

}  // namespace kvasir
