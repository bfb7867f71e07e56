// RMS norm, alone and with the sum before it.
//
// Ladder (not measured: no device at hand)
//   1  a block a row, 256 threads: x is read once into registers where it fits (8192 columns), and again from L2 where not;
//      squares are summed in float by each thread, between threads in double, so that the error does not grow with the width.
//      With one row a token the kernel is bound by its launch; add and norm are one launch for that.
#include "kernels.h"
#include "launch.h"
#include "mutants.h"

namespace kvasir {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kKept = 32;

__global__ void __launch_bounds__(kThreads) norm_kernel(NormCall c, float epsilon) {
  KVASIR_SHARED(double, parts, [kWarps]);
  const size_t row = blockIdx.x;
  float* x = c.x + row * c.width;
  const float* y = c.y == nullptr ? nullptr : c.y + row * c.width;
  float kept[kKept];
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kKept; i++) {
    const size_t at = threadIdx.x + static_cast<size_t>(i) * kThreads;
    if (at >= c.width) break;
    float value = x[at];
    if (y != nullptr) x[at] = value += y[at];
    kept[i] = value;
    squares += value * value;
  }
  for (size_t at = threadIdx.x + static_cast<size_t>(kKept) * kThreads; at < c.width; at += kThreads) {
    float value = x[at];
    if (y != nullptr) x[at] = value += y[at];
    squares += value * value;
  }
  const double sum = warp_sum(static_cast<double>(squares));
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  if (!is_seeded(Mutant::kNormWithoutBarrier)) __syncthreads();
  double total = 0;
  for (int w = 0; w < kWarps; w++) total += parts[w];
  const float factor = static_cast<float>(1.0 / sqrt(total / static_cast<double>(c.width) + static_cast<double>(epsilon)));
  float* out = c.out + row * c.width;
#pragma unroll
  for (int i = 0; i < kKept; i++) {
    const size_t at = threadIdx.x + static_cast<size_t>(i) * kThreads;
    if (at >= c.width) break;
    out[at] = kept[i] * factor * c.weight[at];
  }
  for (size_t at = threadIdx.x + static_cast<size_t>(kKept) * kThreads; at < c.width; at += kThreads) {
    out[at] = x[at] * factor * c.weight[at];
  }
}

}  // namespace

void launch_norm(Runtime& runtime, const NormCall& call, float epsilon) {
  launch(runtime, "norm", norm_kernel, dim3(static_cast<uint32_t>(call.rows)), dim3(kThreads), 0, call, epsilon);
}

}  // namespace kvasir
