// What attention looks at: rows of a layer's cache by position, and which positions a call sees, in which order.
#pragma once
#include <cstdint>

#include "key_segment.h"
#include "kvasir_abi.h"
#include "device.h"

// Arguments of several hundred bytes stay where the launch put them: constant memory.
#ifdef KVASIR_EMULATION
#define KVASIR_GRID_CONSTANT
#else
#define KVASIR_GRID_CONSTANT __grid_constant__
#endif

namespace kvasir {

__device__ inline int32_t at_most(int32_t x, int32_t bound) { return x < bound ? x : bound; }
__device__ inline int32_t at_least(int32_t bound, int32_t x) { return x > bound ? x : bound; }

// As many segments as a launch takes with its arguments; longer tables are attended to in pieces.
constexpr int32_t kMostSegments = 16;

struct KeyTable {
  int32_t dtype, head_dim, row_bytes, count;
  KeySegment segments[kMostSegments];
};

struct KeyRow {
  const char* key;  // null: there is none
  const char* value;
  float key_scale, value_scale;
};

// The row of a position that one of `count` segments holds.
__device__ inline KeyRow find_row(const KeySegment* segments, int32_t count, int32_t row_bytes, int32_t head, int32_t position) {
  int32_t low = 0, high = count - 1;
  while (low < high) {
    const int32_t middle = (low + high + 1) / 2;
    if (position >= segments[middle].start) low = middle;
    else high = middle - 1;
  }
  const KeySegment& s = segments[low];
  const size_t row = static_cast<size_t>(head) * static_cast<size_t>(s.capacity) + static_cast<size_t>(position - s.start);
  KeyRow found;
  found.key = s.keys + row * static_cast<size_t>(row_bytes);
  found.value = s.values + row * static_cast<size_t>(row_bytes);
  found.key_scale = s.key_scales == nullptr ? 1.0f : s.key_scales[row];
  found.value_scale = s.value_scales == nullptr ? 1.0f : s.value_scales[row];
  return found;
}
__device__ inline KeyRow find_row(const KeyTable& table, int32_t head, int32_t position) {
  return find_row(table.segments, table.count, table.row_bytes, head, position);
}

__device__ inline float row_element(const char* row, int32_t dtype, int32_t i) {
  if (dtype == KVASIR_F32) return reinterpret_cast<const float*>(row)[i];
  if (dtype == KVASIR_F16) return half_to_float(reinterpret_cast<const uint16_t*>(row)[i]);
  return static_cast<float>(reinterpret_cast<const int8_t*>(row)[i]);
}

// Positions that the queries [first, last] of a block may see, and which key numbers of a source those are.
struct KeyRange {
  int32_t from, to;
};

// Every query sees positions up to its own, and with a window that many of them.
struct CausalKeys {
  static constexpr bool kCausal = true, kSampled = false;  // kSampled: attention_best.cuh
  int32_t start, end;     // of the piece of the cache
  int32_t first_query;    // position of query 0
  int32_t window;         // 0: none

  __device__ KeyRange range(int32_t, int32_t first, int32_t last) const {
    const int32_t low = window == 0 ? start : first_query + first - window + 1, high = first_query + last + 1;
    KeyRange r{low > start ? low : start, high < end ? high : end};
    return r;
  }
  __device__ int32_t position(int32_t, int32_t number) const { return number; }
  __device__ float bias(int32_t, int32_t) const { return 0.0f; }
  // The least and greatest position that a query sees.
  __device__ int32_t least(int32_t query) const { return window == 0 ? 0 : first_query + query - window + 1; }
  __device__ int32_t greatest(int32_t query) const { return first_query + query; }
};

// All queries see the same keys: ranges of positions, one after the other, or lists of positions with biases. A list is a query
// head's, or a KV head's, which serves its group; what of it the piece of the cache does not hold is not seen.
constexpr int32_t kMostSpans = 16;
struct ListedKeys {
  static constexpr bool kCausal = false, kSampled = false;
  const int32_t* tokens;  // [lists, capacity]; null: spans
  const int32_t* counts;  // [lists]
  const float* biases;    // as tokens, or null
  int32_t capacity, start, end;
  int32_t keys;                // of all spans
  int32_t starts[kMostSpans];  // positions
  int32_t ends[kMostSpans];    // key number behind the last of each span

  __device__ KeyRange range(int32_t list, int32_t, int32_t) const {
    KeyRange r{0, keys};
    if (tokens != nullptr) r.to = at_least(0, at_most(counts[list], capacity));
    return r;
  }
  __device__ size_t at(int32_t list, int32_t number) const {
    return static_cast<size_t>(list) * static_cast<size_t>(capacity) + static_cast<size_t>(number);
  }
  // -1: not here.
  __device__ int32_t position(int32_t list, int32_t number) const {
    if (tokens != nullptr) {
      const int32_t token = tokens[at(list, number)];
      return token >= start && token < end ? token : -1;
    }
    int32_t i = 0;
    while (number >= ends[i]) i++;
    return starts[i] + number - (i == 0 ? 0 : ends[i - 1]);
  }
  __device__ float bias(int32_t list, int32_t number) const { return biases == nullptr ? 0.0f : biases[at(list, number)]; }
  __device__ int32_t least(int32_t) const { return 0; }
  __device__ int32_t greatest(int32_t) const { return INT32_MAX - 1; }
};

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// One call, without its keys. Rows of a list are its queries' heads: row r is query r / group, head list * group + r % group.
struct AttendArguments {
  KeyTable table;
  const float* q;  // [n, heads, headDim]
  float* o;        // [split][n, heads, headDim]
  float* lse;      // [split][n, heads], or null
  int32_t n, heads, group, kv_heads;
  int32_t splits;  // of the keys; grid.z
  float scale, softcap;

  __device__ int32_t rows() const { return n * group; }
  __device__ int32_t kv_head(int32_t list) const { return list * group * kv_heads / heads; }
  // Of [n, heads]; `row` of list `list`.
  __device__ size_t head_row(int32_t list, int32_t row) const {
    return static_cast<size_t>(row / group) * static_cast<size_t>(heads) + static_cast<size_t>(list * group + row % group);
  }
  // What split `split` says of a row: before splits are merged, their results lie one after the other.
  __device__ size_t out_row(int32_t split, int32_t list, int32_t row) const {
    return static_cast<size_t>(split) * static_cast<size_t>(n) * static_cast<size_t>(heads) + head_row(list, row);
  }
  __device__ void put_lse(size_t at, float most, float sum) const {
    if (lse != nullptr) lse[at] = sum == 0.0f ? -INFINITY : most * kLn2 + logf(sum);
  }
};

// The share of split `split` of keys [r.from, r.to), in whole tiles.
__device__ inline KeyRange share_of(KeyRange r, int32_t split, int32_t splits, int32_t tile) {
  if (splits == 1) return r;
  const int32_t count = r.to > r.from ? r.to - r.from : 0, tiles = (count + tile - 1) / tile;
  const int32_t from = static_cast<int32_t>(static_cast<int64_t>(tiles) * split / splits) * tile;
  const int32_t to = static_cast<int32_t>(static_cast<int64_t>(tiles) * (split + 1) / splits) * tile;
  KeyRange share{r.from + from, r.from + (to < count ? to : count)};
  return share;
}

}  // namespace kvasir
