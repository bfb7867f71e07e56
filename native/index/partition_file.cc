// Partitions in a saved index: complete, or refused.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "file.h"
#include "graph_build.h"
#include "partition_index.h"

namespace kvasir {
namespace {

[[noreturn]] void refuse(const std::string& section, const char* why) {
  fail(KVASIR_ARGUMENT, "Cannot open index: section \"%s\" %s", section.c_str(), why);
}

const float* finite_array(const FileReader& from, const std::string& name, size_t count) {
  const float* data = from.array<float>(name, count);
  for (size_t i = 0; i < count; i++) {
    if (!std::isfinite(data[i])) refuse(name, "holds a number that is not finite");
  }
  return data;
}

void save_panels(FileWriter& to, const std::string& name, const Panels& panels) {
  to.add(name, panels.data(), panels.bytes());
}

void restore_panels(Panels& panels, const FileReader& from, const std::string& name, int32_t count, int32_t dim) {
  const size_t width = (static_cast<size_t>(count) + kPanelRows - 1) / kPanelRows * kPanelRows;
  panels.restore(count, dim, finite_array(from, name, width * static_cast<size_t>(dim)));
}

void restore_offsets(std::vector<int32_t>& offsets, const FileReader& from, const std::string& name, int32_t count) {
  const int32_t* data = from.array<int32_t>(name, static_cast<size_t>(count) + 1);
  if (data[0] != 0) refuse(name, "does not begin at 0");
  for (int32_t i = 0; i < count; i++) {
    if (data[i + 1] < data[i]) refuse(name, "does not ascend");
  }
  offsets.assign(data, data + count + 1);
}

void save_homes(FileWriter& to, const std::string& name, const ListTable& table) {
  save_panels(to, name + ".at", table.centroids);
  to.add(name + ".from", table.offsets.data(), table.offsets.size() * sizeof(int32_t));
  to.add(name + ".ids", table.members.data(), table.members.size() * sizeof(int32_t));
}

// Members of every cell ascend within [0, keys).
void restore_homes(ListTable& table, const FileReader& from, const std::string& name, int32_t count, int32_t dim, int32_t keys) {
  restore_panels(table.centroids, from, name + ".at", count, dim);
  restore_offsets(table.offsets, from, name + ".from", count);
  const int32_t all = table.offsets.back();
  const int32_t* ids = from.array<int32_t>(name + ".ids", static_cast<size_t>(all));
  table.members.assign(ids, ids + all);
  for (int32_t list = 0; list < count; list++) {
    int32_t last = -1;
    bool right = true;
    table.each(list, [&](int32_t id) {
      right = right && id > last && id < keys;
      last = id;
    });
    if (!right) refuse(name + ".ids", "is out of range or order");
  }
}

void save_lists(FileWriter& to, const std::string& name, const GapLists& table) {
  save_codes(to, name + ".at", *table.routers);
  to.add(name + ".from", table.offsets.data(), table.offsets.size() * sizeof(int32_t));
  to.add(name + ".gaps", table.gaps.data(), table.gaps.size());
}

void restore_lists(GapLists& table, const FileReader& from, const std::string& name, int32_t count, int32_t dim, int32_t keys) {
  auto routers = std::make_shared<GraphCodes>(std::make_shared<ChunkMemory>());
  restore_codes(*routers, from, name + ".at", count, dim);
  table.routers = std::move(routers);
  restore_offsets(table.offsets, from, name + ".from", count);
  const int32_t all = table.offsets.back();
  const uint8_t* gaps = from.array<uint8_t>(name + ".gaps", static_cast<size_t>(all));
  table.gaps.assign(gaps, gaps + all);
  if (!table.check(keys)) refuse(name + ".gaps", "is out of range");
}

constexpr int32_t kBest = 1, kSamples = 2, kWalked = 4, kSketched = 8;  // what a partition serves, and has

struct Header {
  int32_t keys, cells, lists, metric, aim, horizon, serves, probes, depth, reserved;
  double recall, visited;
};

struct SetHeader {
  int32_t heads, built, due, known;
  double seconds;
};

void save_set(FileWriter& to, const std::string& prefix, const PartitionSet& set, int32_t due) {
  const SetHeader header = {static_cast<int32_t>(set.heads.size()), set.built, due, set.known, set.seconds};
  to.add(prefix, &header, sizeof header);
  std::string text;
  for (const std::string& line : set.decisions) text += line + "\n";
  to.add(prefix + ".why", text.data(), text.size());
  std::vector<uint8_t> listed;
  for (const auto& head : set.heads) listed.push_back(head != nullptr);
  to.add(prefix + ".listed", listed.data(), listed.size());
  for (size_t h = 0; h < set.heads.size(); h++) {
    if (set.heads[h] != nullptr) set.heads[h]->save(to, prefix + "." + std::to_string(h));
  }
}

std::shared_ptr<PartitionSet> restore_set(const FileReader& from, const std::string& prefix, const LayerShape& shape,
                                          int32_t most, int32_t* due) {
  SetHeader header;
  std::memcpy(&header, from.array<SetHeader>(prefix, 1), sizeof header);
  if (header.heads != shape.kv_heads || header.built < 1 || header.built > most || header.due < 0 ||
      header.known < header.built || header.known > most) {
    refuse(prefix, "does not fit this index");
  }
  auto set = std::make_shared<PartitionSet>();
  set->built = header.built;
  set->known = header.known;
  set->seconds = std::isfinite(header.seconds) ? header.seconds : 0;
  *due = header.due;
  const FileReader::Section why = from.find(prefix + ".why");
  std::string line;
  for (size_t i = 0; i < why.bytes; i++) {
    if (why.data[i] != '\n') line += static_cast<char>(why.data[i]);
    else set->decisions.push_back(std::move(line)), line.clear();
  }
  const uint8_t* listed = from.array<uint8_t>(prefix + ".listed", static_cast<size_t>(header.heads));
  for (int32_t h = 0; h < header.heads; h++) {
    if (listed[h] > 1) refuse(prefix + ".listed", "holds other than 0 and 1");
    if (listed[h] == 0) {
      set->heads.push_back(nullptr);
      continue;
    }
    auto p = std::make_shared<Partition>();
    p->restore(from, prefix + "." + std::to_string(h), shape.head_dim, shape.group());
    if (p->keys != header.known) refuse(prefix, "counts keys wrongly");
    set->heads.push_back(std::move(p));
  }
  return set;
}

}  // namespace

void Partition::save(FileWriter& to, const std::string& prefix) const {
  const Header header = {keys, homes.count(), routed.count(), metric.count() > 0, aim, horizon,
                         (serves_best ? kBest : 0) | (serves_samples ? kSamples : 0) | (graph != nullptr ? kWalked : 0) |
                             (sketches != nullptr ? kSketched : 0),
                         probes, depth, 0, recall, visited};
  to.add(prefix, &header, sizeof header);
  save_homes(to, prefix + ".home", homes);
  to.add(prefix + ".dev", deviations.data(), deviations.size() * sizeof(float));
  if (probes == 0) to.add(prefix + ".probes", head_probes.data(), head_probes.size() * sizeof(int32_t));
  if (metric.count() > 0) save_panels(to, prefix + ".metric", metric);
  if (graph != nullptr) save_graph(to, prefix + ".graph", *graph);
  if (sketches != nullptr) save_codes(to, prefix + ".sketch", *sketches);
  if (routed.count() == 0) return;
  save_lists(to, prefix + ".list", routed);
  to.add(prefix + ".least", thresholds.data(), thresholds.size() * sizeof(float));
}

void Partition::restore(const FileReader& from, const std::string& prefix, int32_t dim, int32_t group) {
  Header header;
  std::memcpy(&header, from.array<Header>(prefix, 1), sizeof header);
  if (header.keys < 1 || header.keys >= 1 << 30 || header.cells < 1 || header.cells > header.keys || header.lists < 0 || header.lists > header.keys ||
      header.aim < 0 || header.horizon < 0 || (header.metric != 0 && header.metric != 1) || header.probes < 0 ||
      header.depth < (header.lists > 0) || header.depth > header.keys || header.reserved != 0 ||
      (header.serves & ~(kBest | kSamples | kWalked | kSketched)) != 0) {
    refuse(prefix, "has impossible counts");
  }
  keys = header.keys;
  probes = header.probes;
  depth = header.depth;
  if (probes == 0) {
    const int32_t* wanted = from.array<int32_t>(prefix + ".probes", static_cast<size_t>(group));
    head_probes.assign(wanted, wanted + group);
    if (*std::min_element(head_probes.begin(), head_probes.end()) < 1) refuse(prefix + ".probes", "asks for no list");
  }
  recall = header.recall >= 0 && header.recall <= 1 ? header.recall : __builtin_nan("");
  visited = header.visited;
  serves_best = (header.serves & kBest) != 0;
  serves_samples = (header.serves & kSamples) != 0;
  aim = header.aim;
  horizon = header.horizon;
  restore_homes(homes, from, prefix + ".home", header.cells, dim, keys);
  // Drawing the rest is unbiased only where every key has exactly one home.
  std::vector<bool> seen(static_cast<size_t>(keys), false);
  for (int32_t cell = 0; cell < header.cells; cell++) {
    homes.each(cell, [&](int32_t id) { seen[static_cast<size_t>(id)] = true; });
  }
  if (homes.members.size() != static_cast<size_t>(keys) || std::find(seen.begin(), seen.end(), false) != seen.end()) {
    refuse(prefix + ".home", "does not hold every key once");
  }
  const float* dev = finite_array(from, prefix + ".dev", static_cast<size_t>(header.cells));
  deviations.assign(dev, dev + header.cells);
  if (header.metric != 0) restore_panels(metric, from, prefix + ".metric", dim, dim);
  if ((header.serves & kWalked) != 0) graph = restore_graph(from, prefix + ".graph", keys, dim);
  if (header.lists == 0) {
    if ((header.serves & kSketched) != 0) refuse(prefix, "has sketches but no lists");
    return;
  }
  restore_lists(routed, from, prefix + ".list", header.lists, dim, keys);
  const float* least = finite_array(from, prefix + ".least", static_cast<size_t>(header.lists));
  thresholds.assign(least, least + header.lists);
  if ((header.serves & kSketched) == 0) return;
  auto codes = std::make_shared<GraphCodes>(std::make_shared<ChunkMemory>());
  restore_codes(*codes, from, prefix + ".sketch", keys, dim);
  sketch(std::move(codes));
}

void PartitionIndex::save(FileWriter& to) const {
  const SetPtr next = pending_ ? pending_.peek(nullptr) : nullptr;
  const int32_t state[6] = {begin_, end_, committed_, set_ != nullptr, next != nullptr, 0};
  to.add("state", state, sizeof state);
  std::string text;
  for (const std::string& line : takeovers_) text += line + "\n";
  to.add("takeovers", text.data(), text.size());
  codes_.save(to);
  samples_->save(to);
  recipe_->save(to);
  if (set_ != nullptr) save_set(to, "now", *set_, 0);
  if (next != nullptr) save_set(to, "next", *next, pending_.due());
}

void PartitionIndex::restore(const FileReader& from) {
  const int32_t* state = from.array<int32_t>("state", 6);
  begin_ = state[0], end_ = state[1], committed_ = state[2];
  codes_.restore(from);
  if (begin_ < 0 || end_ < begin_ || committed_ < 0 || committed_ > end_ - begin_ || codes_.size() != end_ - begin_ ||
      (end_ > begin_ && (codes_.begin() != begin_ || begin_ < rows_.begin() || end_ > rows_.end()))) {
    fail(KVASIR_ARGUMENT, "Cannot open index: positions %d to %d, segments hold %d to %d", begin_, end_, rows_.begin(), rows_.end());
  }
  const FileReader::Section text = from.find("takeovers");
  std::string line;
  for (size_t i = 0; i < text.bytes; i++) {
    if (text.data[i] != '\n') line += static_cast<char>(text.data[i]);
    else takeovers_.push_back(std::move(line)), line.clear();
  }
  samples_->restore(from, shape_);
  int32_t due = 0;
  if (state[3] != 0) set_ = restore_set(from, "now", shape_, committed_, &due);
  if (state[4] == 0) return;
  const SetPtr next = restore_set(from, "next", shape_, committed_, &due);
  pending_.start(*environment_.builders, due, [next](BuildJob&) { return next; });
}

}  // namespace kvasir
