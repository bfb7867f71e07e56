// Type "roar": RoarGraph (Chen et al. 2024, section 4). Each training query has nq exact nearest keys; its first, the
// pivot, takes of the others those that no accepted one hides (by inner product, nearest the pivot first), m at most,
// filled with the nearest that were skipped; reverse edges, pruned to m. Then every key is searched from the key
// nearest the mean with width l, and what was expanded is pruned to m and appended. Defaults: nq 100, m 35, l 500
// [their code].
// What differs: lists of queries that share a pivot are united as merge=true would (their code keeps the last); the
// final degree is bounded by the list's slots, twice m, in place of 2 to 3 m. Entries, calibration of ef, codes and
// growth are those of type "graph".
#include <algorithm>

#include "graph_beam.h"
#include "graph_recipe.h"
#include "knn.h"

namespace kvasir {
namespace {

GraphOptions options(const Params& params) {
  GraphOptions o;
  o.m = 2 * params.integer("m", 4, 256);
  o.nq = params.integer("nq", 2, 4096);
  o.l = params.integer("l", 1, 4096);
  return o;
}

constexpr float kAlpha = 1, kTop = 0;  // inner products

void link_pivots(GraphLinks& links, const GraphMaterial& m, int32_t limit) {
  const Neighbours& nearest = m.nearest;
  std::vector<std::pair<int32_t, int32_t>> votes;  // pivot, query
  for (int32_t i = 0; i < nearest.queries && nearest.k > 0; i++) votes.push_back({nearest.of(i)[0] - m.keys.begin(), i});
  std::sort(votes.begin(), votes.end());
  GraphBeam beam(m.keys, nullptr);
  std::vector<float> row(static_cast<size_t>(m.keys.dim()));
  std::vector<int32_t> ids, list;
  std::vector<Seen> candidates;
  const auto rank = [&](int32_t node) {
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    m.keys.read(row.data(), node);
    candidates.clear();
    for (int32_t id : ids) candidates.push_back({beam.similarity(row.data(), 0, id), id});
    std::sort(candidates.begin(), candidates.end(), is_better);
  };
  std::vector<std::pair<int32_t, int32_t>> wishes;
  for (size_t i = 0; i < votes.size();) {
    const int32_t pivot = votes[i].first;
    ids.clear();
    for (; i < votes.size() && votes[i].first == pivot; i++) {
      for (int32_t j = 1; j < nearest.k; j++) ids.push_back(nearest.of(votes[i].second)[j] - m.keys.begin());
    }
    rank(pivot);
    beam.prune(list, pivot, candidates, limit, kAlpha, kTop, true);
    links.set(pivot, list.data(), static_cast<int32_t>(list.size()));
    for (int32_t to : list) wishes.push_back({to, pivot});
  }
  std::sort(wishes.begin(), wishes.end());
  for (size_t i = 0; i < wishes.size();) {
    const int32_t node = wishes[i].first;
    ids.assign(links.of(node), links.of(node) + links.count(node));
    for (; i < wishes.size() && wishes[i].first == node; i++) ids.push_back(wishes[i].second);
    rank(node);
    beam.prune(list, node, candidates, limit, kAlpha, kTop, true);
    links.set(node, list.data(), static_cast<int32_t>(list.size()));
  }
}

void wire(GraphLinks& links, const GraphMaterial& m) {
  const int32_t room = links.slots() - 1, limit = std::max(2, room / 2), entry = central_node(m.keys);
  link_pivots(links, m, limit);
  // From the entry, what it is the nearest key of first.
  link_in_rounds(links, m, nullptr, kAlpha, kTop, [&](GraphBeam& beam, int32_t node, std::vector<int32_t>& out) {
    std::vector<float> key(static_cast<size_t>(m.keys.dim()));
    std::vector<Seen> seen;
    std::vector<int32_t> pruned;
    m.keys.read(key.data(), node);
    beam.search(seen, links, key.data(), 0, entry, m.options.l);
    beam.prune(pruned, node, seen, limit, kAlpha, kTop, false);
    out.assign(links.of(node), links.of(node) + links.count(node));
    for (int32_t to : pruned) {
      if (static_cast<int32_t>(out.size()) < room && std::find(out.begin(), out.end(), to) == out.end()) out.push_back(to);
    }
  });
}

}  // namespace

extern const IndexType kRoar;
const IndexType kRoar = graph_type<options, wire>("roar", "nq=100,m=35,l=500," KVASIR_GRAPH_DEFAULTS,
                                                  "a graph projected from prompt queries onto their nearest keys (RoarGraph)");

}  // namespace kvasir
