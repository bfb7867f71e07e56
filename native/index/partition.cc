#include "partition.h"

#include <algorithm>

#include "graph_build.h"

namespace kvasir {
namespace {

constexpr int32_t kTaskKeys = 256;

}  // namespace

void ListTable::append(const std::vector<std::vector<int32_t>>& more) {
  size_t added = 0;
  for (const auto& ids : more) added += ids.size();
  std::vector<int32_t> all;
  all.reserve(members.size() + added);
  for (size_t c = 0; c < more.size(); c++) {
    const auto first = members.begin() + offsets[c], last = members.begin() + offsets[c + 1];
    // The offset of c was taken already: those behind it move only when reached.
    offsets[c] = static_cast<int32_t>(all.size());
    all.insert(all.end(), first, last);
    all.insert(all.end(), more[c].begin(), more[c].end());
  }
  offsets.back() = static_cast<int32_t>(all.size());
  members = std::move(all);
}

size_t Partition::bytes() const {
  return homes.bytes() + routed.bytes() + metric.bytes() + cells.panels.bytes() +
         (graph == nullptr ? 0 : graph->bytes()) + (deviations.size() + cells.offsets.size() + thresholds.size()) * sizeof(float);
}

std::shared_ptr<const Partition> extend(const Partition& from, const PartitionSource& source, const RunTasks& run) {
  const int32_t first = from.keys, count = source.keys - first;
  if (count <= 0) return std::make_shared<Partition>(from);
  const size_t dim = static_cast<size_t>(source.dim), lists = static_cast<size_t>(from.routed.count());
  const PanelKernels& kernels = *source.isa->panels;
  const int32_t tasks = (count + kTaskKeys - 1) / kTaskKeys;
  std::vector<int32_t> home(static_cast<size_t>(count));
  std::vector<std::vector<std::pair<int32_t, int32_t>>> found(static_cast<size_t>(tasks));  // (list, id)
  run(tasks, [&](int32_t task) {
    const int32_t start = task * kTaskKeys, some = std::min(kTaskKeys, count - start);
    std::vector<float> keys(static_cast<size_t>(some) * dim);
    source.rows->read_keys(keys.data(), source.head, source.begin + first + start, some);
    std::vector<float> scores(from.routed.centroids.width() * static_cast<size_t>(some));
    if (lists > 0) from.routed.centroids.dot(kernels, scores.data(), keys.data(), some);
    for (int32_t i = 0; i < some; i++) {
      const float* row = scores.data() + static_cast<size_t>(i) * from.routed.centroids.width();
      for (size_t c = 0; c < lists; c++) {
        if (row[c] >= from.thresholds[c]) {
          found[static_cast<size_t>(task)].push_back({static_cast<int32_t>(c), first + start + i});
        }
      }
    }
    move_to_metric(from, source, keys, some);
    from.cells.find(kernels, home.data() + start, nullptr, keys.data(), some);
  });
  auto grown = std::make_shared<Partition>(from);
  std::vector<std::vector<int32_t>> more(static_cast<size_t>(from.homes.count()));
  for (int32_t i = 0; i < count; i++) more[static_cast<size_t>(home[static_cast<size_t>(i)])].push_back(first + i);
  grown->homes.append(more);
  if (lists > 0) {
    more.assign(lists, {});
    for (const auto& pairs : found) {
      for (const auto& [list, id] : pairs) more[static_cast<size_t>(list)].push_back(id);
    }
    grown->routed.append(more);
  }
  grown->keys = source.keys;
  if (from.graph != nullptr) {
    const GraphKeys nodes(source.isa->graph, *source.rows, source.head, source.begin, source.keys);
    grown->graph = insert_nodes(*source.isa, *from.graph, nodes, grown->homes, run);
  }
  return grown;
}

}  // namespace kvasir
