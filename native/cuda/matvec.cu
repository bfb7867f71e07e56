// Products of a few tokens with quantized weights: decode, bound by reading the weights once.
//
// Ladder (not measured: no device at hand)
//   1  x as two bytes a number (15 bits, one scale each 32 columns) and dp4a: the weights' codes stay integers, and a block of 32
//      costs 16 multiply-adds of four a token, where floats would cost 32 conversions and 32 multiply-adds. A lane takes a block,
//      neighbouring lanes neighbouring blocks, so that each plane is read by whole lines, 16 bytes a lane; two rows a lane, to have
//      twice the loads under way and to read x half as often. 8, 16 or 32 lanes a row, whichever leaves the fewest idle: rows of
//      576 columns are 18 blocks. Matrices of one type and one x share a launch: small ones alone would not fill the device.
#include <algorithm>

#include "kernels.h"
#include "launch.h"
#include "mutants.h"
#include "weight_block.cuh"

namespace kvasir {
namespace {

constexpr int kThreads = 128, kRows = 2, kJoined = 4;

// 32 columns of x: q = 128 hi + lo, x = scale * q, and the sums of q of columns 0 to 15 and 16 to 31.
struct __align__(16) XBlock {
  uint32_t hi[8], lo[8];
  float scale;
  int32_t sum[2];
  int32_t unused;
};

// A warp a block of 32 columns.
__global__ void __launch_bounds__(kThreads) quantize_kernel(XBlock* out, const float* x, int64_t blocks) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (block >= blocks) return;  // whole warps
  const float value = x[block * 32 + lane];
  const float most = warp_max(fabsf(value));
  const bool finite = __all_sync(kFullWarp, fabsf(value) <= 3.4028234e38f ? 1 : 0) != 0;
  const bool usable = finite && most > 1e-30f;
  const int q = usable ? __float2int_rn(value * (16256.0f / most)) : 0;
  const int hi = (q + 64) >> 7, lo = q - hi * 128;
  int sum = q;
  for (int bits = 8; bits > 0; bits >>= 1) sum += __shfl_xor_sync(kFullWarp, sum, bits);
  int8_t* to = reinterpret_cast<int8_t*>(out + block);
  to[lane] = static_cast<int8_t>(hi);
  to[32 + lane] = static_cast<int8_t>(lo);
  if (lane % 16 == 0) out[block].sum[lane / 16] = sum;
  // What is no number, or infinite, makes every product it is in no number.
  if (lane == 0) out[block].scale = usable ? most / 16256.0f : finite ? 0.0f : NAN;
}

struct MatvecCall {
  WeightView weights[kJoined];
  float* out[kJoined];
  const XBlock* x;              // [n, blocks]
  uint32_t first[kJoined + 1];  // blocks of the grid
  int32_t n, blocks, lanes;
};

template <int kType, int kTokens>
__global__ void __launch_bounds__(kThreads) matvec_kernel(MatvecCall c) {
  using Type = BlockType<kType>;
  int which = 0;
  while (which + 1 < kJoined && blockIdx.x >= c.first[which + 1]) which++;
  const WeightView& w = c.weights[which];
  const int lane = static_cast<int>(threadIdx.x) % c.lanes, groups = kThreads / c.lanes;
  const int32_t row = (static_cast<int32_t>(blockIdx.x - c.first[which]) * groups + static_cast<int32_t>(threadIdx.x) / c.lanes) * kRows;
  float sums[kRows][kTokens] = {};
  const int32_t end = is_seeded(Mutant::kMatvecLastBlock) && c.blocks > 1 ? c.blocks - 1 : c.blocks;
  for (int32_t block = lane; block < end; block += c.lanes) {
    RawBlock raw[kRows];
#pragma unroll
    for (int r = 0; r < kRows; r++) raw[r] = load_block<kType>(w, row + r < w.rows ? row + r : w.rows - 1, block);
#pragma unroll
    for (int t = 0; t < kTokens; t++) {
      const XBlock& x = c.x[static_cast<size_t>(t < c.n ? t : c.n - 1) * c.blocks + block];
      uint32_t hi[8], lo[8];
#pragma unroll
      for (int j = 0; j < 8; j += 4) {
        const uint4 a = *reinterpret_cast<const uint4*>(x.hi + j), b = *reinterpret_cast<const uint4*>(x.lo + j);
        hi[j] = a.x, hi[j + 1] = a.y, hi[j + 2] = a.z, hi[j + 3] = a.w;
        lo[j] = b.x, lo[j + 1] = b.y, lo[j + 2] = b.z, lo[j + 3] = b.w;
      }
      const float scale = x.scale;
      const int32_t first = x.sum[0], second = x.sum[1];
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        const BlockFactors f = block_factors<kType>(raw[r]);
        int32_t high[2] = {0, 0}, low[2] = {0, 0};
#pragma unroll
        for (int j = 0; j < 8; j++) {
          const int codes = static_cast<int>(block_codes<kType>(raw[r], j));
          const int half = Type::kHalves ? j / 4 : 0;
          high[half] = __dp4a(codes, static_cast<int>(hi[j]), high[half]);
          low[half] = __dp4a(codes, static_cast<int>(lo[j]), low[half]);
        }
        float value;
        if constexpr (Type::kHalves) {
          value = f.scale[0] * static_cast<float>(128 * high[0] + low[0] - Type::kOffset * first) +
                  f.scale[1] * static_cast<float>(128 * high[1] + low[1] - Type::kOffset * second);
        } else {
          value = f.scale[0] * static_cast<float>(128 * high[0] + low[0] - Type::kOffset * (first + second));
        }
        if constexpr (Type::kMin) value += f.min * static_cast<float>(first + second);
        sums[r][t] += scale * value;
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; r++) {
#pragma unroll
    for (int t = 0; t < kTokens; t++) {
      float sum = sums[r][t];
      for (int bits = c.lanes / 2; bits > 0; bits >>= 1) sum += __shfl_xor_sync(kFullWarp, sum, bits);
      if (lane == 0 && t < c.n && row + r < w.rows) c.out[which][static_cast<size_t>(t) * w.rows + row + r] = sum;
    }
  }
}

// Of 8, 16 and 32 lanes a row, what leaves the fewest idle, the most among equals.
int32_t best_lanes(int32_t blocks) {
  int32_t best = 32;
  for (int32_t lanes : {16, 8}) {
    if ((blocks + lanes - 1) / lanes * lanes < (blocks + best - 1) / best * best) best = lanes;
  }
  return best;
}

}  // namespace

void launch_matvec(Runtime& runtime, DeviceScratch& scratch, const Product* products, int32_t count, const float* x, int32_t n,
                   int32_t k) {
  MatvecCall call{};
  call.n = n, call.blocks = k / 32, call.lanes = best_lanes(call.blocks);
  const int64_t blocks = static_cast<int64_t>(n) * call.blocks;
  XBlock* quantized = scratch.array<XBlock>(static_cast<size_t>(blocks));
  call.x = quantized;
  launch(runtime, "matvec x", quantize_kernel, dim3(blocks_of(blocks, kThreads / 32)), dim3(kThreads), 0, quantized, x, blocks);
  const int32_t rows_of_block = kThreads / call.lanes * kRows;
  std::vector<bool> done(static_cast<size_t>(count), false);
  for (int32_t i = 0; i < count; i++) {
    if (done[static_cast<size_t>(i)]) continue;
    const int32_t dtype = products[i].weight->dtype;
    int32_t joined = 0;
    uint32_t grid = 0;
    for (int32_t p = i; p < count && joined < kJoined; p++) {
      const WeightView& w = products[p].weight->view;
      if (done[static_cast<size_t>(p)] || products[p].weight->dtype != dtype) continue;
      done[static_cast<size_t>(p)] = true;
      if (w.rows == 0) continue;
      call.weights[joined] = w, call.out[joined] = products[p].out, call.first[joined] = grid;
      grid += blocks_of(w.rows, rows_of_block);
      joined++;
    }
    for (int32_t p = joined; p <= kJoined; p++) call.first[p] = p == joined ? grid : ~0u;
    if (grid == 0) continue;
    for_block_type(dtype, [&](auto type) {
      constexpr int kType = decltype(type)::value;
      const auto run = [&](auto kernel) { launch(runtime, "matvec", kernel, dim3(grid), dim3(kThreads), 0, call); };
      if (n == 1) run(matvec_kernel<kType, 1>);
      else if (n == 2) run(matvec_kernel<kType, 2>);
      else if (n <= 4) run(matvec_kernel<kType, 4>);
      else run(matvec_kernel<kType, 8>);
    });
  }
}

}  // namespace kvasir
