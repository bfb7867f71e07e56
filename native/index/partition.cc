#include "partition.h"

#include <algorithm>

#include "byte_panels.h"
#include "byte_passed.h"
#include "graph_build.h"

namespace kvasir {
namespace {

constexpr int32_t kTaskLists = 96;

// Of each routed list the ids of the keys from from.keys on that belong to it.
std::vector<std::vector<int32_t>> above_thresholds(const Partition& from, const BytePanels& keys, const std::vector<float>& rows,
                                                   const PartitionSource& source, const RunTasks& run) {
  const int32_t first = from.keys, lists = from.routed.count();
  const BytePanels::Terms routers = keys.terms(rows.data(), nullptr, lists, kRouterShare);
  std::vector<std::vector<int32_t>> more(static_cast<size_t>(lists));
  run((lists + kTaskLists - 1) / kTaskLists, [&](int32_t task) {
    const int32_t start = task * kTaskLists, some = std::min(kTaskLists, lists - start);
    PassedColumns passed(some, 0);
    std::copy_n(from.thresholds.begin() + start, some, passed.thresholds.begin());
    for (int32_t p = 0; p < keys.panels(); p += PassedColumns::kPanels) {
      passed.pass(*source.isa, keys, routers, start, 0, some, p);
      for (int32_t i = 0; i < some; i++) {
        auto& to = more[static_cast<size_t>(start + i)];
        for (int32_t j = 0; j < passed.counts[static_cast<size_t>(i)]; j++) to.push_back(first + passed.ids(i)[j]);
        passed.counts[static_cast<size_t>(i)] = 0;
      }
    }
  });
  return more;
}

// The home of each key from from.keys on. A cell's mean goes twice through the metric so that keys need not go through it:
// |M k - M m|^2 = |M k|^2 - 2 (k . MT M m - |M m|^2 / 2).
std::vector<std::vector<int32_t>> nearest_homes(const Partition& from, const BytePanels& keys, const PartitionSource& source,
                                                const RunTasks& run) {
  const int32_t cells = from.homes.count();
  const size_t dim = static_cast<size_t>(source.dim);
  std::vector<float> means = from.homes.centroids.unpack();
  move_to_metric(from.metric, source, means, cells);
  std::vector<float> offsets(static_cast<size_t>(cells));
  for (size_t c = 0; c < offsets.size(); c++) {
    for (size_t d = 0; d < dim; d++) offsets[c] -= means[c * dim + d] * means[c * dim + d] / 2;
  }
  if (from.metric.count() > 0) {
    const std::vector<float> rows = from.metric.unpack();
    std::vector<float> columns(rows.size());
    for (size_t a = 0; a < dim; a++) {
      for (size_t b = 0; b < dim; b++) columns[a * dim + b] = rows[b * dim + a];
    }
    Panels back;
    back.pack(columns.data(), source.dim, source.dim);
    move_to_metric(back, source, means, cells);
  }
  std::vector<int32_t> home(static_cast<size_t>(keys.count()));
  keys.nearest(*source.isa->bytes, run, home.data(), keys.terms(means.data(), offsets.data(), cells));
  std::vector<std::vector<int32_t>> more(static_cast<size_t>(cells));
  for (int32_t i = 0; i < keys.count(); i++) more[static_cast<size_t>(home[static_cast<size_t>(i)])].push_back(from.keys + i);
  return more;
}

}  // namespace

void Partition::sketch(std::shared_ptr<const GraphCodes> of_keys) {
  sketches = std::move(of_keys);
  plain = nullptr;
  if (sketches == nullptr) return;
  auto ids = std::make_shared<ListTable>();
  ids->offsets.push_back(0);
  for (int32_t list = 0; list < routed.count(); list++) {
    routed.each(list, [&](int32_t id) { ids->members.push_back(id); });
    ids->offsets.push_back(static_cast<int32_t>(ids->members.size()));
  }
  plain = std::move(ids);
}

size_t Partition::bytes() const {
  size_t bytes = homes.bytes() + routed.bytes() + metric.bytes() + (deviations.size() + thresholds.size()) * sizeof(float);
  if (graph != nullptr) bytes += graph->bytes();
  if (sketches != nullptr) bytes += sketches->bytes() + plain->bytes();
  return bytes;
}

std::shared_ptr<Partition> extend_homes(const Partition& from, const PartitionSource& source, const RunTasks& run) {
  auto grown = std::make_shared<Partition>(from);
  const int32_t count = source.keys - from.keys;
  if (count <= 0) return grown;
  const BytePanels keys = key_panels(*source.isa, run, *source.rows, source.head, source.begin + from.keys, count);
  grown->homes.append(nearest_homes(from, keys, source, run));
  grown->keys = source.keys;
  return grown;
}

std::shared_ptr<Partition> extend(const Partition& from, const PartitionSource& source, const RunTasks& run) {
  auto grown = std::make_shared<Partition>(from);
  const int32_t count = source.keys - from.keys, lists = from.routed.count();
  if (count <= 0) return grown;
  const std::vector<float> routers = lists > 0 ? from.routed.routers->decode() : std::vector<float>();
  const std::vector<float> weights = mean_squares(routers.data(), lists, source.dim);
  const BytePanels keys = key_panels(*source.isa, run, *source.rows, source.head, source.begin + from.keys, count,
                                     lists > 0 ? weights.data() : nullptr);
  grown->homes.append(nearest_homes(from, keys, source, run));
  if (lists > 0) grown->routed.append(above_thresholds(from, keys, routers, source, run));
  grown->keys = source.keys;
  const GraphKeys nodes(source.isa->graph, *source.rows, source.head, source.begin, source.keys);
  if (from.graph != nullptr) grown->graph = insert_nodes(*source.isa, *from.graph, nodes, grown->homes, run);
  if (from.sketches != nullptr) {
    auto sketches = std::make_shared<GraphCodes>(from.sketches->next());
    sketches->append(nodes, run);
    grown->sketch(std::move(sketches));
  }
  return grown;
}

}  // namespace kvasir
