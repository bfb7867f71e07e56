// Best-first search of a graph for the query heads of one KV head together (Malkov and Yashunin 2018, algorithm 2, with one sorted
// queue a head): every key is scored once, for all heads, and offered to all their queues; a node that one head expanded is
// expanded for all.
#pragma once
#include <cstdint>
#include <vector>

#include "graph_keys.h"
#include "graph_links.h"

namespace kvasir {

class GraphSearch {
 public:
  struct Entry {
    float score;
    int32_t node;  // see node_of
  };

  // Before each search; memory is kept. width: length of each queue.
  void start(int32_t nodes, int32_t group, int32_t width);
  // Scores those of nodes [count] not seen yet and offers them. q [group, dim].
  void offer(const GraphKeys& keys, const float* q, const int32_t* nodes, int32_t count);
  // Expands until every queue's nodes are.
  void run(const GraphKeys& keys, const GraphLinks& links, const float* q);

  static int32_t node_of(const Entry& entry) { return entry.node & ~kExpanded; }
  // Best first, at most `width`; of equal scores the one met first (the lower node, if met at once).
  const Entry* queue(int32_t g) const { return queues_.data() + static_cast<size_t>(g) * static_cast<size_t>(width_ + kMostFresh); }
  int32_t queued(int32_t g) const { return sizes_[static_cast<size_t>(g)]; }
  // All nodes scored, in order, and their scores [scored, group].
  const std::vector<int32_t>& scored() const { return scored_; }
  const std::vector<float>& scores() const { return scores_; }
  bool seen(int32_t node) const { return (seen_[static_cast<size_t>(node >> 6)] >> (node & 63) & 1) != 0; }
  int32_t expanded() const { return num_expanded_; }

 private:
  static constexpr int32_t kExpanded = INT32_MIN;  // the sign bit of an entry's node
  static constexpr int32_t kMostFresh = 256;  // merged into a queue at once
  void insert(int32_t g, Entry* fresh, int32_t count);
  void score_fresh(const GraphKeys& keys, const GraphLinks* links, const float* q, size_t first);

  int32_t group_ = 1, width_ = 1, num_expanded_ = 0;
  std::vector<uint64_t> seen_, expanded_;  // bits
  std::vector<Entry> queues_;
  std::vector<int32_t> sizes_, next_;  // next_: every entry before is expanded
  std::vector<int32_t> scored_;
  std::vector<float> scores_;
};

}  // namespace kvasir
