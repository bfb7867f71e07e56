// Attention in float, without tensor cores: for f32 caches, for head sizes that fragments do not divide, and for rows that do not
// lie at 16 bytes. The same rows, keys and splits as attention_tile.cuh.
//
// Ladder (not measured yet: no device was at hand)
//   1  8 rows x 16 keys a block of 128 threads, everything through shared memory as float
#pragma once
#include "attention_keys.cuh"
#include "mutants.h"

namespace kvasir {

constexpr int32_t kPlainRows = 8, kPlainKeys = 16, kPlainThreads = kPlainRows * kPlainKeys;

// Floats: queries, outputs [8][d]; keys, values [16][d + 1]; weights [8][16]; scales, bias [3][16]; positions [16].
inline size_t plain_shared_bytes(int32_t d) {
  return sizeof(float) * (2 * kPlainRows * static_cast<size_t>(d) + 2 * kPlainKeys * static_cast<size_t>(d + 1) +
                          kPlainRows * kPlainKeys + 4 * kPlainKeys);
}

// The greatest, or the sum, of 16 neighbouring lanes.
__device__ inline float most_of_16(float x) {
  for (int32_t step = 8; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, step));
  return x;
}
__device__ inline float sum_of_16(float x) {
  for (int32_t step = 8; step > 0; step /= 2) x += __shfl_xor_sync(kFullWarp, x, step);
  return x;
}

// Grid: (blocks of 8 rows, lists, splits).
template <class Keys>
__global__ void __launch_bounds__(kPlainThreads)
    attend_plain(const KVASIR_GRID_CONSTANT AttendArguments args, const KVASIR_GRID_CONSTANT Keys keys) {
  KVASIR_DYNAMIC_SHARED(uint8_t, shared);
  const int32_t d = args.table.head_dim, list = static_cast<int32_t>(blockIdx.y), split = static_cast<int32_t>(blockIdx.z);
  float* const q = reinterpret_cast<float*>(shared);
  float* const o = q + kPlainRows * d;
  float* const k = o + kPlainRows * d;
  float* const v = k + kPlainKeys * (d + 1);
  float* const weights = v + kPlainKeys * (d + 1);
  float* const scales = weights + kPlainRows * kPlainKeys;
  float* const biases = scales + kPlainKeys;
  int32_t* const positions = reinterpret_cast<int32_t*>(biases + kPlainKeys);

  const int32_t thread = static_cast<int32_t>(threadIdx.x), my_row = thread / kPlainKeys, my_key = thread % kPlainKeys;
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kPlainRows, row = first + my_row;
  const int32_t last = at_most(first + kPlainRows, args.rows()) - 1, query = row / args.group;
  const KeyRange range = share_of(keys.range(list, first / args.group, last / args.group), split, args.splits, kPlainKeys);
  const bool mine = row < args.rows();
  for (int32_t i = my_key; i < d; i += kPlainKeys) {
    q[my_row * d + i] = mine ? args.q[args.head_row(list, row) * static_cast<size_t>(d) + static_cast<size_t>(i)] : 0.0f;
    o[my_row * d + i] = 0.0f;
  }
  float most = -INFINITY, sum = 0.0f;
  for (int32_t from = range.from; from < range.to; from += kPlainKeys) {
    __syncthreads();
    // 8 threads a key.
    const int32_t key = thread / kPlainRows, number = from + key;
    const int32_t at = number < range.to ? keys.position(list, number) : -1;
    KeyRow found{nullptr, nullptr, 0.0f, 0.0f};
    if (at >= 0) found = find_row(args.table, args.kv_head(list), at);
    for (int32_t i = thread % kPlainRows; i < d; i += kPlainRows) {
      k[key * (d + 1) + i] = at < 0 ? 0.0f : row_element(found.key, args.table.dtype, i);
      v[key * (d + 1) + i] = at < 0 ? 0.0f : row_element(found.value, args.table.dtype, i) * found.value_scale;
    }
    if (thread % kPlainRows == 0) {
      scales[key] = found.key_scale;
      biases[key] = at < 0 ? 0.0f : keys.bias(list, number);
      positions[key] = at < 0 ? INT32_MAX : at;
    }
    __syncthreads();
    float x = 0.0f;
    for (int32_t i = 0; i < d; i++) x += q[my_row * d + i] * k[my_key * (d + 1) + i];
    x *= args.scale * scales[my_key];
    if (args.softcap > 0.0f) x = args.softcap * tanhf(x / args.softcap);
    x += biases[my_key];
    const int32_t position = positions[my_key], least = keys.least(query) - (is_seeded(Mutant::kPlainWindow) ? 1 : 0);
    if (position < least || position > keys.greatest(query)) x = -INFINITY;
    const float before = most;
    most = fmaxf(most, most_of_16(x));
    const float reference = most == -INFINITY ? 0.0f : most, shrink = expf(before - reference);
    const float weight = expf(x - reference);
    sum = sum * shrink + sum_of_16(weight);
    weights[my_row * kPlainKeys + my_key] = weight;
    __syncwarp();
    for (int32_t i = my_key; i < d; i += kPlainKeys) {
      float total = o[my_row * d + i] * shrink;
      for (int32_t j = 0; j < kPlainKeys; j++) total += weights[my_row * kPlainKeys + j] * v[j * (d + 1) + i];
      o[my_row * d + i] = total;
    }
  }
  if (!mine) return;
  const size_t to = static_cast<size_t>(split) * static_cast<size_t>(args.n) * static_cast<size_t>(args.heads) +
                    args.head_row(list, row);
  for (int32_t i = my_key; i < d; i += kPlainKeys) {
    args.o[to * static_cast<size_t>(d) + static_cast<size_t>(i)] = sum == 0.0f ? 0.0f : o[my_row * d + i] / sum;
  }
  if (my_key == 0 && args.lse != nullptr) args.lse[to] = sum == 0.0f ? -INFINITY : most + logf(sum);
}

}  // namespace kvasir
