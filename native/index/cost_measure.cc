// Measures the costs of searches on generated keys, by running the searches that a planner chooses from.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cost.h"
#include "draw.h"
#include "error.h"
#include "flat_search.h"
#include "graph_build.h"
#include "knn.h"
#include "kvasir_index.h"
#include "partition_search.h"

namespace kvasir {
namespace {

constexpr int32_t kHeads = 4, kKeys = 16384;  // keys of several heads in rotation leave the caches nearest to the core
constexpr int32_t kRounds = 3;

// Of the thread: what else runs on the machine should not count.
double thread_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// Halves of magnitude 2^-4 to 1.
Rows make_rows(int32_t dim) {
  const size_t count = static_cast<size_t>(kHeads) * kKeys * static_cast<size_t>(dim);
  uint16_t* halves = static_cast<uint16_t*>(aligned_allocate(count * 2));
  if (halves == nullptr) fail(KVASIR_MEMORY, "Cannot measure costs: out of memory for %zu bytes", count * 2);
  for (size_t i = 0; i < count; i++) {
    const uint32_t bits = lowbias32(static_cast<uint32_t>(i));
    halves[i] = static_cast<uint16_t>((bits & 0x83ff) | (11 + (bits >> 16 & 3)) << 10);
  }
  kvasir_memory* memory = share_memory(halves, count * 2);
  const int32_t desc[KVASIR_SEGMENT_DESC] = {0, KVASIR_F16, kHeads, kKeys, dim};
  Rows rows;
  rows.append(std::make_shared<const Segment>(desc, memory, memory, nullptr, nullptr));
  memory->release(memory);
  return rows;
}

std::vector<float> make_floats(size_t count, uint32_t seed) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; i++) {
    values[i] = static_cast<float>(static_cast<int32_t>(lowbias32(static_cast<uint32_t>(i) + seed))) * 0x1p-31f;
  }
  return values;
}

// Lists of 128 random keys; cells of 128 keys in order.
Partition make_partition(int32_t dim, int32_t lists) {
  Partition p;
  p.keys = kKeys;
  p.recall = 1;
  p.routed.routers = GraphCodes::of_rows(make_floats(static_cast<size_t>(lists) * static_cast<size_t>(dim), 7), dim);
  std::vector<std::vector<int32_t>> members(static_cast<size_t>(lists));
  for (int32_t list = 0; list < lists; list++) {
    for (int32_t i = 0; i < 128; i++) {
      const uint32_t within = lowbias32(static_cast<uint32_t>(list * 128 + i)) % (kKeys / 128);
      members[static_cast<size_t>(list)].push_back(i * (kKeys / 128) + static_cast<int32_t>(within));
    }
  }
  p.routed.append(members);
  const int32_t cells = kKeys / 128;
  p.homes.centroids.pack(make_floats(static_cast<size_t>(cells) * static_cast<size_t>(dim), 8).data(), cells, dim);
  p.deviations.assign(static_cast<size_t>(cells), 0.1f);
  for (int32_t c = 0; c <= cells; c++) p.homes.offsets.push_back(c * 128);
  for (int32_t i = 0; i < kKeys; i++) p.homes.members.push_back(i);
  return p;
}

// A graph of random links, a few from each node: walks meet keys in no order, as on keys of a long text.
std::shared_ptr<const Graph> make_graph(const IndexIsa& isa, const Rows& rows, int32_t dim) {
  constexpr int32_t kSlots = 32, kLinks = 12, kCentroids = 16;
  const GraphKeys keys(isa.graph, rows, 0, 0, kKeys);
  auto graph = std::make_shared<Graph>(kSlots);
  graph->codes.fit(keys, make_floats(static_cast<size_t>(64 * dim), 5));
  graph->codes.append(keys, run_inline);
  graph->links.resize(kKeys);
  int32_t links[kLinks];
  for (int32_t node = 0; node < kKeys; node++) {
    for (int32_t i = 0; i < kLinks; i++) links[i] = static_cast<int32_t>(lowbias32(static_cast<uint32_t>(node * kLinks + i)) % kKeys);
    graph->links.set(node, links, kLinks);
  }
  auto entries = std::make_shared<GraphEntries>();
  entries->centroids.pack(make_floats(static_cast<size_t>(kCentroids * dim), 6).data(), kCentroids, dim);
  for (int32_t i = 0; i < kCentroids * GraphEntries::kKeys; i++) entries->nodes.push_back(i * (kKeys / kCentroids / GraphEntries::kKeys));
  entries->least.assign(kCentroids, 0.0f);
  graph->entries = std::move(entries);
  graph->parents = std::make_shared<std::vector<int32_t>>();
  return graph;
}

class Meter {
 public:
  Meter(const IndexIsa& isa, const Rows& rows, const Codes& codes, std::shared_ptr<const Graph> graph, int32_t dim, int32_t group)
      : rows_(rows), codes_(codes), graph_(std::move(graph)), pool_(1), scratch_(1), hits_(static_cast<size_t>(kHeads * group)) {
    environment_.isa = &isa;
    environment_.pool = &pool_;
    environment_.scratch = &scratch_;
    environment_.samples = &samples_;
    shape_.heads = kHeads * group;
    shape_.kv_heads = kHeads;
    shape_.head_dim = dim;
    shape_.scale = 2 / std::sqrt(static_cast<float>(dim));
    q_ = make_floats(static_cast<size_t>(shape_.heads) * static_cast<size_t>(dim), 99);
    tokens_.resize(static_cast<size_t>(shape_.heads) * 4096);
    bias_.resize(tokens_.size());
  }

