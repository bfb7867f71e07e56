// A layer's cache as kernels get it: the table of segments, every id, type, shape and count of it checked.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kvasir_backend.h"
#include "table.h"

namespace kvasir {

// Consecutive rows of one KV head inside one segment.
struct KvRun {
  const void* keys;           // [count, headDim]
  const void* values;         // [count, headDim]
  const float* key_scales;    // [count], KVASIR_I8 only
  const float* value_scales;  // [count], KVASIR_I8 only
  int32_t position;           // absolute position of the first row
  int32_t count;
};

struct KvSegmentView {
  Tensor* keys;  // [kvHeads, capacity, headDim]
  Tensor* values;
  Tensor* key_scales;  // [kvHeads, capacity] with KVASIR_I8, else null
  Tensor* value_scales;
  int32_t start;
  int32_t count;  // filled rows
  int32_t capacity;

  // Rows [from, from + rows) of one head.
  KvRun run(int32_t head, int32_t from, int32_t rows) const;
};

struct KvView {
  int32_t dtype = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t start = 0;  // position of the first row
  int32_t end = 0;    // and behind the last
  std::vector<KvSegmentView> segments;

  // Writes the runs that hold positions [from, to) of one head to runs [segments.size() + 1]; returns how many. Kernels cut runs
  // into tiles of 64 keys: the first run ends where a tile of positions does, so that tiles, and with them the last bits of
  // results, do not depend on where segments begin, as long as those are cut at tiles too.
  int32_t runs(int32_t head, int32_t from, int32_t to, KvRun* runs) const;
  // What one segment holds from position `from` on; nothing behind the end.
  KvRun run_from(int32_t head, int32_t from) const;
};

// Segments without their start and count; throws Error{KVASIR_ARGUMENT}.
KvSegmentView check_segment(Table& table, const int32_t* fields);
// Asks for all that checks of `count` segments look at in the table, whatever the fields say: layers take turns, and nothing has
// looked there since the last step.
void fetch_segments(const Table& table, const int32_t* fields, int32_t count);
// Segments in order, without gaps, of one type and shape; throws Error{KVASIR_ARGUMENT}.
KvView check_segments(Table& table, const int32_t* fields, int32_t count);

// Rows for one segment, checked.
struct AppendCall {
  void *keys, *values;               // [heads, capacity, head_dim]
  float *key_scales, *value_scales;  // [heads, capacity], or null
  const float *k, *v;                // [n, heads, head_dim]
  int32_t dtype, heads, head_dim, capacity, row, n;
};
AppendCall check_append(Table& table, const int32_t* segment, int32_t row, uint32_t k, uint32_t v);
// Row i of k, v [count, heads, head_dim] for row rows[i] of segment i of a table.
std::vector<AppendCall> check_append_each(Table& table, const int32_t* segments, const int32_t* rows, int32_t count, uint32_t k,
                                          uint32_t v);

}  // namespace kvasir
