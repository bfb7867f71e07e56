// Rows of a table of any weight type, as floats.
//
// Ladder (not measured: no device at hand)
//   1  a thread a block of 32 columns, or a column of a plain type.
#include "kernels.h"
#include "launch.h"
#include "weight_block.cuh"

namespace kvasir {
namespace {

constexpr int kThreads = 128;

template <int kType>
__global__ void __launch_bounds__(kThreads) embed_blocks(float* out, WeightView table, const int32_t* tokens, int64_t count, float scale) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int32_t blocks = table.cols / 32;
  if (i >= count * blocks) return;
  const int32_t block = static_cast<int32_t>(i % blocks);
  const RawBlock raw = load_block<kType>(table, tokens[i / blocks], block);
  const BlockFactors f = block_factors<kType>(raw);
  float* to = out + i / blocks * table.cols + block * 32;
#pragma unroll
  for (int j = 0; j < 8; j++) {
    const uint32_t codes = block_codes<kType>(raw, j);
#pragma unroll
    for (int b = 0; b < 4; b++) to[4 * j + b] = block_value<kType>(codes, b, f.scale[j / 4], f.min) * scale;
  }
}

template <int kType>
__global__ void __launch_bounds__(kThreads) embed_plain(float* out, WeightView table, const int32_t* tokens, int64_t count, float scale) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count * table.cols) return;
  const uint8_t* row = table.low + static_cast<size_t>(tokens[i / table.cols]) * table.low_stride;
  out[i] = plain_value<kType>(row, static_cast<int32_t>(i % table.cols)) * scale;
}

}  // namespace

void launch_embed(Runtime& runtime, const EmbedCall& call, float scale) {
  const Tensor& t = *call.table;
  WeightView view{};
  if (t.packed != nullptr) {
    view = t.packed->view;
  } else {
    view.low = t.data, view.low_stride = static_cast<uint32_t>(t.row_bytes()), view.rows = call.vocab, view.cols = call.width;
  }
  const auto* tokens = call.tokens->as<int32_t>();
  const int64_t n = call.n;
  if (t.dtype <= KVASIR_BF16) {
    for_plain_type(t.dtype, [&](auto type) {
      launch(runtime, "embed", embed_plain<decltype(type)::value>, dim3(blocks_of(n * call.width, kThreads)), dim3(kThreads), 0, call.out,
             view, tokens, n, scale);
    });
    return;
  }
  for_block_type(t.dtype, [&](auto type) {
    launch(runtime, "embed", embed_blocks<decltype(type)::value>, dim3(blocks_of(n * (call.width / 32), kThreads)), dim3(kThreads), 0,
           call.out, view, tokens, n, scale);
  });
}

}  // namespace kvasir
