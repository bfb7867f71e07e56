// Type "graph": what its parts promise, on keys that queries see otherwise than they lie.
#include <atomic>
#include <thread>

#include "graph_build.h"
#include "graph_prune.h"
#include "index_fixture.h"
#include "knn.h"
#include "partition.h"

using namespace kvasir_test;
using namespace kvasir;

namespace {

constexpr int32_t kDim = 24;

void on_three_threads(int32_t count, const std::function<void(int32_t)>& body) {
  std::atomic<int32_t> next{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; t++) {
    threads.emplace_back([&] {
      for (int32_t i; (i = next.fetch_add(1)) < count;) body(i);
    });
  }
  for (std::thread& t : threads) t.join();
}

// Keys of 16 topics around a common mean; queries ask for a topic by its first dimensions and lie elsewhere.
struct World {
  Random random{5};
  Layer layer;
  std::vector<float> topics;
  Rows rows;
  const IndexIsa& isa = find_index_isa("auto");

  World(int32_t tokens, int32_t start) : layer(2, 1, tokens, kDim, start), topics(random.normals(16 * kDim)) {
    layer.fill(random);
    for (int32_t t = 0; t < tokens; t++) {
      for (int32_t d = 0; d < kDim; d++) layer.key(0, t)[d] += topics[size_t(t % 16 * kDim + d)] + 3;
    }
    const int32_t desc[KVASIR_SEGMENT_DESC] = {start, KVASIR_F32, 1, tokens, kDim};
    rows.append(std::make_shared<const Segment>(desc, layer.keys, layer.values, nullptr, nullptr));
  }
  std::vector<float> queries(int32_t count) {
    std::vector<float> q = random.normals(size_t(count * kDim));
    for (int32_t i = 0; i < count; i++) {
      const size_t topic = size_t(std::fabs(random.normals(1)[0]) * 1000) % 16;
      for (size_t d = 0; d < kDim; d++) q[size_t(i) * kDim + d] = 0.5f * q[size_t(i) * kDim + d] + topics[topic * kDim + d] - (d < 4 ? 2.0f : 0.0f);
    }
    return q;
  }
};

struct Built {
  GraphKeys keys;
  std::shared_ptr<const Partition> homes;
  std::shared_ptr<Graph> graph;

  Built(World& w, int32_t nodes, const std::vector<float>& training, const std::vector<float>& held_out, const RunTasks& run)
      : keys(w.isa.graph, w.rows, 0, w.layer.start, nodes) {
    auto made = std::make_shared<Partition>();
    build_homes(*made, {&w.isa, &w.rows, 0, kDim, w.layer.start, nodes}, run, std::max(1, nodes / 128), training.data(),
                int32_t(training.size()) / kDim, 4, 1);
    GraphOptions options;
    options.m = 16;
    options.k = 20;
    graph = build_graph(w.isa, keys, options, made->homes, training, held_out, run);
    homes = made;
  }
};

bool same(const Graph& a, const Graph& b, int32_t nodes) {
  for (int32_t i = 0; i < nodes; i++) {
    if (!std::equal(a.links.of(i), a.links.of(i) + a.links.slots(), b.links.of(i))) return false;
  }
  return a.ef == b.ef && a.entries->nodes == b.entries->nodes;
}

// Share of the best k of [0, n) among the first k of a search's queue, and keys scored.
std::pair<double, double> judge(World& w, const Graph& graph, const GraphKeys& keys, const std::vector<float>& queries, int32_t k) {
  const int32_t count = int32_t(queries.size()) / kDim;
  const Neighbours truth = nearest_keys(w.isa, run_inline, w.rows, 0, keys.begin(), keys.begin() + keys.nodes(), queries.data(), count, k);
  GraphSearch search;
  double found = 0, scored = 0;
  for (int32_t i = 0; i < count; i++) {
    search_graph(search, w.isa, graph, keys, queries.data() + size_t(i) * kDim, 1, graph.ef);
    scored += double(search.scored().size()) / count;
    std::vector<int32_t> best;
    search.best(best, 0, k);
    for (int32_t j = 0; j < k; j++) {
      for (int32_t node : best) found += truth.of(i)[j] == node + keys.begin();
    }
    for (int32_t r = 1; r < search.queued(0); r++) EXPECT(search.queue(0)[r - 1].score >= search.queue(0)[r].score);
  }
  return {found / (double(count) * k), scored};
}

}  // namespace

TEST("a graph finds what it was calibrated for, reaches every key, and is the same on any threads") {
  World w(5000, 70);
  const std::vector<float> training = w.queries(800), held_out = w.queries(64);
  const Built one(w, 5000, training, held_out, run_inline), many(w, 5000, training, held_out, on_three_threads);
  EXPECT(same(*one.graph, *many.graph, 5000));
  EXPECT(one.graph->expected_recall >= 0.95);
  const auto [recall, scored] = judge(w, *one.graph, one.keys, w.queries(100), 20);
  EXPECT_NEAR(recall, one.graph->expected_recall, 0.03);
  EXPECT_NEAR(scored, one.graph->expected_scored, 0.2 * scored);
  EXPECT(scored < 0.4 * 5000);
  EXPECT_EQ(unreachable_nodes(*one.graph).size(), size_t(0));
  EXPECT_EQ(one.graph->links.slots(), 16);
  EXPECT(double(one.graph->bytes()) <= 8.0 * 16 * 5120);  // whole blocks
}

