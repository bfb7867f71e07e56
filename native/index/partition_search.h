// Searches one KV head's partition: the lists nearest to each query of the group are scored by codes for the whole group, as is
// every key that has no home yet. Of the others a sample is drawn by what their cells say, so that answers to an error goal are
// unbiased whatever the cells believe.
#pragma once
#include <cstdint>
#include <vector>

#include "codes.h"
#include "graph_search.h"
#include "index.h"
#include "partition.h"

namespace kvasir {

struct SearchScope {
  const IndexIsa* isa;
  const LayerShape* shape;
  const Rows* rows;
  const Codes* codes;
  const Partition* partition;  // null: every key is scanned
  int32_t head;
  int32_t keys;    // ids [0, keys) are searchable, id 0 is position codes->begin()
  int32_t probes;  // lists a query; the width of a graph's queue; 0: as the partition has it
  double lift;     // deviations added to what a cell expects of its keys
};

// Works on one KV head at a time; its memory is kept from search to search.
class PartitionSearch {
 public:
  // Fills the KV head's rows of hits. Counts are of work: see kvasir_index.h.
  void run(const SearchScope& scope, const Query& query, const Hits& hits, Report& report);

 private:
  struct Picked {
    int32_t id;
    float bias;
  };
  void visit(Report& report);
  void visit_lists(Report& report);
  void walk(Report& report);
  void mark(int32_t id);
  void score(Codes::Scores kind, int planes, Report& report);
  void propose(double tau, Report& report);
  void top(int32_t g, Report& report);
  void rescore(float* out, int32_t g, const int32_t* places, int32_t count);
  void threshold();
  void priority(int32_t g);
  void everything(int32_t row, Report& report);
  void softcap(float* scores, size_t count) const;
  const float* scores_of(int32_t g) const { return scores_.data() + static_cast<size_t>(g) * stride_; }
  // Room for `extra` more candidates beyond those of visit.
  void widen(size_t extra);
  void put(int32_t row, float error);

  SearchScope s_{};
  const Query* query_ = nullptr;
  const Hits* hits_ = nullptr;
  const float* q_ = nullptr;       // [group, dim]
  int32_t group_ = 0;
  PreparedQuery prepared_;
  std::vector<uint64_t> marks_;    // ids visited by lists
  std::vector<int32_t> lists_;
  GraphSearch walk_;               // its nodes come first among candidates, with scores from rows
  std::vector<int32_t> ids_;       // candidates: visited, scanned, then proposed
  std::vector<float> scores_;      // [group, stride_]
  size_t stride_ = 0, certain_ = 0;  // candidates before the proposed
  std::vector<float> route_;       // [group, width]: what lists promise
  std::vector<float> cells_, rates_;
  std::vector<float> proposed_;    // probability with which each proposed candidate is one
  std::vector<double> log_mass_;   // [group]
  std::vector<std::pair<double, int32_t>> order_;
  std::vector<Picked> picked_;
  std::vector<float> select_;
  std::vector<int32_t> gathered_;
};

}  // namespace kvasir
