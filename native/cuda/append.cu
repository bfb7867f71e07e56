// Rows into a cache.
//
// Ladder (not measured: no device at hand)
//   1  a warp a row of one head, so that the largest entry of an 8-bit row needs no shared memory; keys and values in one launch.
#include "kernels.h"
#include "kvasir_backend.h"
#include "launch.h"
#include "mutants.h"

namespace kvasir {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;

// Grid (rows in fours, heads, keys and values).
__global__ void __launch_bounds__(kThreads) append_kernel(AppendCall c) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int row = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / 32), head = static_cast<int>(blockIdx.y);
  if (row >= c.n) return;  // whole warps
  const bool is_key = blockIdx.z == 0;
  const size_t d = static_cast<size_t>(c.head_dim);
  const float* from = (is_key ? c.k : c.v) + (static_cast<size_t>(row) * c.heads + head) * d;
  const size_t at = static_cast<size_t>(head) * c.capacity + c.row + row + (is_seeded(Mutant::kAppendOffByOne) ? 1 : 0);
  void* to = is_key ? c.keys : c.values;
  if (c.dtype == KVASIR_F32) {
    for (size_t i = lane; i < d; i += 32) static_cast<float*>(to)[at * d + i] = from[i];
    return;
  }
  if (c.dtype == KVASIR_F16) {
    for (size_t i = lane; i < d; i += 32) static_cast<uint16_t*>(to)[at * d + i] = float_to_half(from[i]);
    return;
  }
  float most = 0;
  bool finite = true;
  for (size_t i = lane; i < d; i += 32) {
    const float size = fabsf(from[i]);
    if (!(size <= 3.4028234e38f)) finite = false;
    most = fmaxf(most, size);
  }
  most = warp_max(most);
  finite = __all_sync(kFullWarp, finite ? 1 : 0) != 0;
  // A row so small that 127 / most overflows is zero for every purpose; so is one that is no number.
  const bool usable = finite && most > 1e-30f;
  const float inverse = usable ? 127.0f / most : 0.0f;
  for (size_t i = lane; i < d; i += 32) {
    static_cast<int8_t*>(to)[at * d + i] = static_cast<int8_t>(usable ? __float2int_rn(from[i] * inverse) : 0);
  }
  if (lane == 0) (is_key ? c.key_scales : c.value_scales)[at] = usable ? most / 127.0f : 0.0f;
}

}  // namespace

void launch_append(Runtime& runtime, const AppendCall& call) {
  launch(runtime, "append", append_kernel,
         dim3(blocks_of(call.n, kWarps), static_cast<uint32_t>(call.heads), 2), dim3(kThreads), 0, call);
}

}  // namespace kvasir
