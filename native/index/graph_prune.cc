#include "graph_prune.h"

#include <algorithm>

#include "kvasir_abi.h"

namespace kvasir {

int32_t GraphPruner::select(int32_t* out, const GraphKeys& keys, int32_t node, const int32_t* candidates, int32_t count,
                            int32_t limit) {
  const size_t dim = static_cast<size_t>(keys.dim());
  wide_.resize((static_cast<size_t>(count) + 1) * dim);
  squares_.resize(static_cast<size_t>(count));
  dots_.resize(static_cast<size_t>(count));
  order_.resize(static_cast<size_t>(count));
  float* self = wide_.data() + static_cast<size_t>(count) * dim;
  for (int32_t i = 0; i < count; i++) keys.prefetch(candidates[i]);
  keys.read(self, node);
  for (int32_t i = 0; i < count; i++) {
    // Relative to the node, so that distances of keys with a large common part keep their digits.
    float* row = wide_.data() + static_cast<size_t>(i) * dim;
    const float square = keys.read_less(row, candidates[i], self);
    squares_[static_cast<size_t>(i)] = square;
    order_[static_cast<size_t>(i)] = {square, i};
  }
  std::sort(order_.begin(), order_.end());
  accepted_.resize(static_cast<size_t>(limit));
  // The rule of `occlude`, with distances to eight accepted ones at a time.
  constexpr int32_t kAtOnce = 8;
  rows_.clear();
  int32_t taken = 0;
  for (int32_t i = 0; i < count && taken < limit; i++) {
    const size_t c = static_cast<size_t>(order_[static_cast<size_t>(i)].second);
    float dots[kAtOnce];
    bool hidden = false;
    for (int32_t from = 0; from < taken && !hidden; from += kAtOnce) {
      const int32_t some = std::min(kAtOnce, taken - from);
      keys.kernels().score(dots, wide_.data() + c * dim, rows_.data() + from, some, KVASIR_F32, 1, keys.dim());
      for (int32_t j = 0; j < some; j++) {
        const size_t a = static_cast<size_t>(accepted_[static_cast<size_t>(from + j)]);
        hidden |= squares_[c] + squares_[a] - 2 * dots[j] < squares_[c];
      }
    }
    if (hidden) continue;
    accepted_[static_cast<size_t>(taken++)] = static_cast<int32_t>(c);
    rows_.push_back(wide_.data() + c * dim);
  }
  used_.assign(static_cast<size_t>(count), 0);
  for (int32_t i = 0; i < taken; i++) {
    out[i] = candidates[accepted_[static_cast<size_t>(i)]];
    used_[static_cast<size_t>(accepted_[static_cast<size_t>(i)])] = 1;
  }
  int32_t filled = taken;
  for (int32_t i = 0; i < count && filled < limit; i++) {
    const int32_t c = order_[static_cast<size_t>(i)].second;
    if (used_[static_cast<size_t>(c)] == 0) out[filled++] = candidates[c];
  }
  return filled;
}

void grant_wishes(GraphLinks& links, const GraphKeys& keys, std::vector<GraphWish>& wishes, const RunTasks& run,
                  const std::vector<int32_t>* parents) {
  // By block of links, keeping the order within: a block is one task's.
  std::vector<size_t> starts(static_cast<size_t>(links.blocks()) + 1);
  for (const GraphWish& w : wishes) starts[static_cast<size_t>(w.node >> GraphLinks::kBlockBits) + 1]++;
  for (size_t b = 1; b < starts.size(); b++) starts[b] += starts[b - 1];
  std::vector<GraphWish> sorted(wishes.size());
  std::vector<size_t> at(starts.begin(), starts.end() - 1);
  for (const GraphWish& w : wishes) sorted[at[static_cast<size_t>(w.node >> GraphLinks::kBlockBits)]++] = w;
  run(links.blocks(), [&](int32_t block) {
    GraphWish* from = sorted.data() + starts[static_cast<size_t>(block)];
    GraphWish* to = sorted.data() + starts[static_cast<size_t>(block) + 1];
    std::stable_sort(from, to, [](const GraphWish& a, const GraphWish& b) { return a.node < b.node; });
    GraphPruner pruner;
    const int32_t room = links.slots() - 1;
    std::vector<int32_t> list, kept(static_cast<size_t>(room));
    while (from < to) {
      const int32_t node = from->node, had = links.count(node);
      list.assign(links.of(node), links.of(node) + had);
      for (; from < to && from->node == node; from++) {
        if (from->to != node && std::find(list.begin(), list.end(), from->to) == list.end()) list.push_back(from->to);
      }
      const int32_t count = static_cast<int32_t>(list.size());
      if (count == had) continue;
      if (count <= room) {
        links.set(node, list.data(), count);
        continue;
      }
      // Children first: they stay.
      const auto rest = std::stable_partition(list.begin(), list.end(), [&](int32_t to) {
        return parents != nullptr && static_cast<size_t>(to) < parents->size() && (*parents)[static_cast<size_t>(to)] == node;
      });
      const int32_t stay = std::min(room, static_cast<int32_t>(rest - list.begin()));
      std::copy_n(list.begin(), stay, kept.begin());
      const int32_t more = pruner.select(kept.data() + stay, keys, node, list.data() + stay, count - stay, room - stay);
      links.set(node, kept.data(), stay + more);
    }
  });
}

}  // namespace kvasir
