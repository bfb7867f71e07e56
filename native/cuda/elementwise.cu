// Sums, gates and rotations: one thread an element or a pair.
//
// Ladder (not measured: no device at hand)
//   1  a thread an element, neighbours in memory: a warp's access is one line. Decode's rows are a few thousand elements, where
//      the launch is all that counts; prompts are bound by memory, where four elements a thread would save instructions only.
#include "kernels.h"
#include "kvasir_backend.h"
#include "launch.h"

namespace kvasir {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ size_t element() { return static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x; }

// y is as long as x, or is added to every row.
__global__ void __launch_bounds__(kThreads) add_kernel(float* out, const float* x, const float* y, size_t count, size_t y_count) {
  const size_t i = element();
  if (i >= count) return;
  out[i] = x[i] + y[y_count < count ? i % y_count : i];
}

// x / (1 + e^-x); gelu is x/2 (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3). Clamped where the value is
// smaller than any normal float, which keeps -infinity out.
__device__ __forceinline__ float silu(float x) {
  const float c = fmaxf(x, -87.0f);
  return x == x ? c / (expf(-c) + 1.0f) : x;
}
__device__ __forceinline__ float gelu(float x) {
  const float c = fmaxf(x, -10.0f);
  return x == x ? c / (expf(-c * 1.5957691216f * (c * c * 0.044715f + 1.0f)) + 1.0f) : x;
}

__global__ void __launch_bounds__(kThreads) glu_kernel(GluCall c, int32_t activation) {
  const size_t i = element();
  if (i >= c.count) return;
  const float gate = c.gate[i];
  c.out[i] = (activation == KVASIR_SILU ? silu(gate) : gelu(gate)) * c.up[i];
}

// In double: positions of a million times a frequency keep 1e-10 of a turn.
__global__ void __launch_bounds__(kThreads) rope_table_kernel(RopeTableCall c, const double* frequencies, double magnitude) {
  const size_t i = element();
  if (i >= c.n * c.pairs) return;
  const double angle = c.positions[i / c.pairs] * frequencies[i % c.pairs];
  c.out[2 * i] = static_cast<float>(magnitude * cos(angle));
  c.out[2 * i + 1] = static_cast<float>(magnitude * sin(angle));
}

__global__ void __launch_bounds__(kThreads) rope_kernel(RopeCall c, bool neighbours) {
  const size_t i = element();
  if (i >= c.n * c.heads * c.pairs) return;
  const size_t pair = i % c.pairs, head = i / c.pairs, token = head / c.heads;
  const float cosine = c.table[2 * (token * c.pairs + pair)], sine = c.table[2 * (token * c.pairs + pair) + 1];
  float* row = c.x + head * c.head_dim;
  float* first = row + (neighbours ? 2 * pair : pair);
  float* second = row + (neighbours ? 2 * pair + 1 : pair + c.pairs);
  const float a = *first, b = *second;
  *first = a * cosine - b * sine;
  *second = b * cosine + a * sine;
}

}  // namespace

void launch_add(Runtime& runtime, const AddCall& call) {
  const size_t count = call.rows * call.width;
  launch(runtime, "add", add_kernel, dim3(blocks_of(static_cast<int64_t>(count), kThreads)), dim3(kThreads), 0, call.out, call.x, call.y,
         count, call.is_row ? call.width : count);
}

void launch_glu(Runtime& runtime, const GluCall& call, int32_t activation) {
  launch(runtime, "glu", glu_kernel, dim3(blocks_of(static_cast<int64_t>(call.count), kThreads)), dim3(kThreads), 0, call, activation);
}

void launch_rope_table(Runtime& runtime, const RopeTableCall& call, const double* frequencies, float magnitude) {
  launch(runtime, "rope_table", rope_table_kernel, dim3(blocks_of(static_cast<int64_t>(call.n * call.pairs), kThreads)),
         dim3(kThreads), 0, call, frequencies, static_cast<double>(magnitude));
}

void launch_rope(Runtime& runtime, const RopeCall& call, bool neighbours) {
  launch(runtime, "rope", rope_kernel, dim3(blocks_of(static_cast<int64_t>(call.n * call.heads * call.pairs), kThreads)),
         dim3(kThreads), 0, call, neighbours);
}

}  // namespace kvasir
