// Neighbours as queries see them (RoarGraph, Chen et al. 2024, section 4: the projected bipartite graph, with votes merged).
#include <algorithm>

#include "graph_build.h"
#include "graph_prune.h"
#include "knn.h"

namespace kvasir {
namespace {

constexpr int32_t kMostCandidates = 192;  // of a pivot, after merging
constexpr size_t kMostLists = 64;         // that a pivot merges: those of evenly sampled queries
constexpr int32_t kPivotsPerTask = 64;

// Each query's first keys are its pivots, the rest of its nearest keys are what a pivot should lead to. Lists of queries that share
// a pivot are merged: keys of more lists come first (RoarGraph has one pivot a query, and keeps the last list only).
void link_pivots(GraphLinks& links, const GraphKeys& keys, const Neighbours& nearest, int32_t pivots_each, int32_t m,
                 const RunTasks& run) {
  std::vector<std::pair<int32_t, int32_t>> votes;  // pivot, query
  for (int32_t i = 0; i < nearest.queries; i++) {
    for (int32_t j = 0; j < std::min(pivots_each, nearest.k); j++) votes.push_back({nearest.of(i)[j] - keys.begin(), i});
  }
  std::sort(votes.begin(), votes.end());
  std::vector<size_t> starts;
  for (size_t i = 0; i < votes.size(); i++) {
    if (i == 0 || votes[i].first != votes[i - 1].first) starts.push_back(i);
  }
  const int32_t pivots = static_cast<int32_t>(starts.size());
  starts.push_back(votes.size());
  std::vector<int32_t> lists(static_cast<size_t>(pivots) * static_cast<size_t>(m), GraphLinks::kNone);
  run((pivots + kPivotsPerTask - 1) / kPivotsPerTask, [&](int32_t task) {
    GraphPruner pruner;
    std::vector<int32_t> ids, candidates;
    std::vector<std::pair<int32_t, int32_t>> ranked;  // minus votes, position
    for (int32_t p = task * kPivotsPerTask; p < std::min(pivots, (task + 1) * kPivotsPerTask); p++) {
      ids.clear();
      const size_t first = starts[static_cast<size_t>(p)], last = std::min(starts[static_cast<size_t>(p) + 1], first + kMostLists);
      for (size_t i = first; i < last; i++) {
        const int32_t* list = nearest.of(votes[i].second);
        ids.insert(ids.end(), list, list + nearest.k);
      }
      std::sort(ids.begin(), ids.end());
      ranked.clear();
      for (size_t i = 0; i < ids.size();) {
        size_t j = i;
        while (j < ids.size() && ids[j] == ids[i]) j++;
        ranked.push_back({-static_cast<int32_t>(j - i), ids[i]});
        i = j;
      }
      if (ranked.size() > kMostCandidates) {
        std::nth_element(ranked.begin(), ranked.begin() + kMostCandidates, ranked.end());
        ranked.resize(kMostCandidates);
      }
      candidates.clear();
      const int32_t pivot = votes[first].first;
      for (const auto& r : ranked) {
        if (r.second - keys.begin() != pivot) candidates.push_back(r.second - keys.begin());
      }
      pruner.select(lists.data() + static_cast<size_t>(p) * static_cast<size_t>(m), keys, pivot, candidates.data(),
                    static_cast<int32_t>(candidates.size()), m);
    }
  });
  std::vector<GraphWish> wishes;
  for (int32_t p = 0; p < pivots; p++) {
    const int32_t pivot = votes[starts[static_cast<size_t>(p)]].first;
    const int32_t* list = lists.data() + static_cast<size_t>(p) * static_cast<size_t>(m);
    int32_t count = 0;
    while (count < m && list[count] != GraphLinks::kNone) count++;
    links.set(pivot, list, count);
    for (int32_t i = 0; i < count; i++) wishes.push_back({list[i], pivot});
  }
  grant_wishes(links, keys, wishes, run);
}

}  // namespace

void wire_from_queries(GraphLinks& links, const GraphMaterial& m) {
  const int32_t lead = std::max(2, links.slots() * 2 / 3);
  link_pivots(links, m.keys, m.nearest, m.options.pivots, lead, m.run);
  link_mates(links, m.keys, *m.isa.panels, m.homes, std::max(2, lead / 2), m.run);
}

}  // namespace kvasir
