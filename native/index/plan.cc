#include "plan.h"

#include <algorithm>
#include <cmath>

#include "graph_build.h"
#include "lists_build.h"

namespace kvasir {
namespace {

constexpr int32_t kCounted = 32;  // held-out positions whose searches are counted
constexpr double kError = 0.05;   // of the samples that are counted

}  // namespace

HeldOut::HeldOut(const PartitionInput& in, int32_t wanted, int32_t ahead, int32_t horizon) {
  const PartitionSource& source = in.source;
  const int32_t end = source.begin + source.keys, group = in.shape->group();
  queries = in.samples->moved(*in.shape, source.head, end + ahead, horizon, kHeldOut, true);
  const size_t width = static_cast<size_t>(group) * static_cast<size_t>(source.dim), all = queries.size() / width;
  const size_t some = std::min<size_t>(all, kCounted);
  queries.erase(queries.begin(), queries.end() - static_cast<std::ptrdiff_t>(some * width));
  positions = static_cast<int32_t>(some);
  k = std::min(wanted, source.keys);
  best = nearest_keys(*source.isa, *in.run, *source.rows, source.head, source.begin, end, queries.data(), positions * group, k);
}

const char* Choice::structure() const { return partition->graph != nullptr ? "graph" : "lists"; }

double Trial::scan(bool sample) const {
  const int32_t keys = input.source.keys;
  return sample ? cost.scan_sample + cost.scan_sample_key * keys : cost.scan_best + cost.scan_best_key * keys;
}

Choice Trial::of(const Partition& partition, const char* name) const {
  Choice c;
  c.partition = &partition;
  c.name = name;
  c.best = count(partition, false, &c.recall);
  double unused;
  c.sample = count(partition, true, &unused);
  return c;
}

Choice Trial::again(const Choice& like, const Partition& partition) const {
  Choice c = like;
  c.partition = &partition;
  c.best = count(partition, false, &c.recall);
  return c;
}

double Trial::judge(Choice& c, double recall, double worth) const {
  const double best = c.best.predicted / scan(false), sample = c.sample.predicted / scan(true);
  c.serves_best = c.recall >= recall && best < worth;
  c.serves_samples = sample < worth;
  return (c.serves_best ? best : 1) + (c.serves_samples ? sample : 1);
}

Choice Trial::better(Choice a, Choice b, double recall, double worth) const {
  const double of_a = judge(a, recall, worth), of_b = judge(b, recall, worth);
  return of_b < of_a ? b : a;
}

// Searches as decode will.
Work Trial::count(const Partition& partition, bool sample, double* recall) const {
  const LayerShape& shape = *input.shape;
  const PartitionSource& source = input.source;
  const int32_t group = shape.group(), first = source.head * group;
  const size_t width = static_cast<size_t>(group) * static_cast<size_t>(source.dim);
  Work work;
  *recall = 0;
  if (held.positions == 0) return {static_cast<double>(source.keys), HUGE_VAL};
  PartitionSearch searcher;
  std::vector<float> q(static_cast<size_t>(shape.heads) * static_cast<size_t>(source.dim));
  std::vector<float> exact(static_cast<size_t>(shape.heads), -INFINITY), errors(exact.size());
  const int32_t capacity = sample ? 0 : held.k;
  std::vector<int32_t> counts(exact.size()), tokens(exact.size() * static_cast<size_t>(capacity));
  std::vector<float> bias(tokens.size());
  // As PartitionIndex searches.
  const SearchScope scope = {source.isa, &shape, source.rows, input.codes, &partition, source.head, source.keys,
                             sample && partition.graph == nullptr ? 1 : 0, lift};
  double found = 0;
  for (int32_t i = 0; i < held.positions; i++) {
    std::copy_n(held.queries.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(i) * width), width,
                q.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(source.head) * width));
    Goal goal;
    goal.kind = sample ? Goal::kError : Goal::kTopk;
    goal.value = sample ? kError : held.k;
    goal.draw = static_cast<uint32_t>(i);
    Report report;
    const Hits hits = {capacity, tokens.data(), bias.data(), counts.data(), errors.data()};
    searcher.run(scope, {q.data(), exact.data(), goal}, hits, report);
    work.keys += report.keys_scored / held.positions;
    for (int32_t g = 0; !sample && g < group; g++) {
      const int32_t* row = tokens.data() + static_cast<size_t>(first + g) * static_cast<size_t>(capacity);
      const int32_t* want = held.best.of(i * group + g);
      const int32_t* end = row + counts[static_cast<size_t>(first + g)];
      for (int32_t j = 0; j < held.best.k; j++) found += std::binary_search(row, end, want[j]);
    }
  }
  *recall = found / (static_cast<double>(held.positions) * group * held.best.k);
  const bool walked = partition.graph != nullptr;
  const double centroids = walked ? partition.graph->entries->centroids.count() : partition.lists();
  const bool sketched = partition.sketches != nullptr;
  double search = sketched ? cost.sketched_best : cost.lists_best, key = sketched ? cost.sketched_best_key : cost.lists_best_key;
  if (sample) search = cost.lists_sample, key = cost.lists_sample_key;
  if (walked) search = sample ? cost.walked_sample : cost.walked_best;
  if (walked) key = sample ? cost.walked_sample_key : cost.walked_best_key;
  work.predicted = search + key * work.keys + cost.centroid * (centroids + (sample ? partition.homes.count() : 0)) +
                   (sample ? cost.scan_sample_key : cost.scan_best_key) * fresh;
  return work;
}

}  // namespace kvasir
