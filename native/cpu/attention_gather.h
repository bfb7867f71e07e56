// The gather core: retrieved keys, all query heads of a KV head in one pass.
//
// A tile of rows is copied next to each other in L1, and the range core works on it. Copying costs a tenth of the misses
// that bring the rows, and those overlap: the values of a tile are on their way while its keys are scored, the keys of
// the next tile while its values are summed.
#pragma once
#include <algorithm>

#include "attention_range.h"

namespace kvasir {
namespace {

template <class V>
class GatherCore : private RangeCore<V> {
  using Base = RangeCore<V>;
  using typename Base::State;

 public:
  static size_t scratch_bytes(const AttentionShape& shape, int32_t rows) {
    const size_t row = static_cast<size_t>(shape.head_dim) * sizeof(float);
    return (Base::scratch_bytes(shape, rows) + 63) / 64 * 64 + sizeof(Tile) + 2 * (8192 + 16 * row + 64);
  }

  static void attend(const AttentionShape& shape, const AttentionRows& rows, const KvGather& gather, void* scratch) {
    switch (shape.dtype) {
      case KVASIR_F32:
        return run<ElementF32<V>>(shape, rows, gather, scratch);
      case KVASIR_F16:
        return run<ElementF16<V>>(shape, rows, gather, scratch);
      default:
        return run<ElementI8<V>>(shape, rows, gather, scratch);
    }
  }

 private:
  // Where the rows of two tiles lie, this one's and the next one's.
  struct Tile {
    const void* keys[2][kTile];
    const void* values[2][kTile];
    float key_scales[2][kTile];
    float value_scales[2][kTile];
  };

  template <class E>
  static void run(const AttentionShape& shape, AttentionRows rows, const KvGather& gather, void* scratch) {
    using T = typename E::T;
    const size_t d = static_cast<size_t>(shape.head_dim), bytes = d * sizeof(T);
    rows.position = INT32_MAX / 2, rows.window = 0;
    const State s = Base::open(shape, rows, static_cast<float*>(scratch));
    char* at = static_cast<char*>(scratch) + (Base::scratch_bytes(shape, rows.rows()) + 63) / 64 * 64;
    Tile& tile = *reinterpret_cast<Tile*>(at);
    T* keys = reinterpret_cast<T*>(at + sizeof(Tile));
    const size_t fit = 8192 / bytes;
    const int32_t size = fit >= 64 ? 64 : fit >= 32 ? 32 : 16;
    T* values = keys + ((size * bytes + 63) / 64 * 64) / sizeof(T);

    const KvRun* segment = gather.segments;
    locate(tile, 0, gather, segment, 0, std::min(size, gather.count), bytes);
    Prefetch<3> first{nullptr, nullptr, tile.keys[0], tile.keys[0] + std::min(size, gather.count), bytes};
    first.advance(static_cast<size_t>(size) * (bytes + 64));
    for (int32_t from = 0, now = 0; from < gather.count; from += size, now ^= 1) {
      const int32_t count = std::min(size, gather.count - from), next = std::min(size, gather.count - from - count);
      if (next > 0) locate(tile, now ^ 1, gather, segment, from + count, next, bytes);
      // A row that does not start with a line of the cache needs one more than it fills.
      Prefetch<3> values_ahead{nullptr, nullptr, tile.values[now], tile.values[now] + count, bytes};
      Prefetch<3> keys_ahead{nullptr, nullptr, tile.keys[now ^ 1], tile.keys[now ^ 1] + next, bytes};
      for (int32_t k = 0; k < count; k++) {
        std::memcpy(keys + k * d, tile.keys[now][k], bytes);
        values_ahead.advance(bytes);
      }
      Base::template score_tile<E>(s, rows.rows(), keys, d, count, values_ahead);
      values_ahead.advance(static_cast<size_t>(size) * (bytes + 64));
      KvRun run{};
      run.count = count;
      if (sizeof(T) == 1) run.key_scales = tile.key_scales[now], run.value_scales = tile.value_scales[now];
      Base::weigh(s, shape, rows, run, 0, count, gather.bias == nullptr ? nullptr : gather.bias + from);
      for (int32_t k = 0; k < count; k++) {
        std::memcpy(values + k * d, tile.values[now][k], bytes);
        keys_ahead.advance(bytes);
      }
      Base::template sum_tile<E>(s, rows.rows(), values, d, count, keys_ahead);
      keys_ahead.advance(static_cast<size_t>(size) * (bytes + 64));
    }
    Base::close(s, shape, rows);
  }

  // Tokens mostly ascend, so the segment of the last one is the first guess.
  static void locate(Tile& tile, int which, const KvGather& gather, const KvRun*& segment, int32_t from, int32_t count,
                     size_t bytes) {
    for (int32_t k = 0; k < count; k++) {
      const int32_t token = gather.tokens[from + k];
      if (token < segment->position || token - segment->position >= segment->count) {
        const KvRun* end = gather.segments + gather.segment_count;
        segment = std::upper_bound(gather.segments, end, token,
                                   [](int32_t t, const KvRun& r) { return t < r.position; }) - 1;
      }
      const size_t row = static_cast<size_t>(token - segment->position);
      tile.keys[which][k] = static_cast<const char*>(segment->keys) + row * bytes;
      tile.values[which][k] = static_cast<const char*>(segment->values) + row * bytes;
      if (segment->key_scales == nullptr) continue;
      tile.key_scales[which][k] = segment->key_scales[row];
      tile.value_scales[which][k] = segment->value_scales[row];
    }
  }
};

}  // namespace
}  // namespace kvasir
