// What counted work costs on this machine: what a planner multiplies counts with. A table is a value: measured once per machine
// (kvasir_index_costs), passed to a context as its option `costs`, recorded with what was decided by it. Equal tables decide
// equally; without the option the table of the reference machine is in force, so that no decision hangs on timing by itself.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace kvasir {

struct IndexIsa;

// Nanoseconds of searches of one KV head for its group of query heads, with many heads in rotation, measured through the
// searches themselves: a constant and a slope each.
struct SearchCost {
  double scan_best = 0, scan_best_key = 0;        // exact best keys of a scan: a search, each key
  double scan_sample = 0, scan_sample_key = 0;    // a sample by error of a scan
  double lists_best = 0, lists_best_key = 0;      // best keys of lists: a search, each key scored
  double lists_sample = 0, lists_sample_key = 0;  // a sample by error of lists
  double centroid = 0;                            // each centroid that queries are compared with
  double sketched_best = 0, sketched_best_key = 0;  // best keys of lists whose keys have sketches
  double walked_best = 0, walked_best_key = 0;      // best keys of a graph: a search, each key that a walk scores
  double walked_sample = 0, walked_sample_key = 0;  // a sample by error of a graph

  static constexpr int kNumbers = 15;
};

class CostTable {
 public:
  static constexpr int kKinds = 3;  // Codes::Kind: int8, int4, rows
  static constexpr int32_t kDims[3] = {64, 128, 256}, kGroups[2] = {1, 4};

  // Of the reference machine.
  CostTable();
  // As text() writes it; throws Error{KVASIR_ARGUMENT}.
  explicit CostTable(const std::string& text);
  std::string text() const;

  // Between measured shapes linearly in headDim and group, beyond them along the nearest line, never below a tenth of the nearest
  // measured one.
  SearchCost at(int kind, int32_t head_dim, int32_t group) const;

  SearchCost& measured(int kind, int dim, int group) { return costs_[static_cast<size_t>((kind * 3 + dim) * 2 + group)]; }
  const SearchCost& measured(int kind, int dim, int group) const {
    return costs_[static_cast<size_t>((kind * 3 + dim) * 2 + group)];
  }

 private:
  std::vector<SearchCost> costs_;
};

// Measures this machine on generated keys, seconds on one thread. Throws Error{KVASIR_MEMORY}.
CostTable measure_costs(const IndexIsa& isa);

}  // namespace kvasir
