// What an index type is: a body of Index and one line in registry.cc. See kvasir_index.h for the meaning of each call.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "isa.h"
#include "memory.h"
#include "params.h"
#include "pool.h"
#include "rows.h"

namespace kvasir {

class ChunkMemory;
class FileReader;
class FileWriter;
class Builders;
class CostTable;

struct LayerShape {
  int32_t heads = 1, kv_heads = 1, head_dim = 0;
  float scale = 1;
  float softcap = 0;  // 0: none
  std::vector<double> frequencies;  // radians per position of each rotated pair; empty: no rope
  bool neighbours = false;          // pairs (2i, 2i + 1) instead of (i, i + dims / 2)
  uint32_t seed = 0;

  int32_t group() const { return heads / kv_heads; }
};

struct SampleMemory;

// What all indexes of a context share. Search runs on `pool`; scratch is by worker; slow structure goes to `builders`.
struct Environment {
  const IndexIsa* isa = nullptr;
  Pool* pool = nullptr;
  std::vector<Scratch>* scratch = nullptr;
  SampleMemory* samples = nullptr;  // of the one search that runs at a time, as scratch is
  Builders* builders = nullptr;
  std::shared_ptr<ChunkMemory> chunks;  // of codes
  const CostTable* costs = nullptr;  // what planners decide by
};

struct Goal {
  enum Kind { kError, kTopk } kind = kError;
  double value = 0;  // relative L2 error, or keys per query head
  bool sample_tail = false;
  bool surrogate_tail = false;  // something may stand for what is no hit: Hits::rest
  uint32_t draw = 0;
};

struct Query {
  const float* q;      // [heads, head_dim]
  const float* exact;  // [heads]
  Goal goal;
};

// Rows: one per KV head for Goal::kError, one per query head for Goal::kTopk.
struct Hits {
  int32_t capacity;
  int32_t* tokens;  // [rows, capacity], ascending within a row
  float* bias;      // [rows, capacity]
  int32_t* counts;  // [rows]; may exceed capacity: then the row's contents do not matter
  float* errors;    // [rows]
  // With Goal::surrogate_tail, else null: attention over what stands for keys that are no hits, by query head.
  float* rest = nullptr;      // [heads, head_dim]
  float* rest_lse = nullptr;  // [heads]: its log-sum-exp, -INFINITY where nothing stands for anything
};

struct Report {
  int32_t certificate = 0;  // the weakest of all rows
  double keys_scored = 0, keys_kept = 0, bytes_read = 0;
  double expected_recall = __builtin_nan("");
};

struct IndexStats {
  double tokens = 0, bytes = 0, pending = 0, build_seconds = 0, inserted = 0;
  std::vector<std::string> decisions;
};

class Index {
 public:
  virtual ~Index() = default;
  // Rows [start, start + count) can be read from `rows()` and are finite.
  virtual void add(int32_t start, int32_t count) = 0;
  // Whether observe() is of use.
  virtual bool observes() const { return false; }
  // Finite queries [count, heads, head_dim] of positions [start, start + count), which may have been observed before.
  virtual void observe(int32_t, int32_t, const float*) {}
  // Whether it has something for Goal::surrogate_tail.
  virtual bool has_surrogates() const { return false; }
  virtual void commit() = 0;
  virtual void settle() {}
  virtual void search(const Query& query, const Hits& hits, Report& report) = 0;
  virtual std::unique_ptr<Index> fork(const Rows& rows) const = 0;
  virtual void save(FileWriter& to) const = 0;
  virtual IndexStats stats() const = 0;

  // Positions [begin, end) were added.
  int32_t begin() const { return begin_; }
  int32_t end() const { return end_; }
  void added(int32_t start, int32_t count) {
    if (begin_ == end_) begin_ = end_ = start;
    end_ += count;
  }

  Rows& rows() { return rows_; }
  const Rows& rows() const { return rows_; }
  // Name and all parameters, canonical; of the file it is saved to.
  const std::string& spec() const { return spec_; }
  void set_spec(std::string spec) { spec_ = std::move(spec); }
  const LayerShape& shape() const { return shape_; }

 protected:
  Index(const Environment& environment, const LayerShape& shape, Rows rows)
      : environment_(environment), shape_(shape), rows_(std::move(rows)) {}

  Environment environment_;
  LayerShape shape_;
  Rows rows_;
  std::string spec_;
  int32_t begin_ = 0, end_ = 0;  // while add runs: without its tokens
};

struct IndexType {
  const char* name;
  const char* defaults;  // "key=value,..."
  const char* summary;
  std::unique_ptr<Index> (*create)(const Environment&, const LayerShape&, const Params&, Rows);
  std::unique_ptr<Index> (*map)(const Environment&, const LayerShape&, const Params&, Rows, FileReader&);
};

// registry.cc
const std::vector<const IndexType*>& index_types();
const IndexType& find_index_type(const std::string& name);  // throws Error{KVASIR_ARGUMENT} that lists the names

}  // namespace kvasir
