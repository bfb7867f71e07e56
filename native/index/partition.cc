#include "partition.h"

#include <algorithm>

#include "byte_panels.h"
#include "graph_build.h"
#include "graph_kernels.h"

namespace kvasir {
namespace {

constexpr int32_t kTaskLists = 96;

// Of each routed list the ids of [from.keys, source.keys) that belong to it.
std::vector<std::vector<int32_t>> above_thresholds(const Partition& from, const PartitionSource& source, const RunTasks& run) {
  const int32_t first = from.keys, count = source.keys - first, lists = from.routed.count();
  const BytePanels keys = key_panels(*source.isa, run, *source.rows, source.head, source.begin + first, count);
  const BytePanels::Terms routers = keys.terms(from.routed.centroids.unpack().data(), nullptr, lists);
  std::vector<std::vector<int32_t>> more(static_cast<size_t>(lists));
  run((lists + kTaskLists - 1) / kTaskLists, [&](int32_t task) {
    const int32_t start = task * kTaskLists, some = std::min(kTaskLists, lists - start);
    std::vector<float> scores(static_cast<size_t>(some) * kPanelRows);
    float kept[kPanelRows];
    int32_t ids[kPanelRows];
    for (int32_t p = 0; p < keys.panels(); p++) {
      keys.dot(*source.isa->bytes, scores.data(), routers, start, some, p);
      for (int32_t i = 0; i < some; i++) {
        const size_t list = static_cast<size_t>(start + i);
        const int32_t above = source.isa->graph->above(kept, ids, scores.data() + i * kPanelRows, from.thresholds[list], p * kPanelRows);
        for (int32_t j = 0; j < above && ids[j] < count; j++) more[list].push_back(first + ids[j]);
      }
    }
  });
  return more;
}

}  // namespace

void Partition::sketch(std::shared_ptr<const GraphCodes> of_keys) {
  sketches = std::move(of_keys);
  router_sketches = nullptr;
  plain = nullptr;
  if (sketches == nullptr) return;
  router_sketches = GraphCodes::of_rows(routed.centroids.unpack(), routed.centroids.dim());
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
  if (sketches != nullptr) bytes += sketches->bytes() + router_sketches->bytes() + plain->bytes();
  return bytes;
}

std::shared_ptr<Partition> extend_homes(const Partition& from, const PartitionSource& source, const RunTasks& run) {
  const int32_t first = from.keys, count = source.keys - first;
  auto grown = std::make_shared<Partition>(from);
  if (count <= 0) return grown;
  std::vector<float> means = from.homes.centroids.unpack();
  move_to_metric(from.metric, source, means, from.homes.count());
  const Nearest cells(means.data(), from.homes.count(), source.dim, false);
  const BytePanels moved(run, count, source.dim, [&](float* out, int32_t start, int32_t some) {
    read_moved(out, from.metric, source, first + start, some);
  });
  std::vector<int32_t> home(static_cast<size_t>(count));
  moved.nearest(*source.isa->bytes, run, home.data(), moved.terms(means.data(), cells.offsets.data(), from.homes.count()));
  std::vector<std::vector<int32_t>> more(static_cast<size_t>(from.homes.count()));
  for (int32_t i = 0; i < count; i++) more[static_cast<size_t>(home[static_cast<size_t>(i)])].push_back(first + i);
  grown->homes.append(more);
  grown->keys = source.keys;
  return grown;
}

std::shared_ptr<Partition> extend(const Partition& from, const PartitionSource& source, const RunTasks& run) {
  std::shared_ptr<Partition> grown = extend_homes(from, source, run);
  if (source.keys <= from.keys) return grown;
  if (from.routed.count() > 0) grown->routed.append(above_thresholds(from, source, run));
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
