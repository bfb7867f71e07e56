// Searches one KV head's partition. For best keys each query head scores the keys of the lists nearest to it by their rows in the
// cache: a key's codes lie in many cache lines, its row in few; where keys have sketches, every head looks at those of all heads'
// lists. For samples the group's lists are scored together, and of all other keys a sample is drawn by what their cells say, so that
// answers to an error goal are unbiased whatever the cells believe. Keys that have no home yet are scanned by codes.
#pragma once
#include <cstdint>
#include <memory>
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
  void route(Report& report);
  void score_routers(size_t width, Report& report);
  int32_t probes_of(int32_t g) const;
  void visit(Report& report);
  void visit_lists(Report& report);
  void walk(const float* q, int32_t group, Report& report);
  void visit_walked(Report& report);
  void best_of_walks(Report& report);
  void mark(int32_t id);
  void best_of_lists(Report& report);
  void mark_head(int32_t g, size_t words, Report& report);
  void best_of_sketched(Report& report);
  int32_t gather_lists(Report& report);
  void score_sketches(int32_t count);
  int32_t keep_sketched(int32_t g, int32_t count);
  void scan_homeless(Report& report);
  void score_group(size_t from, size_t to, Report& report);
  void score_rows(float* out, const float* q, int32_t group, const int32_t* ids, int32_t count);
  void score(Codes::Scores kind, int planes, Report& report);
  void propose(double tau, Report& report);
  // Of candidates ids [count] with their exact scores or upper bounds of them: `sure` where all are exact.
  void top(int32_t g, const int32_t* ids, int32_t count, float* upper, bool sure, Report& report);
  void rescore(float* out, int32_t g, const int32_t* ids, const int32_t* places, int32_t count);
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
  std::vector<uint64_t> marks_;    // ids visited by lists; of each head its own for best keys
  std::vector<int32_t> lists_;     // of the group; or those of each head
  std::vector<int32_t> ends_;      // [group]: behind a head's in lists_
  GraphSearch walk_;               // its nodes come first among candidates, with its scores
  std::vector<int32_t> ids_;       // candidates: visited, scanned, then proposed
  std::vector<float> scores_;      // [group, stride_]
  std::vector<float> scan_;        // [group, scan_stride_]: keys without a home, from a block's start on
  std::vector<float> dots_;        // [gathered, group]
  std::vector<int32_t> own_ids_;   // each head's candidates for best keys
  std::vector<size_t> counts_;     // [group]
  GraphCodeQuery sketched_;
  std::vector<int32_t> router_ids_;  // 0, 1, 2, ...
  size_t scan_stride_ = 0, scan_skip_ = 0;
  std::unique_ptr<GraphKeys> keys_;  // where rows lie; of this search
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
