// Graphs in a saved index: complete, or refused.
#include <cmath>
#include <cstring>

#include "file.h"
#include "graph_build.h"

namespace kvasir {
namespace {

struct Header {
  int32_t nodes, slots, centroids, starts, built, ef;
  double recall, scored;
};

[[noreturn]] void refuse(const std::string& section, const char* why) {
  fail(KVASIR_ARGUMENT, "Cannot open index: section \"%s\" %s", section.c_str(), why);
}

const float* finite(const FileReader& from, const std::string& section, size_t count) {
  const float* numbers = from.array<float>(section, count);
  for (size_t i = 0; i < count; i++) {
    if (!std::isfinite(numbers[i])) refuse(section, "holds a number that is not finite");
  }
  return numbers;
}

// Threads are walked to their ends when the graph grows: they must have some.
void check_threads(const GraphLinks& links, const std::string& section) {
  std::vector<int32_t> walk(static_cast<size_t>(links.nodes()), -1);  // by whose walk a node was met
  for (int32_t start = 0; start < links.nodes(); start++) {
    for (int32_t at = start; at != GraphLinks::kNone && walk[static_cast<size_t>(at)] < 0; at = links.thread(at)) {
      walk[static_cast<size_t>(at)] = start;
      const int32_t next = links.thread(at);
      if (next != GraphLinks::kNone && walk[static_cast<size_t>(next)] == start) refuse(section, "has a thread without an end");
    }
  }
}

}  // namespace

void save_codes(FileWriter& to, const std::string& prefix, const GraphCodes& from) {
  const size_t row_bytes = from.row_bytes();
  std::vector<uint8_t> codes(static_cast<size_t>(from.nodes()) * row_bytes);
  std::vector<float> scales;
  for (int32_t i = 0; i < from.nodes(); i++) {
    std::copy_n(from.row(i), row_bytes, codes.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(i) * row_bytes));
    scales.push_back(from.scale(i));
  }
  to.add(prefix + ".codes", codes.data(), codes.size());
  to.add(prefix + ".scales", scales.data(), scales.size() * sizeof(float));
  to.add(prefix + ".centre", from.centre().data(), from.centre().size() * sizeof(float));
  to.add(prefix + ".weights", from.weights().data(), from.weights().size() * sizeof(float));
}

void restore_codes(GraphCodes& to, const FileReader& from, const std::string& prefix, int32_t nodes, int32_t dim) {
  const float* scales = finite(from, prefix + ".scales", static_cast<size_t>(nodes));
  const float* centre = finite(from, prefix + ".centre", static_cast<size_t>(dim));
  const float* weights = finite(from, prefix + ".weights", static_cast<size_t>(dim));
  for (int32_t d = 0; d < dim; d++) {
    if (!(weights[d] > 0)) refuse(prefix + ".weights", "holds a number that is not positive");
  }
  const size_t code_bytes = static_cast<size_t>(nodes) * GraphCodes::row_bytes_of(dim);
  to.restore(nodes, dim, from.array<uint8_t>(prefix + ".codes", code_bytes), scales, centre, weights);
}

void save_graph(FileWriter& to, const std::string& prefix, const Graph& graph) {
  const Header header = {graph.nodes(), graph.links.slots(), graph.entries->centroids.count(), graph.starts, graph.built, graph.ef,
                         graph.expected_recall, graph.expected_scored};
  to.add(prefix, &header, sizeof header);
  const size_t slots = static_cast<size_t>(graph.links.slots());
  std::vector<int32_t> links(static_cast<size_t>(graph.nodes()) * slots);
  for (int32_t i = 0; i < graph.nodes(); i++) std::copy_n(graph.links.of(i), slots, links.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(i) * slots));
  to.add(prefix + ".to", links.data(), links.size() * sizeof(int32_t));
  to.add(prefix + ".from", graph.parents->data(), graph.parents->size() * sizeof(int32_t));
  save_codes(to, prefix, graph.codes);
  to.add(prefix + ".at", graph.entries->centroids.data(), graph.entries->centroids.bytes());
  to.add(prefix + ".in", graph.entries->nodes.data(), graph.entries->nodes.size() * sizeof(int32_t));
  to.add(prefix + ".least", graph.entries->least.data(), graph.entries->least.size() * sizeof(float));
  std::vector<int32_t> offsets = {0}, ids;
  for (int32_t c = 0; c < graph.entries->centroids.count(); c++) {
    if (!graph.newcomers.empty()) {
      const std::vector<int32_t>& from = graph.newcomers[static_cast<size_t>(c)];
      ids.insert(ids.end(), from.begin(), from.end());
    }
    offsets.push_back(static_cast<int32_t>(ids.size()));
  }
  to.add(prefix + ".new", offsets.data(), offsets.size() * sizeof(int32_t));
  to.add(prefix + ".ids", ids.data(), ids.size() * sizeof(int32_t));
}

