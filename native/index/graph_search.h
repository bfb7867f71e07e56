// Best-first search of a graph for the query heads of one KV head together (Malkov and Yashunin 2018, algorithm 2, with one sorted
// queue a head): every key is scored once, for all heads, and offered to all their queues; a node that one head expanded is
// expanded for all. Walks score 4-bit codes; what is left in the queues is scored exactly by rows of the cache.
#pragma once
#include <cstdint>
#include <vector>

#include "graph_codes.h"
#include "graph_keys.h"
#include "graph_links.h"

namespace kvasir {

class GraphSearch {
 public:
  struct Entry {
    float score;
    int32_t node;  // see node_of
  };

  // Before each search; memory is kept. width: length of each queue; q [group, dim].
  void start(const GraphCodes& codes, const GraphKernels& kernels, const float* q, int32_t group, int32_t width);
  // Scores those of nodes [count] not seen yet and offers them.
  void offer(const int32_t* nodes, int32_t count);
  // Expands until every queue's nodes are.
  void run(const GraphLinks& links);
  // Collects what is in any queue: finalists. Once, after run.
  void collect();
  // Collects and scores exactly.
  void finish(const GraphKeys& keys, const float* q);

  static int32_t node_of(const Entry& entry) { return entry.node & ~kExpanded; }
  // Best first, at most `width`; of equal scores the one met first (the lower node, if met at once).
  const Entry* queue(int32_t g) const { return queues_.data() + static_cast<size_t>(g) * static_cast<size_t>(width_ + kMostFresh); }
  int32_t queued(int32_t g) const { return sizes_[static_cast<size_t>(g)]; }
  // The nodes of all queues, each once, and after finish their exact scores [finalists, group].
  const std::vector<int32_t>& finalists() const { return finalists_; }
  const std::vector<float>& exact() const { return exact_; }
  // Of finalists the k best of a head, best first; of equal scores the lower node first.
  void best(std::vector<int32_t>& nodes, int32_t g, int32_t k) const;
  // All nodes scored, in order, and their scores by codes [scored, group].
  const std::vector<int32_t>& scored() const { return scored_; }
  const std::vector<float>& scores() const { return scores_; }
  bool seen(int32_t node) const { return (seen_[static_cast<size_t>(node >> 6)] >> (node & 63) & 1) != 0; }
  int32_t expanded() const { return num_expanded_; }

 private:
  static constexpr int32_t kExpanded = INT32_MIN;  // the sign bit of an entry's node
  static constexpr int32_t kMostFresh = 256;  // merged into a queue at once
  void insert(int32_t g, Entry* fresh, int32_t count);
  void score_fresh(const GraphLinks* links, size_t first);

  const GraphCodes* codes_ = nullptr;
  const GraphKernels* kernels_ = nullptr;
  GraphCodeQuery query_;
  int32_t group_ = 1, width_ = 1, num_expanded_ = 0;
  std::vector<uint64_t> seen_, expanded_;  // bits
  std::vector<Entry> queues_;
  std::vector<int32_t> sizes_, next_;  // next_: every entry before is expanded
  std::vector<int32_t> scored_;
  std::vector<float> scores_;
  std::vector<int32_t> finalists_;
  std::vector<float> exact_;
};

}  // namespace kvasir
