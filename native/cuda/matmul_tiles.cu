// Products of many tokens with quantized weights on tensor cores: prefill.
//
// Ladder (not measured: no device at hand)
//   1  tiles of 128 (or 32) tokens by 128 rows, 32 deep: x in f16, scaled by a power of two a token so that nothing overflows, comes
//      by asynchronous copies; weights are read quantized one tile ahead, into registers, and written to shared memory as f16 while
//      the tensor cores work on the tile before (f16 keeps three bits more than bf16, and the scale its range). Two buffers, one
//      barrier a step. Rows of a tile are 80 bytes apart, so that the eight rows of a matrix lie in different banks. 40 KB of shared
//      memory fit every architecture. wgmma would take another layout; not before a device shows what this one reaches.
#include "kernels.h"
#include "launch.h"
#include "mutants.h"
#include "tensor_core.h"
#include "weight_block.cuh"

namespace kvasir {
namespace {

constexpr int kThreads = 256, kRows = 128, kDeep = 32, kPitch = kDeep + 8;

// A block a token: f16 of x / 2^e, the largest in [0.5, 1), and 2^e.
__global__ void __launch_bounds__(kThreads) half_kernel(uint16_t* out, float* scales, const float* x, int32_t k) {
  KVASIR_SHARED(float, parts, [kThreads / 32]);
  const float* from = x + static_cast<size_t>(blockIdx.x) * k;
  float most = 0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < k; i += kThreads) most = fmaxf(most, fabsf(from[i]));
  most = warp_max(most);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = most;
  __syncthreads();
  for (int w = 0; w < kThreads / 32; w++) most = fmaxf(most, parts[w]);
  // The exponent of the next power of two; of zeros, and of what is infinite, 1 serves.
  const int exponent = static_cast<int>(__float_as_uint(most) >> 23) - 126;
  const bool usable = most >= 1e-30f && most <= 3.4028234e38f && exponent < 127;
  const float scale = usable ? __uint_as_float(static_cast<uint32_t>(exponent + 127) << 23) : 1.0f;
  const float inverse = 1.0f / scale;
  uint16_t* to = out + static_cast<size_t>(blockIdx.x) * k;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < k; i += kThreads) to[i] = float_to_half(from[i] * inverse);
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
}

struct TileCall {
  WeightView weight;
  float* out;           // [n, rows]
  const uint16_t* x;    // [n, k]
  const float* scales;  // [n]
  int32_t n;
};

template <int kTokens>
__device__ __forceinline__ void fill_x(const TileCall& c, uint16_t (&tile)[kTokens][kPitch], int32_t first, int32_t block) {
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * 4; i += kThreads) {
    const int32_t token = i / 4;
    const int32_t limit = is_seeded(Mutant::kTilesRowMask) && c.n % 16 != 0 ? c.n - 1 : c.n;
    const bool inside = first + token < limit;
    const size_t row = static_cast<size_t>(inside ? first + token : 0);
    copy_async(&tile[token][i % 4 * 8], c.x + row * c.weight.cols + block * kDeep + i % 4 * 8, inside ? 16 : 0);
  }
  copies_commit();
}

// Half a block a thread.
template <int kType>
__device__ __forceinline__ void fill_weights(uint16_t (&tile)[kRows][kPitch], const RawBlock& raw) {
  const int row = static_cast<int>(threadIdx.x / 2), half = static_cast<int>(threadIdx.x % 2);
  const BlockFactors f = block_factors<kType>(raw);
  const float scale = half == 0 ? f.scale[0] : f.scale[1];
  uint32_t pairs[8];
#pragma unroll
  for (int j = 0; j < 4; j++) {
    // Both are worked out where the halves of a byte are: a constant index, and no branch in a warp.
    const uint32_t a = block_codes<kType>(raw, j), b = block_codes<kType>(raw, 4 + j), codes = half == 0 ? a : b;
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = block_value<kType>(codes, i, scale, f.min);
    pairs[2 * j] = pack_half2(v[0], v[1]);
    pairs[2 * j + 1] = pack_half2(v[2], v[3]);
  }
  uint4* to = reinterpret_cast<uint4*>(&tile[row][half * 16]);
  to[0] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  to[1] = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
}

