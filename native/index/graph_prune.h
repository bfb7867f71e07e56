// Which of many candidates become a node's neighbours, and how neighbours learn of it.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "graph_keys.h"
#include "graph_links.h"
#include "kmeans.h"

namespace kvasir {

// Occlusion pruning (the rule of HNSW, RNG and Vamana with alpha = 1; RoarGraph's with L2 in place of the inner product, which on
// keys that share a large mean says little): candidates are taken nearest first, and one that lies nearer to an accepted one than
// to the node is reached through that one. Scratch of one thread.
class GraphPruner {
 public:
  // Of distinct candidates [count], none the node itself, at most `limit`: the accepted, then the nearest skipped, to out.
  // Returns how many.
  int32_t select(int32_t* out, const GraphKeys& keys, int32_t node, const int32_t* candidates, int32_t count, int32_t limit);

  // The rule alone, on squared distances to the node and between candidates (out of a Gram matrix, of places in `order`,
  // which are sorted by distance): between(a, b).
  template <class F>
  static int32_t occlude(int32_t* accepted, const std::pair<float, int32_t>* order, int32_t count, int32_t limit, F&& between) {
    int32_t taken = 0;
    for (int32_t i = 0; i < count && taken < limit; i++) {
      bool hidden = false;
      for (int32_t j = 0; j < taken && !hidden; j++) hidden = between(order[i].second, accepted[j]) < order[i].first;
      if (!hidden) accepted[taken++] = order[i].second;
    }
    return taken;
  }

 private:
  std::vector<float> wide_, squares_, dots_;
  std::vector<std::pair<float, int32_t>> order_;
  std::vector<int32_t> accepted_;
  std::vector<const void*> rows_;
  std::vector<char> used_;
};

// A wish that `to` become a neighbour of `node`.
struct GraphWish {
  int32_t node, to;
};

// Adds wishes to the lists of their nodes: appended where there is room, else pruned together with what is there. Wishes that
// repeat or are granted already are dropped. The result depends on the order of the wishes of a node, not on threads.
// parents (may be null): nodes [0, parents->size()) stay in the lists of theirs.
void grant_wishes(GraphLinks& links, const GraphKeys& keys, std::vector<GraphWish>& wishes, const RunTasks& run,
                  const std::vector<int32_t>* parents = nullptr);

}  // namespace kvasir
