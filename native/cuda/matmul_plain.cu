// Products with plain weights (F32, F16, BF16), in float.
//
// Ladder (not measured: no device at hand)
//   1  decode: a warp a row, 16 bytes a lane, all tokens in one pass over the weights. Prompts: tiles of 64 by 64, 16 deep, through
//      shared memory, 4 by 4 a thread, at the rate of float units. Tensor cores with x in two f16 parts would be several times as
//      fast and as exact; files with plain matrices are the exception.
#include "kernels.h"
#include "launch.h"
#include "weight_block.cuh"

namespace kvasir {
namespace {

constexpr int kThreads = 256, kTile = 64, kDeep = 16;

template <int kType, int kTokens>
__global__ void __launch_bounds__(kThreads) plain_vector_kernel(float* out, WeightView w, const float* x, int32_t n) {
  constexpr int kEach = kType == KVASIR_F32 ? 4 : 8;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int32_t row = static_cast<int32_t>(blockIdx.x) * (kThreads / 32) + static_cast<int32_t>(threadIdx.x / 32);
  if (row >= w.rows) return;  // whole warps
  const uint8_t* from = w.low + static_cast<size_t>(row) * w.low_stride;
  float sums[kTokens] = {};
  for (int32_t column = lane * kEach; column < w.cols; column += 32 * kEach) {
    // Rows are padded to 16 bytes: the load is inside, what is beyond the columns is not used.
    const uint4 raw = *reinterpret_cast<const uint4*>(from + static_cast<size_t>(column) * (16 / kEach));
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < kEach; i++) {
      float value;
      if constexpr (kType == KVASIR_F32) value = __uint_as_float(words[i]);
      else if constexpr (kType == KVASIR_F16) value = half_to_float(static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16)));
      else value = bfloat_to_float(static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16)));
      if (column + i >= w.cols) break;
#pragma unroll
      for (int t = 0; t < kTokens; t++) {
        if (t < n) sums[t] += value * x[static_cast<size_t>(t) * w.cols + column + i];
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens; t++) {
    const float sum = warp_sum(sums[t]);
    if (lane == 0 && t < n) out[static_cast<size_t>(t) * w.rows + row] = sum;
  }
}

template <int kType>
__global__ void __launch_bounds__(kThreads) plain_tile_kernel(float* out, WeightView w, const float* x, int32_t n) {
  KVASIR_SHARED(float, xs, [kDeep][kTile + 4]);
  KVASIR_SHARED(float, ws, [kDeep][kTile + 4]);
  const int32_t token = static_cast<int32_t>(blockIdx.x) * kTile, row = static_cast<int32_t>(blockIdx.y) * kTile;
  const int across = static_cast<int>(threadIdx.x % 16) * 4, down = static_cast<int>(threadIdx.x / 16) * 4;
  float sums[4][4] = {};
  for (int32_t first = 0; first < w.cols; first += kDeep) {
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kDeep; i += kThreads) {
      const int32_t k = i % kDeep, at = i / kDeep, column = first + k;
      xs[k][at] = column < w.cols && token + at < n ? x[static_cast<size_t>(token + at) * w.cols + column] : 0.0f;
      ws[k][at] = column < w.cols && row + at < w.rows
                      ? plain_value<kType>(w.low + static_cast<size_t>(row + at) * w.low_stride, column)
                      : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDeep; k++) {
      float a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; i++) a[i] = xs[k][down + i], b[i] = ws[k][across + i];
#pragma unroll
      for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] += a[i] * b[j];
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; i++) {
    for (int j = 0; j < 4; j++) {
      if (token + down + i < n && row + across + j < w.rows) {
        out[static_cast<size_t>(token + down + i) * w.rows + row + across + j] = sums[i][j];
      }
    }
  }
}

}  // namespace

void launch_matmul_plain(Runtime& runtime, const Product& product, const float* x, int32_t n, int32_t) {
  const WeightView& w = product.weight->view;
  if (w.rows == 0) return;
  for_plain_type(product.weight->dtype, [&](auto type) {
    constexpr int kType = decltype(type)::value;
    const auto vector = [&](auto kernel) {
      launch(runtime, "matvec", kernel, dim3(blocks_of(w.rows, kThreads / 32)), dim3(kThreads), 0, product.out, w, x, n);
    };
    if (n == 1) return vector(plain_vector_kernel<kType, 1>);
    if (n <= kMostDecoded) return vector(plain_vector_kernel<kType, kMostDecoded>);
    launch(runtime, "matmul", plain_tile_kernel<kType>, dim3(blocks_of(n, kTile), blocks_of(w.rows, kTile)), dim3(kThreads), 0,
           product.out, w, x, n);
  });
}

}  // namespace kvasir
