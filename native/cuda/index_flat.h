// Type "flat" on the device: codes of all keys, made from the cache's rows where they lie; exact best keys, samples without bias, and
// attention over what a search keeps without the host in between. Queries and hits may lie on either side; rows may lie on the host
// where nothing but codes is read.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "attention.h"
#include "index_types.h"
#include "rows.h"

namespace kvasir {

struct FlatGoal {
  bool by_error;
  double value;  // relative L2 error, or keys a query head
  bool sample_tail;
  uint32_t draw;
};

struct FlatHits {
  int32_t* tokens;  // [rows, capacity]; rows: KV heads by error, else query heads
  float* bias;
  int32_t* counts;
  float* errors;
  int32_t capacity;
};

struct FlatReport {
  int32_t certificate = 0;
  double keys_scored = 0, keys_kept = 0, bytes_read = 0;
};

class DeviceFlat {
 public:
  enum Kind { kInt8, kInt4, kNone };  // kNone: rows are scored themselves

  // search, attention: memory that a search needs, and its attention beside it; shared by all indexes of a context.
  DeviceFlat(DeviceScratch& search, DeviceScratch& attention, const IndexShape& shape, Kind kind);

  Rows& rows() { return rows_; }
  int32_t begin() const { return begin_; }
  int32_t end() const { return end_; }
  int32_t searchable() const { return searchable_; }
  double bytes() const;
  const IndexShape& shape() const { return shape_; }

  // Rows [start, start + count), which the segments hold. Throws Error{KVASIR_ARGUMENT} where a key is not finite; waits.
  void add(int32_t start, int32_t count);
  void commit() { searchable_ = end_ - begin_; }
  // Shares all whole chunks; the open one is copied by whoever appends first.
  std::unique_ptr<DeviceFlat> fork(Rows rows) const;

  // Waits for counts; false where a row has more hits than room (counts are there then).
  bool search(const FlatHits& hits, const FlatGoal& goal, const float* q, const float* exact, FlatReport& report);
  // The same and attention over what was kept, by error goals: o [heads, dim], lse [heads]. Waits only if `report` is not null.
  void attend(const AttentionPart& out, const FlatGoal& goal, const float* q, const float* exact, FlatReport* report);

 private:
  struct Chunk;
  struct Buffers;
  void encode(const RowTable& rows, int32_t start, int32_t count);
  std::vector<KeySegment> segments() const;
  RowTable table_of(const std::vector<KeySegment>& segments);
  // All rows, where kernels reach them; throws Error{KVASIR_UNSUPPORTED} where they do not.
  RowTable row_table();
  bool reaches_rows() const;
  // Rows [from, to) copied to the device: a segment of their own.
  std::vector<KeySegment> bring(int32_t from, int32_t to);
  Buffers place(int32_t list_capacity);
  // Rows of hits; sets what `goal` finds on its way to `hits`.
  int32_t find(const Buffers& b, const HitsOut& hits, const FlatGoal& goal, const float* q, const float* exact);
  void sample(const Buffers& b, const HitsOut& hits, const FlatGoal& goal, const float* q, const float* exact);
  void select(const Buffers& b, const HitsOut& hits, const FlatGoal& goal, const float* q);
  void score(const Buffers& b, const float* q, const float* exact, bool logs, bool always);
  // Waits; throws where the query was no query.
  std::vector<int32_t> finish(const Buffers& b, const HitsOut& hits, int32_t rows, const FlatGoal& goal, FlatReport& report);
  double code_bytes() const;  // of a key and KV head

  Runtime& runtime_;
  DeviceScratch &search_, &attention_;
  IndexShape shape_;
  Kind kind_;
  CodeLayout layout_{};
  DeviceScratch brought_;
  Rows rows_;
  std::vector<std::shared_ptr<Chunk>> chunks_;
  mutable bool own_open_ = true;
  int32_t begin_ = 0, end_ = 0, searchable_ = 0;
};

}  // namespace kvasir
