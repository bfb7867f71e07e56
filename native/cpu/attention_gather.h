// The gather core: retrieved keys, all query heads of a KV head in one pass.
//
// The range core works on a tile of rows where they lie, or, where it wants them next to each other, on copies in L1. All rows of
// a list are asked for at once, before the list in front of it is worked on, and a tile's once more half a tile before they are read, as
// L1 does not hold a list. (In instalments alone, between the work on tiles: half as slow again, as the last of a tile come too late.) At
// once to L2, or to L1: on its way there a line holds one of few buffers until memory answers (Intel, rows of 128 bytes, cold: 25 ns to L1,
// 15 ns to L2), where AMD's caches ignore some of what they are asked for to L2 (Zen 5: 47 ns to L1, 50 to 80 ns to L2; 38 ns with tiles asked for again; half a tile before in place of just before .90 to .97 of that).
#pragma once
#include <algorithm>

#include "attention_range.h"
#include "prefetch.h"

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
  // Where the rows of a tile lie.
  struct Tile {
    const void* keys[kTile];
    const void* values[kTile];
    float key_scales[kTile];
    float value_scales[kTile];
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

    if (!gather.fetched) fetch(gather, bytes);
    if (after != nullptr) fetch(*after, bytes);
    const KvRun* segment = gather.segments;
    PrefetchNothing ahead;
    fetch_rows<3>(gather, segment, 0, std::min(size, gather.count), bytes, false);
    for (int32_t from = 0; from < gather.count; from += size) {
      const int32_t count = std::min(size, gather.count - from);
      locate(tile, gather, segment, from, count, bytes);
      const void* const* const keys = tile.keys;
      const void* const* const values = tile.values;
      for (int32_t k = 0; k < count; k++) prefetch_lines(values[k], bytes);
      if (in_place) {
        Base::template score_rows<E, false>(s, rows.rows(), keys, count, ahead);
      } else {
        copy_rows(copies, keys, count, bytes);
        Base::template score_tile<E>(s, rows.rows(), copies, d, count, ahead);
      }
      KvRun run{};
      run.count = count;
      if (sizeof(T) == 1) run.key_scales = tile.key_scales, run.value_scales = tile.value_scales;
      Base::weigh(s, shape, rows, run, 0, count, gather.bias == nullptr ? nullptr : gather.bias + from);
      fetch_rows<3>(gather, segment, from + size, std::min(from + 2 * size, gather.count), bytes, false);
      if (in_place) {
        Base::template sum_rows<E, false>(s, rows.rows(), values, count, ahead);
      } else {
        copy_rows(copies, values, count, bytes);
        Base::template sum_tile<E>(s, rows.rows(), copies, d, count, ahead);
      }
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

  // The segment of a token; they mostly ascend, so that of the last one is the first guess.
  static const KvRun* find(const KvGather& gather, const KvRun* guess, int32_t token) {
    if (token >= guess->position && token - guess->position < guess->count) return guess;
    return std::upper_bound(gather.segments, gather.segments + gather.segment_count, token,
                            [](int32_t t, const KvRun& r) { return t < r.position; }) - 1;
  }

  static void fetch(const KvGather& gather, size_t bytes) {
    if (gather.to_l1) {
      fetch_rows<3>(gather, gather.segments, 0, gather.count, bytes, true);
    } else {
      fetch_rows<2>(gather, gather.segments, 0, gather.count, bytes, true);
    }
  }

  // Asks for keys [from, end) of the list, and for their values where these are wanted.
  template <int Locality>
  static void fetch_rows(const KvGather& gather, const KvRun* segment, int32_t from, int32_t end, size_t bytes, bool values) {
    for (int32_t k = from; k < end; k++) {
      segment = find(gather, segment, gather.tokens[k]);
      const size_t at = static_cast<size_t>(gather.tokens[k] - segment->position) * bytes;
      prefetch_lines<Locality>(static_cast<const char*>(segment->keys) + at, bytes);
      if (values) prefetch_lines<Locality>(static_cast<const char*>(segment->values) + at, bytes);
    }
  }

  static void locate(Tile& tile, const KvGather& gather, const KvRun*& segment, int32_t from, int32_t count, size_t bytes) {
    for (int32_t k = 0; k < count; k++) {
      segment = find(gather, segment, gather.tokens[from + k]);
      const size_t row = static_cast<size_t>(gather.tokens[from + k] - segment->position);
      tile.keys[k] = static_cast<const char*>(segment->keys) + row * bytes;
      tile.values[k] = static_cast<const char*>(segment->values) + row * bytes;
      if (segment->key_scales == nullptr) continue;
      tile.key_scales[k] = segment->key_scales[row];
      tile.value_scales[k] = segment->value_scales[row];
    }
  }
};

}  // namespace
}  // namespace kvasir
