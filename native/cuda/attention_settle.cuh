// Candidates of attention_best.cuh, settled: scored anew in float, and placed best first.
//
// Ladder (not measured yet: no device was at hand)
//   1  four lanes a key, 16 bytes each at a time; ranks by counting
#pragma once
#include "attention_best.cuh"
#include "sink_arguments.cuh"

namespace kvasir {

constexpr int32_t kSettleThreads = 128, kSettleKeys = kSettleThreads / 4;  // a round
constexpr int32_t kSettleRoom = 1024, kSettleRounds = 4;                   // between two looks at how many there are
constexpr int32_t kNormKeys = 256;                                         // of a block

// Eight numbers of a row of halves or bytes, which lies at 16 bytes.
__device__ inline void eight_of(float (&x)[8], const char* row, int32_t dtype, int32_t piece) {
  if (dtype == KVASIR_F16) {
    const uint4 halves = reinterpret_cast<const uint4*>(row)[piece];
    const uint32_t pairs[4] = {halves.x, halves.y, halves.z, halves.w};
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
      const float2 two = unpack_half2(pairs[i]);
      x[2 * i] = two.x, x[2 * i + 1] = two.y;
    }
  } else {
    const uint2 bytes = reinterpret_cast<const uint2*>(row)[piece];
#pragma unroll
    for (int32_t i = 0; i < 8; i++) x[i] = static_cast<float>(static_cast<int8_t>((i < 4 ? bytes.x : bytes.y) >> 8 * (i % 4)));
  }
}

// Sums over the four lanes of a key.
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(kFullWarp, x, 1);
  return x + __shfl_xor_sync(kFullWarp, x, 2);
}

// norms [kv_heads]: at least that of any key of positions [from, from + keys), as the bits of a float, which order as it does; what is no
// number is above all that are. Grid: (blocks of keys, KV heads).
__global__ void key_norms(const RowTable rows, int32_t from, int32_t keys, uint32_t* norms) {
  const int32_t kv_head = static_cast<int32_t>(blockIdx.y), thread = static_cast<int32_t>(threadIdx.x);
  uint32_t most = 0;
  for (int32_t i = 0; i < kNormKeys; i += kSettleKeys) {
    const int32_t number = static_cast<int32_t>(blockIdx.x) * kNormKeys + i + thread / 4;
    float sum = 0.0f, scale = 1.0f;
    if (number < keys) {
      const KeyRow row = row_of(rows, kv_head, from + number);
      for (int32_t piece = thread % 4; piece < rows.dim / 8; piece += 4) {
        float x[8];
        eight_of(x, row.key, rows.dtype, piece);
#pragma unroll
        for (int32_t j = 0; j < 8; j++) sum += x[j] * x[j];
      }
      scale = row.key_scale;
    }
    const uint32_t bits = __float_as_uint(sqrtf(quad_sum(sum)) * fabsf(scale) * 1.0001f) & 0x7fffffffu;
    most = bits > most ? bits : most;
  }
  for (int32_t other = 16; other > 0; other >>= 1) {
    const uint32_t bits = __shfl_xor_sync(kFullWarp, most, other);
    most = bits > most ? bits : most;
  }
  if (thread % 32 == 0) atomicMax(norms + kv_head, most);
}

// slack [rows]: twice what can lie between a key's logit by tiles and its exact one, to base 2. A query's halves differ from it by a
// vector whose product with a key is at most that of their norms (Cauchy and Schwarz); sums of float on either side err by less than
// (dim + 32) 2^-22 of the norms' product, the soft cap by less than 2^-20 of itself. Grid: warps of rows.
__global__ void bound_slack(const SinkArguments a, const uint32_t* norms, float* slack) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
  const int32_t row = (static_cast<int32_t>(blockIdx.x) * kSettleThreads + static_cast<int32_t>(threadIdx.x)) / 32;
  if (row >= a.queries * a.heads) return;
  const size_t query = static_cast<size_t>(a.first + row / a.heads * a.every), head = static_cast<size_t>(row % a.heads);
  const float* q = a.q + (query * static_cast<size_t>(a.heads) + head) * static_cast<size_t>(a.dim);
  float all = 0.0f, lost = 0.0f;
  for (int32_t i = lane; i < a.dim; i += 32) {
    const float rounded = half_to_float(float_to_half(q[i]));
    all += q[i] * q[i], lost += (q[i] - rounded) * (q[i] - rounded);
  }
  all = sqrtf(warp_sum(all)), lost = sqrtf(warp_sum(lost));
  if (lane != 0) return;
  const float key = __uint_as_float(norms[row % a.heads / a.group]), sums = static_cast<float>(a.dim + 32) * 0x1p-22f;
  slack[row] = 2.0f * kLog2E * (1.0001f * fabsf(a.scale) * key * (lost + sums * all) + a.softcap * 0x1p-20f);
}

// Keys of one row with their exact scores, as numbers of 64 bits that order them: score, then the earlier position.
class SettledRow {
 public:
  __device__ SettledRow(const SinkArguments& a, const float* q, uint64_t* keys, int32_t* count, int32_t k)
      : a_(a), q_(q), keys_(keys), count_(count), k_(k), thread_(static_cast<int32_t>(threadIdx.x)) {}

