// The gather core: retrieved keys, all query heads of a KV head in one pass.
//
// The range core works on a tile of rows where they lie, or, where it wants them next to each other, on copies in L1. Misses
// overlap: the next tile's keys and values, if need be of the next list, are on their way to L2 while a tile is worked on.
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
    return (Base::scratch_bytes(shape, rows) + 63) / 64 * 64 + (sizeof(Tile) + 63) / 64 * 64 + 8192 + 16 * row + 64;
  }

  static void attend(const AttentionShape& shape, const AttentionRows& rows, const KvGather& gather, const KvGather* next,
                     void* scratch) {
    switch (shape.dtype) {
      case KVASIR_F32:
        return run<ElementF32<V>>(shape, rows, gather, next, scratch);
      case KVASIR_F16:
        return run<ElementF16<V>>(shape, rows, gather, next, scratch);
      default:
        return run<ElementI8<V>>(shape, rows, gather, next, scratch);
    }
  }

 private:
  // Where the rows of two tiles lie, this one's and the next one's: keys, then values.
  struct Tile {
    const void* rows[2][2 * kTile];
    float key_scales[2][kTile];
    float value_scales[2][kTile];
  };

  template <class E>
  static void run(const AttentionShape& shape, AttentionRows rows, const KvGather& gather, const KvGather* after, void* scratch) {
    using T = typename E::T;
    const size_t d = static_cast<size_t>(shape.head_dim), bytes = d * sizeof(T);
    rows.position = INT32_MAX / 2, rows.window = 0;
    const State s = Base::open(shape, rows, static_cast<float*>(scratch));
    char* at = static_cast<char*>(scratch) + (Base::scratch_bytes(shape, rows.rows()) + 63) / 64 * 64;
    Tile& tile = *reinterpret_cast<Tile*>(at);
    T* copies = reinterpret_cast<T*>(at + (sizeof(Tile) + 63) / 64 * 64);  // of keys, then of values
    const size_t fit = 8192 / bytes;
    const int32_t size = fit >= 64 ? 64 : fit >= 32 ? 32 : 16;
    const bool in_place = Base::template direct<E>(rows.rows(), d) && !s.codes;

    const KvRun* segment = gather.segments;
    int32_t count = std::min(size, gather.count);
    locate(tile, 0, gather, segment, 0, count, bytes);
    PrefetchRows{tile.rows[0], tile.rows[0] + 2 * count, bytes}.finish();
    for (int32_t from = 0, now = 0; from < gather.count; now ^= 1) {
      int32_t next = std::min(size, gather.count - from - count);
      if (next > 0) {
        locate(tile, now ^ 1, gather, segment, from + count, next, bytes);
      } else if (after != nullptr) {
        const KvRun* first = after->segments;
        next = std::min(size, after->count);
        locate(tile, now ^ 1, *after, first, 0, next, bytes);
      }
      PrefetchRows ahead{tile.rows[now ^ 1], tile.rows[now ^ 1] + 2 * next, bytes};
      const void* const* const keys = tile.rows[now];
      const void* const* const values = keys + count;
      if (in_place) {
        Base::template score_rows<E, false>(s, rows.rows(), keys, count, ahead);
      } else {
        copy_rows(copies, keys, count, bytes);
        Base::template score_tile<E>(s, rows.rows(), copies, d, count, ahead);
      }
      KvRun run{};
      run.count = count;
      if (sizeof(T) == 1) run.key_scales = tile.key_scales[now], run.value_scales = tile.value_scales[now];
      Base::weigh(s, shape, rows, run, 0, count, gather.bias == nullptr ? nullptr : gather.bias + from);
      if (in_place) {
        Base::template sum_rows<E, false>(s, rows.rows(), values, count, ahead);
      } else {
        copy_rows(copies, values, count, bytes);
        Base::template sum_tile<E>(s, rows.rows(), copies, d, count, ahead);
      }
      ahead.finish();
      from += count, count = next;
    }
    Base::close(s, shape, rows);
  }

  static void copy_rows(void* to, const void* const* rows, int32_t count, size_t bytes) {
    char* out = static_cast<char*>(to);
    for (int32_t k = 0; k < count; k++, out += bytes) {
      const char* row = static_cast<const char*>(rows[k]);
      if (bytes % 64 == 0) {
        for (size_t line = 0; line < bytes; line += 64) std::memcpy(out + line, row + line, 64);
      } else {
        std::memcpy(out, row, bytes);
      }
    }
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
      tile.rows[which][k] = static_cast<const char*>(segment->keys) + row * bytes;
      tile.rows[which][count + k] = static_cast<const char*>(segment->values) + row * bytes;
      if (segment->key_scales == nullptr) continue;
      tile.key_scales[which][k] = segment->key_scales[row];
      tile.value_scales[which][k] = segment->value_scales[row];
    }
  }
};

}  // namespace
}  // namespace kvasir
