// Searches of a graph that is being built, and pruning of what they met, by similarities between keys: what the wirings
// of published graphs share. A similarity is the inner product, or of keys with one more dimension (extra), which makes
// it an L2 order.
#pragma once
#include <utility>
#include <vector>

#include "graph_build.h"

namespace kvasir {

// A node and its similarity to what is looked for; best first.
using Seen = std::pair<float, int32_t>;
inline bool is_better(const Seen& a, const Seen& b) { return a.first > b.first || (a.first == b.first && a.second < b.second); }

// Scratch of one thread.
class GraphBeam {
 public:
  // extra [nodes]: each key's further dimension, or null.
  GraphBeam(const GraphKeys& keys, const float* extra) : keys_(keys), extra_(extra) {}

  // Best-first search of width l for a key [dim] with its extra dimension: out gets what was expanded, best first.
  void search(std::vector<Seen>& out, const GraphLinks& links, const float* key, float key_extra, int32_t entry, int32_t width);
  // Of candidates, best first, at most `limit` that no accepted one hides: alpha (top - s(c, r)) < top - s(c, node)
  // hides c. With an inner product top is 0 and alpha 1; else top is the squared length of all keys. fill: then the
  // best of those skipped. The node itself and repetitions are left out.
  void prune(std::vector<int32_t>& out, int32_t node, const std::vector<Seen>& candidates, int32_t limit, float alpha, float top,
             bool fill);
  float similarity(const float* key, float key_extra, int32_t node);

 private:
  const GraphKeys& keys_;
  const float* extra_;
  std::vector<int32_t> met_, fresh_;  // met_[node] == round_: seen in this search
  int32_t round_ = 0;
  std::vector<float> scores_, rows_;
};

// Keys that were linked by the searches of `plan` in rounds: nodes of a round do not see each other before they are
// linked. plan(beam, node) returns a node's neighbours; then each of them gets the node, pruned to the list's room by
// alpha and top.
void link_in_rounds(GraphLinks& links, const GraphMaterial& material, const float* extra, float alpha, float top,
                    const std::function<void(GraphBeam&, int32_t node, std::vector<int32_t>& out)>& plan);

// The node whose key is nearest to the mean of all keys, in L2.
int32_t central_node(const GraphKeys& keys);

}  // namespace kvasir
