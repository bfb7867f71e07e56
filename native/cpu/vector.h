// Kernels over rows of floats: norms, gates, rotations, and reductions over a vocabulary. Memory need not be aligned;
// an output may be one of the inputs. Callers have checked shapes, and split work among threads.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

// Elements behind one entry of VectorKernels::block_maxima.
constexpr size_t kMaximaBlock = 128;

// Entries of VectorKernels::bucket_sums.
constexpr size_t kBuckets = 4096;

struct VectorKernels {
  // out = x / sqrt(mean(x^2) + epsilon) * weight, all [width]
  void (*rms_norm)(float* out, const float* x, const float* weight, size_t width, float epsilon);
  void (*add)(float* out, const float* x, const float* y, size_t count);
  // out = silu(gate) * up, gelu(gate) * up (tanh form)
  void (*silu)(float* out, const float* gate, const float* up, size_t count);
  void (*gelu)(float* out, const float* gate, const float* up, size_t count);
  // x [heads, head_dim] by table [pairs, 2] of (cos, sin): pairs (i, i + pairs), or (2 i, 2 i + 1) for neighbours.
  void (*rope)(float* x, const float* table, size_t heads, size_t head_dim, size_t pairs, bool neighbours);

  // Largest of each block of kMaximaBlock (the last may be shorter). Returns whether any element is NaN; then
  // the maxima are undefined.
  bool (*block_maxima)(float* maxima, const float* x, size_t count);
  // Sum of exp((x - max) * scale) in double; max >= every x, finite; scale >= 0, finite.
  double (*sum_exp)(const float* x, size_t count, double max, double scale);
  // sums[bucket of x] += exp((x - max) * factor), in double; bucket = (max - x) * scale cut off, at most kBuckets - 1.
  // max >= every x, finite; factor and scale >= 0, finite, and scale * 1e39 too.
  void (*bucket_sums)(double* sums, const float* x, size_t count, double max, double factor, double scale);
  // Indices of all low <= x <= high, rising; count <= 2^32. ids [out] has room for count. Returns how many.
  size_t (*find_between)(uint32_t* ids, const float* x, size_t count, float low, float high);
  // weight[i] = exp(base[i] - max): sums[0] = sum of weight, sums[1] = sum of weight * (base - other) where weight > 0.
  void (*divergence_sums)(double* sums, const float* base, const float* other, size_t count, double max);
};

}  // namespace kvasir