TEST("inserted keys are found, and versions of before stay as they were") {
  World w(5000, 0);
  const std::vector<float> training = w.queries(800), held_out = w.queries(64);
  const Built old(w, 4000, training, held_out, run_inline), twin(w, 4000, training, held_out, run_inline);
  std::shared_ptr<const Partition> homes = old.homes;
  std::shared_ptr<const Graph> grown = old.graph;
  for (int32_t to : {4300, 4301, 5000}) {
    homes = extend(*homes, {&w.isa, &w.rows, 0, kDim, 0, to}, on_three_threads);
    grown = insert_nodes(w.isa, *grown, GraphKeys(w.isa.graph, w.rows, 0, 0, to), homes->homes, on_three_threads);
    EXPECT_EQ(grown->nodes(), to);
    EXPECT_EQ(unreachable_nodes(*grown).size(), size_t(0));
  }
  EXPECT(same(*old.graph, *twin.graph, 4000));
  EXPECT(!same(*old.graph, *grown, 4000));
  const Built fresh(w, 5000, training, held_out, run_inline);
  const std::vector<float> queries = w.queries(100);
  const GraphKeys all(w.isa.graph, w.rows, 0, 0, 5000);
  const double before = judge(w, *fresh.graph, all, queries, 20).first, after = judge(w, *grown, all, queries, 20).first;
  EXPECT(after > before - 0.02);
}

TEST("copies of one key make a graph that still reaches all of them") {
  World w(3000, 0);
  for (int32_t t = 0; t < 3000; t++) {
    for (int32_t d = 0; d < kDim; d++) w.layer.key(0, t)[d] = 1;
  }
  const std::vector<float> training = w.queries(100), held_out = w.queries(16);
  const Built built(w, 2000, training, held_out, run_inline);
  EXPECT_EQ(unreachable_nodes(*built.graph).size(), size_t(0));
  const auto homes = extend(*built.homes, {&w.isa, &w.rows, 0, kDim, 0, 3000}, run_inline);
  const auto grown = insert_nodes(w.isa, *built.graph, GraphKeys(w.isa.graph, w.rows, 0, 0, 3000), homes->homes, run_inline);
  EXPECT_EQ(unreachable_nodes(*grown).size(), size_t(0));
}

TEST("pruning keeps no neighbour that is reached through a nearer one") {
  World w(300, 0);
  const GraphKeys keys(w.isa.graph, w.rows, 0, 0, 300);
  std::vector<int32_t> candidates, out(12);
  for (int32_t i = 1; i < 300; i++) candidates.push_back(i);
  GraphPruner pruner;
  const int32_t count = pruner.select(out.data(), keys, 0, candidates.data(), 299, 12);
  EXPECT_EQ(count, 12);
  const auto square = [&](int32_t a, int32_t b) {
    double sum = 0;
    for (int32_t d = 0; d < kDim; d++) sum += std::pow(double(w.layer.key(0, a)[d]) - double(w.layer.key(0, b)[d]), 2);
    return sum;
  };
  int32_t nearest = 1;
  for (int32_t i = 2; i < 300; i++) nearest = square(0, i) < square(0, nearest) ? i : nearest;
  EXPECT_EQ(out[0], nearest);
  // The rule by its definition: greedy over all candidates, nearest first.
  std::sort(candidates.begin(), candidates.end(), [&](int32_t a, int32_t b) { return square(0, a) < square(0, b); });
  std::vector<int32_t> want;
  for (int32_t c : candidates) {
    bool hidden = false;
    for (int32_t r : want) hidden |= square(c, r) < square(0, c);
    if (!hidden && want.size() < 12) want.push_back(c);
  }
  for (size_t i = 0; i < want.size(); i++) EXPECT_EQ(out[i], want[i]);
}

TEST("an index of type graph says what it found and at what price") {
  World w(6000, 9);
  w.layer.heads = 2;
  IndexContext c("threads=2,builders=2");
  const kvasir_index index = c.index("graph:k=20,recall=0.9,m=16", w.layer, 0.2);
  const std::vector<float> queries = w.queries(12000);
  EXPECT_INDEX_OK(index_add(c, index, 9, 6000, queries.data()));
  EXPECT_INDEX_OK(kvasir_index_commit(c, index));
  const double top[KVASIR_GOAL] = {KVASIR_GOAL_TOPK, 20, KVASIR_TAIL_NONE, 1};
  const std::vector<float> q = w.queries(2), nothing(2, -INFINITY);
  const Found scanned = search(c, index, w.layer, top, q.data(), nothing.data());
  EXPECT_EQ(int32_t(scanned.report[0]), KVASIR_CERTIFICATE_EXACT);  // not taken over yet: scanned
  EXPECT_INDEX_OK(kvasir_index_settle(c, index));
  double found = 0, scored = 0;
  for (int32_t i = 0; i < 40; i++) {
    const std::vector<float> two = w.queries(2);
    const Found f = search(c, index, w.layer, top, two.data(), nothing.data());
    EXPECT_EQ(int32_t(f.report[0]), KVASIR_CERTIFICATE_CALIBRATED);
    EXPECT(f.report[4] >= 0.9);
    scored += f.report[1] / 40;
    const Neighbours truth = nearest_keys(w.isa, run_inline, w.rows, 0, 9, 6009, two.data(), 2, 20);
    for (int32_t g = 0; g < 2; g++) {
      EXPECT_EQ(f.counts[size_t(g)], 20);
      for (int32_t j = 0; j < 20; j++) {
        const int32_t* row = f.tokens.data() + size_t(g * f.capacity);
        found += std::count(row, row + 20, truth.of(g)[j]);
      }
    }
  }
  EXPECT(found / (40 * 2 * 20) >= 0.9);
  EXPECT(scored < 0.5 * 6000);
}
