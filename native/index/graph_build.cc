#include "graph_build.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "graph_entries.h"
#include "knn.h"
#include "partition.h"

namespace kvasir {
namespace {

// Marks what can be reached from `queue` (whose nodes are marked). parents (may be null): in whose list each was met first.
void reach(const GraphLinks& links, std::vector<char>& reached, std::vector<int32_t>& queue, int32_t* parents) {
  const auto meet = [&](int32_t node, int32_t parent) {
    if (node == GraphLinks::kNone || reached[static_cast<size_t>(node)] != 0) return;
    reached[static_cast<size_t>(node)] = 1;
    if (parents != nullptr) parents[node] = parent;
    queue.push_back(node);
  };
  while (!queue.empty()) {
    const int32_t node = queue.back(), *list = links.of(node);
    queue.pop_back();
    for (int32_t i = 0; i < links.slots() - 1 && list[i] != GraphLinks::kNone; i++) meet(list[i], node);
    meet(list[links.slots() - 1], GraphLinks::kNone);
  }
}

std::vector<int32_t> roots_of(const Graph& graph, std::vector<char>& reached) {
  std::vector<int32_t> roots;
  const auto start = [&](int32_t node) {
    if (node == GraphLinks::kNone || reached[static_cast<size_t>(node)] != 0) return;
    reached[static_cast<size_t>(node)] = 1;
    roots.push_back(node);
  };
  for (int32_t node : graph.entries->nodes) start(node);
  for (const auto& ids : graph.newcomers) {
    for (int32_t node : ids) start(node);
  }
  return roots;
}

// Connects what no walk from the entries reaches: the thread of the nearest reached cell mate with a free one, or else of the
// last node reached, leads there.
void connect(Graph& graph, const GraphKeys& keys, const ListTable& homes) {
  const std::vector<int32_t> home = homes_of(homes, graph.nodes());
  std::vector<char> reached(static_cast<size_t>(graph.nodes()));
  std::vector<int32_t> queue = roots_of(graph, reached), mates;
  auto parents = std::make_shared<std::vector<int32_t>>(static_cast<size_t>(graph.nodes()), GraphLinks::kNone);
  graph.parents = parents;
  if (queue.empty()) return;  // a cancelled build
  int32_t last = queue.back();
  reach(graph.links, reached, queue, parents->data());
  std::vector<float> self(static_cast<size_t>(keys.dim())), scores;
  for (int32_t node = 0; node < graph.nodes(); node++) {
    if (reached[static_cast<size_t>(node)] != 0) continue;
    const size_t cell = static_cast<size_t>(home[static_cast<size_t>(node)]);
    mates.clear();
    for (int32_t i = homes.offsets[cell]; i < homes.offsets[cell + 1] && mates.size() < 512; i++) {
      const int32_t mate = homes.members[static_cast<size_t>(i)];
      if (reached[static_cast<size_t>(mate)] != 0 && graph.links.thread(mate) == GraphLinks::kNone) mates.push_back(mate);
    }
    int32_t host = last;
    if (!mates.empty()) {
      keys.read(self.data(), node);
      scores.resize(mates.size());
      keys.score(scores.data(), self.data(), 1, mates.data(), static_cast<int32_t>(mates.size()));
      host = mates[static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin())];
    }
    while (graph.links.thread(host) != GraphLinks::kNone) host = graph.links.thread(host);
    graph.links.edit(host)[graph.links.slots() - 1] = node;
    reached[static_cast<size_t>(node)] = 1;
    last = node;
    queue.push_back(node);
    reach(graph.links, reached, queue, parents->data());
  }
}

struct Calibration {
  double recall, scored;
};

// Means over held-out queries, one after the other as heads of a group would not be.
Calibration try_width(const Graph& graph, const IndexIsa& isa, const GraphKeys& keys, const std::vector<float>& held_out,
                      const Neighbours& truth, int32_t width, const RunTasks& run) {
  std::vector<int64_t> found(static_cast<size_t>(truth.queries)), scored(found.size());
  constexpr int32_t kTask = 8;
  run((truth.queries + kTask - 1) / kTask, [&](int32_t task) {
    GraphSearch search;
    std::vector<int32_t> got;
    for (int32_t i = task * kTask; i < std::min(truth.queries, (task + 1) * kTask); i++) {
      search_graph(search, isa, graph, keys, held_out.data() + static_cast<size_t>(i) * static_cast<size_t>(keys.dim()), 1, width);
      search.best(got, 0, truth.k);
      std::sort(got.begin(), got.end());
      for (int32_t j = 0; j < truth.k; j++) {
        found[static_cast<size_t>(i)] += std::binary_search(got.begin(), got.end(), truth.of(i)[j] - keys.begin());
      }
      scored[static_cast<size_t>(i)] = static_cast<int64_t>(search.scored().size());
    }
  });
  const double queries = truth.queries;
  return {static_cast<double>(std::accumulate(found.begin(), found.end(), int64_t{0})) / (queries * truth.k),
          static_cast<double>(std::accumulate(scored.begin(), scored.end(), int64_t{0})) / queries};
}

// Width by width, until enough of the exact best keys of held-out queries is found; then the width between the last two that a
// straight line says, tried itself.
void calibrate(Graph& graph, const IndexIsa& isa, const GraphKeys& keys, const GraphOptions& options,
               const std::vector<float>& held_out, const Neighbours& truth, const RunTasks& run) {
  graph.ef = options.ef > 0 ? options.ef : options.k;
  if (truth.queries == 0) {
    graph.expected_recall = __builtin_nan("");
    return;
  }
  constexpr int32_t kMostWidth = 4096, kStep = 16;
  const auto take = [&](int32_t width) {
    const Calibration c = try_width(graph, isa, keys, held_out, truth, width, run);
    graph.ef = width, graph.expected_recall = c.recall, graph.expected_scored = c.scored;
  };
  take(std::max(graph.ef, truth.k));
  // A width that scores half of the keys has lost to scanning them all.
  while (options.ef == 0 && graph.expected_recall < options.recall && graph.ef < kMostWidth &&
         graph.expected_scored <= keys.nodes() / 2.0) {
    int32_t below = graph.ef;
    double had = graph.expected_recall;
    take(std::min(kMostWidth, below + (below / 4 + kStep - 1) / kStep * kStep));
    if (graph.expected_recall < options.recall) continue;
    // Recall bends: what lies on the line between two widths is more than enough, so that the next guess lies below it.
    Calibration enough = {graph.expected_recall, graph.expected_scored};
    int32_t width = graph.ef;
    while (width - below > kStep) {
      const double share = (options.recall - had) / (enough.recall - had);
      const int32_t guess = below + static_cast<int32_t>(std::ceil(share * (width - below) / kStep)) * kStep;
      take(std::min(std::max(guess, below + kStep), width - kStep));
      if (graph.expected_recall < options.recall) below = graph.ef, had = graph.expected_recall;
      else width = graph.ef, enough = {graph.expected_recall, graph.expected_scored};
    }
    graph.ef = width, graph.expected_recall = enough.recall, graph.expected_scored = enough.scored;
    return;
  }
}

}  // namespace