std::shared_ptr<const Graph> restore_graph(const FileReader& from, const std::string& prefix, int32_t nodes, int32_t dim) {
  Header header;
  std::memcpy(&header, from.array<Header>(prefix, 1), sizeof header);
  if (header.nodes != nodes || header.slots < 2 || header.slots > (1 << 16) || header.centroids < 1 || header.centroids > nodes ||
      header.starts < 1 || header.starts > (1 << 16) || header.built < 1 || header.built > nodes || header.ef < 1) {
    refuse(prefix, "has impossible counts");
  }
  auto graph = std::make_shared<Graph>(header.slots);
  graph->starts = header.starts;
  graph->built = header.built;
  graph->ef = header.ef;
  graph->expected_recall = header.recall;
  graph->expected_scored = header.scored;
  const size_t slots = static_cast<size_t>(header.slots), count = static_cast<size_t>(nodes) * slots;
  const int32_t* links = from.array<int32_t>(prefix + ".to", count);
  for (size_t i = 0; i < count; i++) {
    if (links[i] < GraphLinks::kNone || links[i] >= nodes) refuse(prefix + ".to", "leads to no node");
  }
  graph->links.resize(nodes);
  for (int32_t i = 0; i < nodes; i++) std::copy_n(links + static_cast<size_t>(i) * slots, slots, graph->links.edit(i));
  check_threads(graph->links, prefix + ".to");
  const int32_t* parents = from.array<int32_t>(prefix + ".from", static_cast<size_t>(header.built));
  for (int32_t i = 0; i < header.built; i++) {
    if (parents[i] < GraphLinks::kNone || parents[i] >= nodes) refuse(prefix + ".from", "leads to no node");
  }
  graph->parents = std::make_shared<const std::vector<int32_t>>(parents, parents + header.built);
  restore_codes(graph->codes, from, prefix, nodes, dim);
  auto entries = std::make_shared<GraphEntries>();
  const size_t width = (static_cast<size_t>(header.centroids) + kPanelRows - 1) / kPanelRows * kPanelRows;
  const float* centroids = finite(from, prefix + ".at", width * static_cast<size_t>(dim));
  entries->centroids.restore(header.centroids, dim, centroids);
  const size_t roots = static_cast<size_t>(header.centroids) * GraphEntries::kKeys;
  const int32_t* in = from.array<int32_t>(prefix + ".in", roots);
  for (size_t i = 0; i < roots; i++) {
    if (in[i] < GraphLinks::kNone || in[i] >= nodes) refuse(prefix + ".in", "leads to no node");
  }
  entries->nodes.assign(in, in + roots);
  const size_t count_in = static_cast<size_t>(header.centroids);
  const float* least = finite(from, prefix + ".least", count_in);
  entries->least.assign(least, least + count_in);
  const int32_t* offsets = from.array<int32_t>(prefix + ".new", count_in + 1);
  if (offsets[0] != 0) refuse(prefix + ".new", "does not begin at 0");
  for (size_t c = 0; c < count_in; c++) {
    if (offsets[c + 1] < offsets[c]) refuse(prefix + ".new", "does not ascend");
  }
  const int32_t* ids = from.array<int32_t>(prefix + ".ids", static_cast<size_t>(offsets[count_in]));
  for (size_t c = 0; c < count_in; c++) {
    for (int32_t i = offsets[c]; i < offsets[c + 1]; i++) {
      if (ids[i] < 0 || ids[i] >= nodes) refuse(prefix + ".ids", "leads to no node");
    }
    graph->newcomers.emplace_back(ids + offsets[c], ids + offsets[c + 1]);
  }
  graph->entries = std::move(entries);
  return graph;
}

}  // namespace kvasir
