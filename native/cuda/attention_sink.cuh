// What sampled queries of a prompt look at: their logits in float, from which best keys are selected and weights are summed. A pass
// of its own beside the prompt's attention, for what tiles do not note (attention_best.cuh): sums, whose weights want the whole row's
// log-sum-exp first, f32 caches, few rows.
//
// Ladder (not measured yet: no device was at hand)
//   1  logits of some queries at a time through memory; 16 rows x 32 keys a block
#pragma once
#include "index_device.cuh"
#include "sink_arguments.cuh"

namespace kvasir {

constexpr int32_t kSinkRows = 16, kSinkKeys = 32, kSinkThreads = 128;

inline size_t sink_shared_bytes(int32_t dim) {
  return sizeof(float) * (kSinkRows * static_cast<size_t>(dim) + kSinkKeys * static_cast<size_t>(dim + 1) + kSinkKeys);
}

// Grid: (blocks of keys, blocks of a KV head's rows, KV heads).
__global__ void sink_scores(const SinkArguments a) {
  KVASIR_DYNAMIC_SHARED(float, q);
  float* const k = q + kSinkRows * a.dim;
  float* const scales = k + kSinkKeys * (a.dim + 1);
  const int32_t kv_head = static_cast<int32_t>(blockIdx.z), thread = static_cast<int32_t>(threadIdx.x);
  const int32_t first_key = static_cast<int32_t>(blockIdx.x) * kSinkKeys, first_row = static_cast<int32_t>(blockIdx.y) * kSinkRows;
  const int32_t rows = a.queries * a.group;
  for (int32_t i = thread; i < kSinkRows * a.dim; i += kSinkThreads) {
    const int32_t row = first_row + i / a.dim;
    float x = 0.0f;
    if (row < rows) {
      const size_t query = static_cast<size_t>(a.first + row / a.group * a.every);
      const size_t head = static_cast<size_t>(kv_head * a.group + row % a.group);
      x = a.q[(query * static_cast<size_t>(a.heads) + head) * static_cast<size_t>(a.dim) + static_cast<size_t>(i % a.dim)];
    }
    q[i] = x;
  }
  // Four threads a key.
  const int32_t mine = thread / 4, number = first_key + mine;
  if (number < a.keys) {
    const KeyRow row = row_of(a.rows, kv_head, a.start + number);
    for (int32_t i = thread % 4; i < a.dim; i += 4) k[mine * (a.dim + 1) + i] = row_element(row.key, a.rows.dtype, i);
    if (thread % 4 == 0) scales[mine] = row.key_scale;
  }
  __syncthreads();
  const int32_t key = thread % kSinkKeys;
  for (int32_t r = thread / kSinkKeys; r < kSinkRows; r += kSinkThreads / kSinkKeys) {
    const int32_t row = first_row + r;
    if (row >= rows || first_key + key >= a.keys) continue;
    const int32_t out = row / a.group * a.heads + kv_head * a.group + row % a.group, at = a.start + first_key + key;
    float x = -INFINITY;
    if (at <= a.position_of(out) && at >= a.least(out)) {
      x = 0.0f;
      for (int32_t i = 0; i < a.dim; i++) x += q[r * a.dim + i] * k[key * (a.dim + 1) + i];
      x *= a.scale * scales[key];
      if (a.softcap > 0.0f) x = a.softcap * tanhf(x / a.softcap);
    }
    a.scores[static_cast<size_t>(out) * a.stride + static_cast<size_t>(first_key + key)] = x;
  }
}

// As begin_selection, with no more than a row sees. Grid: rows, 256 threads.
__global__ void begin_sink(const SinkArguments a, Selection* rows, int32_t* histograms, int32_t topk) {
  const int32_t row = static_cast<int32_t>(blockIdx.x);
  histograms[row * 256 + static_cast<int32_t>(threadIdx.x)] = 0;
  if (threadIdx.x == 0) rows[row] = Selection{0, 0, at_most(topk, a.position_of(row) - a.least(row) + 1)};
}

// tokens, scores [rows, topk]: the selected keys, best first, of equals the earlier; -1 and -inf behind. scores may be null. Dynamic
// shared memory: topk floats and positions. Grid: rows, kScanThreads.
__global__ void place_best(const SinkArguments a, const Selection* rows, int32_t topk, int32_t* tokens, float* scores) {
  KVASIR_DYNAMIC_SHARED(float, found);
  KVASIR_SHARED(int32_t, placed, [2 * (kScanThreads / 32)]);
  int32_t* const positions = reinterpret_cast<int32_t*>(found + topk);
  const int32_t row = static_cast<int32_t>(blockIdx.x), thread = static_cast<int32_t>(threadIdx.x);
  const Selection chosen = rows[row];
  const float* from = a.scores + static_cast<size_t>(row) * a.stride;
  int32_t better = 0, equal = 0;
  for (int32_t i = 0; i < a.keys; i += kScanThreads) {
    const int32_t key = i + thread;
    const uint32_t bits = key < a.keys ? ordered_bits(from[key]) : 0u;
    const Standing s = standing_of(bits, key < a.keys, chosen.least, placed, &better, &equal);
    if (s.is_better || (s.is_equal && s.equal < chosen.equal)) {
      const int32_t place = s.better + at_most(s.equal, chosen.equal);
      found[place] = from[key], positions[place] = a.start + key;
    }
  }
  __syncthreads();
  const int32_t count = better + at_most(equal, chosen.equal);
  const size_t to = static_cast<size_t>(row) * static_cast<size_t>(topk);
  for (int32_t i = thread; i < topk; i += kScanThreads) {
    int32_t rank = i;
    if (i < count) {
      rank = 0;
      for (int32_t j = 0; j < count; j++) rank += found[j] > found[i] || (found[j] == found[i] && j < i) ? 1 : 0;
    }
    tokens[to + static_cast<size_t>(rank)] = i < count ? positions[i] : -1;
    if (scores != nullptr) scores[to + static_cast<size_t>(rank)] = i < count ? found[i] : -INFINITY;
  }
}

// lse [rows]. Grid: rows, kScanThreads.
__global__ void sink_lse(const SinkArguments a, float* lse) {
  KVASIR_SHARED(float, folded, [kScanThreads / 32]);
  KVASIR_SHARED(float, result, [1]);
  const float* from = a.scores + static_cast<size_t>(blockIdx.x) * a.stride;
  float most = -INFINITY, sum = 0.0f;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < a.keys; i += kScanThreads) most = fmaxf(most, from[i]);
  fold_block<false>(folded, result, most);
  __syncthreads();
  most = result[0];
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < a.keys; i += kScanThreads) sum += expf(from[i] - most);
  __syncthreads();
  fold_block<true>(folded, result, sum);
  if (threadIdx.x == 0) lse[blockIdx.x] = most + logf(result[0]);
}

// sums [heads, capacity] += weights, query by query: always in the same order. Grid: (keys / kScanThreads, heads).
__global__ void add_weights(const SinkArguments a, const float* lse, float* sums, size_t capacity) {
  const int32_t key = static_cast<int32_t>(blockIdx.x) * kScanThreads + static_cast<int32_t>(threadIdx.x);
  const int32_t head = static_cast<int32_t>(blockIdx.y);
  if (key >= a.keys) return;
  float* to = sums + static_cast<size_t>(head) * capacity + static_cast<size_t>(a.start + key);
  float sum = *to;
  for (int32_t i = 0; i < a.queries; i++) {
    const int32_t row = i * a.heads + head;
    sum += expf(a.scores[static_cast<size_t>(row) * a.stride + static_cast<size_t>(key)] - lse[row]);
  }
  *to = sum;
}

}  // namespace kvasir