int32_t slots_for(int32_t m, int32_t dim) {
  const int32_t lines = (m + 15) / 16 * 16, room = 8 * m - static_cast<int32_t>(GraphCodes::row_bytes_of(dim)) - 24;
  return std::max({4, m / 2, std::min(lines, room / 4)});
}

std::vector<int32_t> homes_of(const ListTable& homes, int32_t nodes) {
  std::vector<int32_t> home(static_cast<size_t>(nodes));
  for (int32_t c = 0; c < homes.count(); c++) {
    for (int32_t i = homes.offsets[static_cast<size_t>(c)]; i < homes.offsets[static_cast<size_t>(c) + 1]; i++) {
      home[static_cast<size_t>(homes.members[static_cast<size_t>(i)])] = c;
    }
  }
  return home;
}

void search_graph(GraphSearch& search, const IndexIsa& isa, const Graph& graph, const GraphKeys& keys, const float* q, int32_t group,
                  int32_t width, bool exact) {
  search.start(graph.codes, *isa.graph, q, group, width);
  std::vector<int32_t> roots;
  for (int32_t g = 0; g < group; g++) {
    graph.entries->find(roots, *isa.panels, q + static_cast<size_t>(g) * static_cast<size_t>(keys.dim()), graph.starts,
                        graph.newcomers);
  }
  search.offer(roots.data(), static_cast<int32_t>(roots.size()));
  search.run(graph.links);
  if (exact) search.finish(keys, q);
}

std::shared_ptr<Graph> build_graph(const IndexIsa& isa, const GraphKeys& keys, const GraphOptions& options,
                                   const ListTable& homes, const std::vector<float>& training, const std::vector<float>& held_out,
                                   const RunTasks& run, GraphWiring wire) {
  const int32_t n = keys.nodes(), dim = keys.dim();
  const auto count = [&](const std::vector<float>& q) { return static_cast<int32_t>(q.size() / static_cast<size_t>(dim)); };
  auto graph = std::make_shared<Graph>(slots_for(options.m, dim));
  graph->links.resize(n);
  graph->codes.fit(keys, training);
  graph->codes.append(keys, run);
  const Neighbours nearest = nearest_keys(isa, run, keys.rows(), keys.head(), keys.begin(), keys.begin() + n, training.data(),
                                          count(training), options.nq);
  const Neighbours truth = nearest_keys(isa, run, keys.rows(), keys.head(), keys.begin(), keys.begin() + n, held_out.data(),
                                        count(held_out), options.k);
  graph->starts = options.entries;
  graph->entries = make_entries(isa, training, nearest, keys, options.seed, run);
  wire(graph->links, {isa, keys, options, homes, training, nearest, run});
  connect(*graph, keys, homes);
  graph->built = n;
  calibrate(*graph, isa, keys, options, held_out, truth, run);
  return graph;
}

std::vector<int32_t> unreachable_nodes(const Graph& graph) {
  std::vector<char> reached(static_cast<size_t>(graph.nodes()));
  std::vector<int32_t> queue = roots_of(graph, reached), missing;
  reach(graph.links, reached, queue, nullptr);
  for (int32_t i = 0; i < graph.nodes(); i++) {
    if (reached[static_cast<size_t>(i)] == 0) missing.push_back(i);
  }
  return missing;
}

}  // namespace kvasir
