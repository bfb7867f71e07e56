// Threshold sampling over logarithms (native/index/sampler.h): a key stays with probability p = min(1, max over the group's heads
// of exp(s) / (tau Z)), by the same bits of (draw, KV head, key) and the same integers as on the CPU, so that hits are equal
// wherever scores are.
//
// Ladder (not measured yet: no device was at hand)
//   1  both stages in one pass over stored logarithms, two keys a thread; survivors are put in order by counts of blocks
#pragma once
#include "draw.h"
#include "index_scan.cuh"
#include "mutants.h"

namespace kvasir {

// offsets [heads]: what turns scores into logarithms of p * 2^16, rounded up. squares are cleared. Grid: heads, 1 warp.
__global__ void find_offsets(const IndexShape shape, const ScoreOut of, const float* exact, const float* refs, double tau,
                             int32_t* offsets, int64_t* squares) {
  const int32_t head = static_cast<int32_t>(blockIdx.x), lane = static_cast<int32_t>(threadIdx.x);
  double sum = 0;
  for (int32_t b = lane; b < of.blocks; b += 32) {
    sum += static_cast<double>(of.parts[static_cast<size_t>(b) * static_cast<size_t>(shape.heads) + head]);
  }
  sum = warp_sum(sum);
  if (lane != 0) return;
  const double known = exact[head] == -INFINITY ? 0.0 : exp(static_cast<double>(exact[head]) - static_cast<double>(refs[head]));
  const double z = sum / static_cast<double>(kLogExcess) + known, x = ceil(16 * 128 - 128 * log2(tau * z));
  offsets[head] = static_cast<int32_t>(x < -32767.0 ? -32767.0 : x > 32767.0 ? 32767.0 : x);
  squares[head] = 0;
}

// 2^x, x in [0, 1): Taylor's series about the middle, as on the CPU.
__device__ inline float raise_two(float x) {
  const float y = (x - 0.5f) * 0.69314718f;
  float p = y * (1.0f / 5040) + 1.0f / 720;
  p = p * y + 1.0f / 120;
  p = p * y + 1.0f / 24;
  p = p * y + 1.0f / 6;
  p = p * y + 0.5f;
  p = p * y + 1.0f;
  p = p * y + 1.0f;
  return p * 1.41421356f;
}

// Whether the key stays, both stages; top: the logarithm of p * 2^16.
__device__ inline bool stays(int32_t key, int32_t top, uint32_t first, uint32_t second) {
  const uint32_t hash = lowbias32(static_cast<uint32_t>(key >> 1) ^ first);
  const uint32_t half = (key & 1) == 0 ? hash & 0xffffu : hash >> 16;
  const int32_t uniform = __float_as_int(static_cast<float>(static_cast<int32_t>(half))) >> 16;
  if (uniform > top) return false;
  if (top >= kDrawOne || is_seeded(Mutant::kDrawFirstStage)) return true;
  const int32_t x = top - kDrawOne;
  const float wanted = __int_as_float(__float_as_int(raise_two(static_cast<float>(x & 127) * (1.0f / 128))) + ((x >> 7) << 23)) * 65536.0f;
  const float bound = log_value(top + 1);
  const int32_t whole = static_cast<int32_t>(bound), passed = whole + (static_cast<float>(whole) < bound ? 1 : 0);
  const float share = wanted / static_cast<float>(passed < 65536 ? passed : 65536);
  const uint32_t again = lowbias32(static_cast<uint32_t>(key) ^ second);
  return static_cast<float>(static_cast<int32_t>(again >> 1)) < share * 2147483648.0f;
}

// Grid: (blocks of kScanKeys, KV heads), kScanThreads.
__global__ void draw_keys(const IndexShape shape, const ScoreOut of, const int32_t* offsets, uint32_t draw, const DrawOut to) {
  KVASIR_SHARED(int32_t, before, [kScanThreads / 32 + 1]);
  const int32_t group = shape.group, kv_head = static_cast<int32_t>(blockIdx.y), block = static_cast<int32_t>(blockIdx.x);
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32, warp = static_cast<int32_t>(threadIdx.x) / 32;
  const uint32_t first = draw_key(draw, kv_head), second = lowbias32(first ^ 0x5bd1e995u);
  int32_t kept = 0;
  int16_t tops[2];
  int32_t mine[2];
  for (int32_t i = 0; i < 2; i++) {
    const int32_t key = block * kScanKeys + 2 * static_cast<int32_t>(threadIdx.x) + i;
    int32_t top = kDrawLeast;
    bool in = key < of.keys;
    if (in) {
      for (int32_t g = 0; g < group; g++) {
        const int32_t head = kv_head * group + g;
        const int32_t log = of.logs[static_cast<size_t>(head) * of.stride + static_cast<size_t>(key)] + offsets[head];
        top = at_least(top, at_most(log, 32767));
      }
      in = stays(key, top, first, second);
    }
    // Few stay: what each adds to the estimated error costs next to nothing.
    if (in && top < kDrawOne) {
      const float rest = 1.0f - log_value(top) * (1.0f / 65536);
      for (int32_t g = 0; g < group; g++) {
        const int32_t head = kv_head * group + g;
        int32_t log = of.logs[static_cast<size_t>(head) * of.stride + static_cast<size_t>(key)] + offsets[head] - top;
        log = at_least(-40 * 128, at_most(log, 0));
        const float w = log_value(log + kLogOne);
        atomicAdd(reinterpret_cast<unsigned long long*>(to.squares + head),
                  static_cast<unsigned long long>(static_cast<int32_t>(rest * w * w * 1073741824.0f)));
      }
    }
    if (in) tops[kept] = static_cast<int16_t>(top), mine[kept++] = key;
  }
  // Places in order of keys: those of lower lanes, then of lower warps, first.
  const uint32_t one = __ballot_sync(kFullWarp, kept > 0 ? 1 : 0), two = __ballot_sync(kFullWarp, kept > 1 ? 1 : 0);
  const uint32_t lower = (1u << lane) - 1;
  if (lane == 0) before[warp + 1] = __popc(one) + __popc(two);
  __syncthreads();
  if (threadIdx.x == 0) {
    before[0] = 0;
    for (int32_t w = 0; w < kScanThreads / 32; w++) before[w + 1] += before[w];
    to.counts[kv_head * to.blocks + block] = before[kScanThreads / 32];
  }
  __syncthreads();
  const int32_t at = before[warp] + __popc(one & lower) + __popc(two & lower);
  const size_t place = (static_cast<size_t>(kv_head) * static_cast<size_t>(to.blocks) + static_cast<size_t>(block)) * kScanKeys +
                       static_cast<size_t>(at);
  for (int32_t i = 0; i < kept; i++) to.keys[place + static_cast<size_t>(i)] = mine[i], to.tops[place + static_cast<size_t>(i)] = tops[i];
}

// Sums of counts[0, blocks) of one row, and of those before `block`; all threads of the block get them.
__device__ inline void sum_before(const int32_t* counts, int32_t blocks, int32_t block, int32_t* shared, int32_t* before, int32_t* total) {
  int32_t some = 0, all = 0;
  for (int32_t b = static_cast<int32_t>(threadIdx.x); b < blocks; b += kScanThreads) {
    all += counts[b];
    if (b < block) some += counts[b];
  }
  if (threadIdx.x == 0) shared[0] = shared[1] = 0;
  __syncthreads();
  atomicAdd(shared, some);
  atomicAdd(shared + 1, all);
  __syncthreads();
  *before = shared[0], *total = shared[1];
}

// Kept keys as hits in order, their bias -ln p, counts, and the estimated error of the worst head. Grid: (blocks, KV heads).
__global__ void place_hits(const IndexShape shape, const DrawOut of, const HitsOut to, float tau) {
  KVASIR_SHARED(int32_t, sums, [2]);
  const int32_t kv_head = static_cast<int32_t>(blockIdx.y), block = static_cast<int32_t>(blockIdx.x), group = shape.group;
  int32_t before, total;
  sum_before(of.counts + kv_head * of.blocks, of.blocks, block, sums, &before, &total);
  if (block == 0 && threadIdx.x == 0) {
    to.counts[kv_head] = total;
    int64_t worst = 0;
    for (int32_t g = 0; g < group; g++) {
      const int64_t squares = of.squares[kv_head * group + g];
      if (squares > worst) worst = squares;
    }
    to.errors[kv_head] = tau * static_cast<float>(sqrt(static_cast<double>(worst) * (1.0 / 1073741824.0)));
  }
  if (total > to.capacity) return;
  const size_t from = (static_cast<size_t>(kv_head) * static_cast<size_t>(of.blocks) + static_cast<size_t>(block)) * kScanKeys;
  const size_t at = static_cast<size_t>(kv_head) * static_cast<size_t>(to.capacity) + static_cast<size_t>(before);
  const int32_t count = of.counts[kv_head * of.blocks + block];
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < count; i += kScanThreads) {
    const size_t j = static_cast<size_t>(i);
    to.tokens[at + j] = to.begin + of.keys[from + j];
    to.bias[at + j] = static_cast<float>(at_least(0, kDrawOne - of.tops[from + j])) * (0.6931471805599453f / 128);
  }
}

// Every key, with weight 1. Grid: (blocks, KV heads).
__global__ void take_all(const HitsOut to, int32_t keys) {
  const int32_t row = static_cast<int32_t>(blockIdx.y), key = static_cast<int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
  if (key == 0) to.counts[row] = keys, to.errors[row] = 0.0f;
  if (key >= keys || keys > to.capacity) return;
  const size_t at = static_cast<size_t>(row) * static_cast<size_t>(to.capacity) + static_cast<size_t>(key);
  to.tokens[at] = to.begin + key, to.bias[at] = 0.0f;
}

}  // namespace kvasir
