#include "partition.h"

#include <algorithm>

#include "graph_build.h"

namespace kvasir {
namespace {

constexpr int32_t kTaskKeys = 256;
constexpr size_t kStretch = 64;  // lists that are looked at together: most let no key in

}  // namespace

template <class Id>
void Lists<Id>::append(const std::vector<std::vector<int32_t>>& more, int32_t keys) {
  const int32_t wide = std::max(1, (keys + (1 << kBlockBits) - 1) >> kBlockBits);
  size_t added = 0;
  for (const auto& ids : more) added += ids.size();
  std::vector<Id> all;
  std::vector<int32_t> at;
  all.reserve(members.size() + added);
  at.reserve(more.size() * static_cast<size_t>(wide) + 1);
  for (size_t list = 0; list < more.size(); list++) {
    size_t next = 0;
    for (int32_t block = 0; block < wide; block++) {
      at.push_back(static_cast<int32_t>(all.size()));
      if (block < blocks && !offsets.empty()) {
        const size_t old = list * static_cast<size_t>(blocks) + static_cast<size_t>(block);
        all.insert(all.end(), members.begin() + offsets[old], members.begin() + offsets[old + 1]);
      }
      for (; next < more[list].size() && more[list][next] >> kBlockBits == block; next++) {
        all.push_back(static_cast<Id>(more[list][next] & ((1 << kBlockBits) - 1)));
      }
    }
  }
  at.push_back(static_cast<int32_t>(all.size()));
  blocks = wide;
  offsets = std::move(at);
  members = std::move(all);
}

template struct Lists<int32_t>;
template struct Lists<uint16_t>;

size_t Partition::bytes() const {
  return homes.bytes() + routed.bytes() + metric.bytes() +
         (graph == nullptr ? 0 : graph->bytes()) + (deviations.size() + thresholds.size()) * sizeof(float);
}

std::shared_ptr<Partition> extend(const Partition& from, const PartitionSource& source, const RunTasks& run) {
  const int32_t first = from.keys, count = source.keys - first;
  if (count <= 0) return std::make_shared<Partition>(from);
  const size_t dim = static_cast<size_t>(source.dim), lists = static_cast<size_t>(from.routed.count());
  const PanelKernels& kernels = *source.isa->panels;
  auto grown = std::make_shared<Partition>(from);
  const Panels& routers = from.routed.centroids;
  std::vector<float> means = from.homes.centroids.unpack();
  move_to_metric(from.metric, source, means, from.homes.count());
  const Nearest cells(means.data(), from.homes.count(), source.dim, false);
  const int32_t tasks = (count + kTaskKeys - 1) / kTaskKeys;
  std::vector<int32_t> home(static_cast<size_t>(count));
  std::vector<std::vector<std::pair<int32_t, int32_t>>> found(static_cast<size_t>(tasks));  // (list, id)
  run(tasks, [&](int32_t task) {
    const int32_t start = task * kTaskKeys, some = std::min(kTaskKeys, count - start);
    std::vector<float> keys(static_cast<size_t>(some) * dim);
    source.rows->read_keys(keys.data(), source.head, source.begin + first + start, some);
    std::vector<float> scores(routers.width() * static_cast<size_t>(some));
    if (lists > 0) routers.dot(kernels, scores.data(), keys.data(), some);
    for (int32_t i = 0; i < some; i++) {
      const float* row = scores.data() + static_cast<size_t>(i) * routers.width();
      for (size_t from_list = 0; from_list < lists; from_list += kStretch) {
        const size_t to = std::min(lists, from_list + kStretch);
        int32_t passed = 0;
        for (size_t c = from_list; c < to; c++) passed += row[c] >= from.thresholds[c];
        for (size_t c = from_list; passed > 0 && c < to; c++) {
          if (row[c] >= from.thresholds[c]) {
            found[static_cast<size_t>(task)].push_back({static_cast<int32_t>(c), first + start + i});
          }
        }
      }
    }
    move_to_metric(from.metric, source, keys, some);
    cells.find(kernels, home.data() + start, nullptr, keys.data(), some);
  });
  std::vector<std::vector<int32_t>> more(static_cast<size_t>(from.homes.count()));
  for (int32_t i = 0; i < count; i++) more[static_cast<size_t>(home[static_cast<size_t>(i)])].push_back(first + i);
  grown->homes.append(more, source.keys);
  if (lists > 0) {
    more.assign(lists, {});
    for (const auto& pairs : found) {
      for (const auto& [list, id] : pairs) more[static_cast<size_t>(list)].push_back(id);
    }
    grown->routed.append(more, source.keys);
  }
  grown->keys = source.keys;
  if (from.graph != nullptr) {
    const GraphKeys nodes(source.isa->graph, *source.rows, source.head, source.begin, source.keys);
    grown->graph = insert_nodes(*source.isa, *from.graph, nodes, grown->homes, run);
  }
  return grown;
}

}  // namespace kvasir