  // `count` keys; position(i): of each. All threads.
  template <class Position>
  __device__ void add(int32_t count, Position&& position) {
    const int32_t kv_head = static_cast<int32_t>(blockIdx.x) % a_.heads / a_.group;
    for (int32_t done = 0; done < count; done += kSettleRounds * kSettleKeys) {
      for (int32_t round = 0; round < kSettleRounds; round++) {
        const int32_t number = done + round * kSettleKeys + thread_ / 4;
        const int32_t at = number < count ? position(number) : 0;
        const float score = number < count ? part_of(row_of(a_.rows, kv_head, at)) : 0.0f;
        const float whole = finished(quad_sum(score));
        const uint64_t key = static_cast<uint64_t>(ordered_bits(whole)) << 32 | (0xffffffffu - static_cast<uint32_t>(at));
        if (number < count && thread_ % 4 == 0 && key > least_) keys_[atomicAdd(count_, 1)] = key;
      }
      __syncthreads();
      const bool full = *count_ > kSettleRoom - kSettleRounds * kSettleKeys;
      __syncthreads();
      if (full) settle();
    }
  }

  // The k best alone, best first. All threads.
  __device__ void settle() {
    constexpr int32_t kEach = kSettleRoom / kSettleThreads;
    const int32_t count = *count_;
    uint64_t mine[kEach];
    int32_t ranks[kEach];
#pragma unroll
    for (int32_t i = 0; i < kEach; i++) {
      const int32_t at = i * kSettleThreads + thread_;
      mine[i] = at < count ? keys_[at] : 0, ranks[i] = 0;
      if (at >= count) continue;
      for (int32_t j = 0; j < count; j++) ranks[i] += keys_[j] > mine[i] ? 1 : 0;
    }
    __syncthreads();
#pragma unroll
    for (int32_t i = 0; i < kEach; i++) {
      if (i * kSettleThreads + thread_ < count && ranks[i] < k_) keys_[ranks[i]] = mine[i];
    }
    if (thread_ == 0) *count_ = at_most(count, k_);
    __syncthreads();
    if (count >= k_) least_ = keys_[k_ - 1];
  }

 private:
  // This lane's dimensions.
  __device__ float part_of(const KeyRow& row) const {
    float sum = 0.0f;
    for (int32_t piece = thread_ % 4; piece < a_.dim / 8; piece += 4) {
      float x[8];
      eight_of(x, row.key, a_.rows.dtype, piece);
#pragma unroll
      for (int32_t i = 0; i < 8; i++) sum += q_[piece * 8 + i] * x[i];
    }
    return sum * (a_.scale * row.key_scale);
  }
  __device__ float finished(float x) const { return a_.softcap > 0.0f ? a_.softcap * tanhf(x / a_.softcap) : x; }

  const SinkArguments& a_;
  const float* const q_;
  uint64_t* const keys_;
  int32_t* const count_;
  const int32_t k_, thread_;
  uint64_t least_ = 0;
};

// tokens, scores [rows, k] as place_best gives them, of the candidates in `parts` parts; all keys that a row sees, where it has too many
// candidates, or too few, which only what is no number can do. Grid: rows, kSettleThreads.
__global__ void settle_best(const SinkArguments a, const SampledKeys from, int32_t parts, int32_t* tokens, float* scores) {
  KVASIR_SHARED(uint64_t, keys, [kSettleRoom]);
  KVASIR_SHARED(int32_t, count, [1]);
  KVASIR_DYNAMIC_SHARED(float, q);
  const int32_t row = static_cast<int32_t>(blockIdx.x), thread = static_cast<int32_t>(threadIdx.x), room = best_room(a.dim);
  const size_t query = static_cast<size_t>(a.first + row / a.heads * a.every), head = static_cast<size_t>(row % a.heads);
  const float* whole_q = a.q + (query * static_cast<size_t>(a.heads) + head) * static_cast<size_t>(a.dim);
  for (int32_t i = thread; i < a.dim; i += kSettleThreads) q[i] = whole_q[i];
  if (thread == 0) count[0] = 0;
  const int32_t least = a.least(row), seen = a.position_of(row) - least + 1, wanted = at_most(from.k, seen);
  int32_t total = 0;
  bool too_many = false;
  for (int32_t part = 0; part < parts; part++) {
    const int32_t here = from.counts[part * from.rows + row];
    too_many = too_many || here == kTooMany;
    total += at_least(0, here);
  }
  __syncthreads();
  SettledRow best(a, q, keys, count, from.k);
  if ((too_many && !is_seeded(Mutant::kBestTooMany)) || total < wanted) {
    best.add(seen, [&](int32_t i) { return least + i; });
  } else {
    for (int32_t part = 0; part < parts; part++) {
      const int32_t slot = part * from.rows + row;
      const Candidate* found = from.found + static_cast<size_t>(slot) * static_cast<size_t>(room);
      best.add(from.counts[slot], [&](int32_t i) { return found[i].position; });
    }
  }
  best.settle();
  const size_t to = static_cast<size_t>(row) * static_cast<size_t>(from.k);
  for (int32_t i = thread; i < from.k; i += kSettleThreads) {
    const bool is = i < count[0];
    tokens[to + static_cast<size_t>(i)] = is ? static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(keys[i])) : -1;
    if (scores != nullptr) scores[to + static_cast<size_t>(i)] = is ? float_of_ordered(static_cast<uint32_t>(keys[i] >> 32)) : -INFINITY;
  }
}

}  // namespace kvasir
