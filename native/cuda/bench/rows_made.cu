#include "rows_made.h"

#include "launch.h"

namespace kvasir {
namespace {

__device__ uint32_t mix(uint32_t x) {
  x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu, x ^= x >> 16;
  return x;
}
// About normal: the sum of four uniforms.
__device__ float bell(uint32_t seed) {
  const uint32_t a = mix(seed), b = mix(a ^ 0x9e3779b9u);
  const float sum = static_cast<float>(a & 0xffff) + static_cast<float>(a >> 16) + static_cast<float>(b & 0xffff) + static_cast<float>(b >> 16);
  return (sum * (1.0f / 65536) - 2.0f) * 1.7320508f;
}
__device__ float topic_of(uint32_t head, uint32_t topic, uint32_t d) { return bell((head * 4096 + topic) * 1024 + d + 0x51ed270bu); }

__global__ void fill_halves(uint16_t* out, int32_t heads, int32_t rows, int32_t dim, int32_t topics, float spread, uint32_t seed) {
  const size_t all = static_cast<size_t>(heads) * static_cast<size_t>(rows) * static_cast<size_t>(dim);
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    const uint32_t row = static_cast<uint32_t>(i / static_cast<size_t>(dim)), d = static_cast<uint32_t>(i % static_cast<size_t>(dim));
    const uint32_t head = row / static_cast<uint32_t>(rows);
    float x = spread * bell(mix(row ^ seed) + d);
    if (topics > 0) x += 0.5f + topic_of(head, mix(row * 3 + seed) % static_cast<uint32_t>(topics), d);
    out[i] = float_to_half(x);
  }
}

__global__ void fill_bells(float* out, int32_t heads, int32_t group, int32_t dim, int32_t topics, float sharp, uint32_t seed) {
  const uint32_t h = blockIdx.x % static_cast<uint32_t>(heads), d = threadIdx.x;
  if (d >= static_cast<uint32_t>(dim)) return;
  const uint32_t topic = topics == 0 ? 0 : mix(h + seed) % static_cast<uint32_t>(topics);
  const float x = topics == 0 ? 0.0f : sharp * topic_of(h / static_cast<uint32_t>(group), topic, d);
  out[blockIdx.x * static_cast<uint32_t>(dim) + d] = x + 0.7f * bell(blockIdx.x * 1024 + d + seed);
}

}  // namespace

void fill_rows(Runtime& runtime, uint16_t* out, int32_t heads, int32_t rows, int32_t dim, int32_t topics, float spread, uint32_t seed) {
  const size_t all = static_cast<size_t>(heads) * static_cast<size_t>(rows) * static_cast<size_t>(dim);
  const uint32_t blocks = all / 256 + 1 > 8192 ? 8192 : static_cast<uint32_t>(all / 256 + 1);
  launch(runtime, "fill_halves", fill_halves, dim3(blocks), dim3(256), 0, out, heads, rows, dim, topics, spread, seed);
}

void fill_queries(Runtime& runtime, float* out, int32_t n, int32_t heads, int32_t group, int32_t dim, int32_t topics, float sharp,
                  uint32_t seed) {
  launch(runtime, "fill_bells", fill_bells, dim3(static_cast<uint32_t>(n * heads)), dim3(static_cast<uint32_t>(dim)), 0, out, heads,
         group, dim, topics, sharp, seed);
}

}  // namespace kvasir