  SearchCost run() {
    SearchCost cost;
    const Partition few = make_partition(shape_.head_dim, 128), many = make_partition(shape_.head_dim, 1024);
    for (bool sample : {false, true}) {
      goal_.kind = sample ? Goal::kError : Goal::kTopk;
      goal_.value = sample ? 0.05 : 100;
      // What a scan leaves to draw is of the exact part's mass; lists draw nothing, so that their slope is of what they visit.
      exact_.assign(static_cast<size_t>(shape_.heads), sample ? 12.0f : -INFINITY);
      const double short_scan = scan(kKeys / 4), long_scan = scan(kKeys);
      line(sample ? cost.scan_sample : cost.scan_best, sample ? cost.scan_sample_key : cost.scan_best_key, kKeys / 4, short_scan,
           kKeys, long_scan);
      double few_keys, more_keys, same_keys;
      const double few_lists = lists(few, 2, &few_keys), more_lists = lists(few, 12, &more_keys);
      if (!sample) cost.centroid = std::max(0.0, (lists(many, 2, &same_keys) - few_lists) / (many.routed.count() - few.routed.count()));
      double& base = sample ? cost.lists_sample : cost.lists_best;
      line(base, sample ? cost.lists_sample_key : cost.lists_best_key, few_keys, few_lists, more_keys, more_lists);
      base = std::max(0.0, base - cost.centroid * (few.routed.count() + (sample ? few.homes.count() : 0)));
      // The graph's codes are sketches, too.
      Partition other = few;
      if (!sample) {
        other.sketch(std::shared_ptr<const GraphCodes>(graph_, &graph_->codes));
        const double few_sketched = lists(other, 2, &few_keys), more_sketched = lists(other, 12, &more_keys);
        line(cost.sketched_best, cost.sketched_best_key, few_keys, few_sketched, more_keys, more_sketched);
        cost.sketched_best = std::max(0.0, cost.sketched_best - cost.centroid * few.routed.count());
      }
      other.graph = graph_;
      const double narrow = lists(other, 200, &few_keys), wide = lists(other, 600, &more_keys);
      double& walk = sample ? cost.walked_sample : cost.walked_best;
      line(walk, sample ? cost.walked_sample_key : cost.walked_best_key, few_keys, narrow, more_keys, wide);
      walk = std::max(0.0, walk - cost.centroid * (graph_->entries->centroids.count() + (sample ? few.homes.count() : 0)));
    }
    return cost;
  }

 private:
  static void line(double& base, double& slope, double x0, double y0, double x1, double y1) {
    slope = std::max(0.0, (y1 - y0) / (x1 - x0));
    base = std::max(0.0, y0 - slope * x0);
  }
  // Nanoseconds of a search of one head: the best round.
  template <class F>
  double best_round(F&& search) {
    double best = 1e9;
    for (int32_t round = 0; round < kRounds; round++) {
      const double start = thread_seconds();
      for (int32_t head = 0; head < kHeads; head++) search(head);
      best = std::min(best, (thread_seconds() - start) / kHeads);
    }
    return best * 1e9;
  }
  Hits hits() { return {4096, tokens_.data(), bias_.data(), hits_.data(), errors()}; }
  float* errors() {
    errors_.resize(hits_.size());
    return errors_.data();
  }
  double scan(int32_t keys) {
    return best_round([&](int32_t head) {
      Report report;
      scan_.run({&environment_, &shape_, &rows_, &codes_, keys}, &head, 1, {q_.data(), exact_.data(), goal_}, hits(), report);
    });
  }
  double lists(const Partition& partition, int32_t probes, double* keys) {
    return best_round([&](int32_t head) {
      Report report;
      const SearchScope scope = {environment_.isa, &shape_, &rows_, &codes_, &partition, head, kKeys, probes, 0};
      lists_.run(scope, {q_.data(), exact_.data(), goal_}, hits(), report);
      *keys = report.keys_scored;
    });
  }

  const Rows& rows_;
  const Codes& codes_;
  const std::shared_ptr<const Graph> graph_;
  Pool pool_;
  std::vector<Scratch> scratch_;
  SampleMemory samples_;
  Environment environment_;
  LayerShape shape_;
  Goal goal_;
  std::vector<float> q_, exact_, bias_, errors_;
  std::vector<int32_t> tokens_, hits_;
  FlatSearch scan_;
  PartitionSearch lists_;
};

}  // namespace

CostTable measure_costs(const IndexIsa& isa) {
  CostTable table;
  for (int dim = 0; dim < 3; dim++) {
    const Rows rows = make_rows(CostTable::kDims[dim]);
    const std::shared_ptr<const Graph> graph = make_graph(isa, rows, CostTable::kDims[dim]);
    for (int kind = 0; kind < CostTable::kKinds; kind++) {
      Codes codes(&isa, static_cast<Codes::Kind>(kind), kHeads, CostTable::kDims[dim]);
      codes.append(rows, 0, kKeys, nullptr);
      for (int group = 0; group < 2; group++) {
        table.measured(kind, dim, group) = Meter(isa, rows, codes, graph, CostTable::kDims[dim], CostTable::kGroups[group]).run();
      }
    }
  }
  return table;
}

}  // namespace kvasir