template <int kType, int kTokens>
__global__ void __launch_bounds__(kThreads) tiles_kernel(TileCall c) {
  constexpr int kAcross = kTokens == 128 ? 2 : 1, kAlong = 8 / kAcross;         // warps over tokens, over rows
  constexpr int kHigh = kTokens / kAcross / 16, kWide = kRows / kAlong / 8;      // 16 x 8 results of a warp
  static_assert(kWide % 2 == 0, "matrices of weights come in pairs");
  KVASIR_SHARED(uint16_t, xs, [2][kTokens][kPitch]);
  KVASIR_SHARED(uint16_t, ws, [2][kRows][kPitch]);
  const int32_t token = static_cast<int32_t>(blockIdx.x) * kTokens, row = static_cast<int32_t>(blockIdx.y) * kRows;
  const int32_t mine = row + static_cast<int32_t>(threadIdx.x / 2), source = mine < c.weight.rows ? mine : c.weight.rows - 1;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int down = warp / kAlong * kHigh * 16, right = warp % kAlong * kWide * 8;
  const int32_t steps = c.weight.cols / kDeep;
  float sums[kHigh][kWide][4] = {};

  fill_x<kTokens>(c, xs[0], token, 0);
  fill_weights<kType>(ws[0], load_block<kType>(c.weight, source, 0));
  copies_wait<0>();
  __syncthreads();
  for (int32_t step = 0; step < steps; step++) {
    const int at = step % 2;
    const bool more = step + 1 < steps;
    RawBlock next;
    if (more) {
      fill_x<kTokens>(c, xs[1 - at], token, step + 1);
      next = load_block<kType>(c.weight, source, step + 1);
    }
#pragma unroll
    for (int k = 0; k < kDeep; k += 16) {
      uint32_t b[kWide][2];
#pragma unroll
      for (int w = 0; w < kWide; w += 2) {
        // Matrices: rows 0 to 7 and 8 to 15 of the weights, each 8 columns and the next 8.
        uint32_t four[4];
        load_matrices(four, &ws[at][right + 8 * w + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
        b[w][0] = four[0], b[w][1] = four[1], b[w + 1][0] = four[2], b[w + 1][1] = four[3];
      }
#pragma unroll
      for (int h = 0; h < kHigh; h++) {
        uint32_t a[4];
        load_matrices(a, &xs[at][down + 16 * h + lane % 16][k + lane / 16 * 8]);
#pragma unroll
        for (int w = 0; w < kWide; w++) mma_f16(sums[h][w], a, b[w]);
      }
    }
    if (more) {
      fill_weights<kType>(ws[1 - at], next);
      if (!is_seeded(Mutant::kTilesForgottenWait)) copies_wait<0>();
    }
    if (!is_seeded(Mutant::kTilesWithoutBarrier)) __syncthreads();
  }
#pragma unroll
  for (int h = 0; h < kHigh; h++) {
#pragma unroll
    for (int w = 0; w < kWide; w++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int32_t t = token + down + 16 * h + lane / 4 + i / 2 * 8, r = row + right + 8 * w + lane % 4 * 2 + i % 2;
        if (t < c.n && r < c.weight.rows) c.out[static_cast<size_t>(t) * c.weight.rows + r] = sums[h][w][i] * c.scales[t];
      }
    }
  }
}

}  // namespace

void launch_matmul_tiles(Runtime& runtime, DeviceScratch& scratch, const Product* products, int32_t count, const float* x,
                         int32_t n, int32_t k) {
  const size_t numbers = (static_cast<size_t>(n) * static_cast<size_t>(k) * 2 + 255) / 256 * 256;
  auto* halves = static_cast<uint16_t*>(scratch.get(numbers + static_cast<size_t>(n) * sizeof(float)));
  float* scales = reinterpret_cast<float*>(reinterpret_cast<uint8_t*>(halves) + numbers);
  launch(runtime, "matmul x", half_kernel, dim3(static_cast<uint32_t>(n)), dim3(kThreads), 0, halves, scales, x, k);
  for (int32_t p = 0; p < count; p++) {
    const PackedWeight& w = *products[p].weight;
    if (w.view.rows == 0) continue;
    const TileCall call = {w.view, products[p].out, halves, scales, n};
    for_block_type(w.dtype, [&](auto type) {
      constexpr int kType = decltype(type)::value;
      const auto run = [&](auto kernel, int tokens) {
        launch(runtime, "matmul", kernel, dim3(blocks_of(n, tokens), blocks_of(w.view.rows, kRows)), dim3(kThreads), 0, call);
      };
      if (n <= 64) run(tiles_kernel<kType, 32>, 32);
      else run(tiles_kernel<kType, 128>, 128);
    });
  }
}

}  // namespace kvasir
