// Type "vamana": RobustVamana (OOD-DiskANN, Jaiswal et al. 2022, section 4; Vamana: Jayaram Subramanya et al. 2019).
// Inner products become L2 by one more dimension, sqrt(M^2 - |k|^2) for keys and 0 for queries. Two passes, alpha 1 and
// then alpha: each key is searched from the medoid with width l, what was visited is pruned to r neighbours (c' goes
// where alpha d(c, c') <= d(p, c')), reverse edges are added and pruned. Robust stitch: of a sample of queries every
// key near one receives, nearest first, up to (r - degree) / (lists it is in) of the others near it. Defaults: r 64, l
// 100, alpha 1.2, queries 1 % of the keys. What differs: the first pass starts from an empty graph, not a random one,
// and links keys in rounds of at most 512; nearest keys of sampled queries are exact. Entries, calibration of ef, codes
// and growth are those of type "graph".
#include <algorithm>
#include <cmath>

#include "error.h"
#include "graph_beam.h"
#include "graph_recipe.h"
#include "kvasir_index.h"
#include "knn.h"

namespace kvasir {
namespace {

GraphOptions options(const Params& params) {
  GraphOptions o;
  o.m = params.integer("r", 4, 512);
  o.nq = 2 * o.m;
  o.l = params.integer("l", 1, 4096);
  o.alpha = params.number("alpha");
  o.sample = params.number("sample");
  if (!(o.alpha >= 1 && o.alpha <= 4 && o.sample >= 0 && o.sample <= 1)) {
    fail(KVASIR_ARGUMENT, "Cannot use \"vamana\": alpha is %g, sample %g, expected 1 to 4, and a share", o.alpha, o.sample);
  }
  return o;
}

void stitch(GraphLinks& links, const GraphMaterial& m) {
  const Neighbours& nearest = m.nearest;
  const int32_t room = links.slots() - 1;
  const int32_t wanted = static_cast<int32_t>(std::ceil(m.options.sample * m.keys.nodes()));
  const int32_t count = std::min(nearest.queries, wanted);
  const auto query = [&](int32_t i) { return static_cast<int32_t>(static_cast<int64_t>(i) * nearest.queries / count); };
  std::vector<int32_t> lists(static_cast<size_t>(links.nodes())), degree(lists.size());
  for (int32_t i = 0; i < count; i++) {
    for (int32_t j = 0; j < nearest.k; j++) lists[static_cast<size_t>(nearest.of(query(i))[j] - m.keys.begin())]++;
  }
  for (int32_t node = 0; node < links.nodes(); node++) degree[static_cast<size_t>(node)] = links.count(node);
  std::vector<int32_t> list;
  for (int32_t i = 0; i < count; i++) {
    const int32_t* near = nearest.of(query(i));
    for (int32_t j = 0; j < nearest.k; j++) {
      const int32_t node = near[j] - m.keys.begin();
      const size_t at = static_cast<size_t>(node);
      int32_t share = std::max(0, room - degree[at]) / lists[at];
      list.assign(links.of(node), links.of(node) + links.count(node));
      for (int32_t other = 0; other < nearest.k && share > 0; other++) {
        const int32_t to = near[other] - m.keys.begin();
        if (to == node || std::find(list.begin(), list.end(), to) != list.end()) continue;
        list.push_back(to);
        share--;
      }
      links.set(node, list.data(), std::min(room, static_cast<int32_t>(list.size())));
    }
  }
}

void wire(GraphLinks& links, const GraphMaterial& m) {
  const int32_t n = m.keys.nodes(), dim = m.keys.dim();
  std::vector<float> extra(static_cast<size_t>(n)), row(static_cast<size_t>(dim));
  float top = 0;
  for (int32_t i = 0; i < n; i++) {
    m.keys.read(row.data(), i);
    float square = 0;
    for (float x : row) square += x * x;
    extra[static_cast<size_t>(i)] = square;
    top = std::max(top, square);
  }
  for (float& x : extra) x = std::sqrt(std::max(0.0f, top - x));
  const int32_t medoid = central_node(m.keys), room = links.slots() - 1;
  for (const double pass : {1.0, m.options.alpha}) {
    const float alpha = static_cast<float>(pass);
    link_in_rounds(links, m, extra.data(), alpha, top, [&](GraphBeam& beam, int32_t node, std::vector<int32_t>& out) {
      std::vector<float> key(static_cast<size_t>(dim));
      std::vector<Seen> seen;
      m.keys.read(key.data(), node);
      beam.search(seen, links, key.data(), extra[static_cast<size_t>(node)], medoid, m.options.l);
      const int32_t* list = links.of(node);
      for (int32_t i = 0; i < links.count(node); i++) {
        seen.push_back({beam.similarity(key.data(), extra[static_cast<size_t>(node)], list[i]), list[i]});
      }
      std::sort(seen.begin(), seen.end(), is_better);
      beam.prune(out, node, seen, room, alpha, top, false);
    });
  }
  stitch(links, m);
}

}  // namespace

extern const IndexType kVamana;
const IndexType kVamana = graph_type<options, wire>("vamana", "r=64,l=100,alpha=1.2,sample=0.01," KVASIR_GRAPH_DEFAULTS,
                                                    "a graph of near keys, stitched by sampled queries (RobustVamana)");

}  // namespace kvasir
