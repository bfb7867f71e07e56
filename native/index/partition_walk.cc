// Searches of a partition that has a graph.
#include <algorithm>

#include "graph_build.h"
#include "partition_search.h"

namespace kvasir {
namespace {

constexpr size_t kRoom = 64;  // selection reads scores by blocks

}  // namespace

// Walks for queries [group, dim]: walk_, by keys_.
void PartitionSearch::walk(const float* q, int32_t group, Report& report) {
  const Partition& p = *s_.partition;
  keys_ = std::make_unique<GraphKeys>(s_.isa->graph, *s_.rows, s_.head, s_.codes->begin(), p.keys);
  int32_t width = std::min(s_.probes > 0 ? s_.probes : p.probes, p.keys);
  // More keys than the width was chosen for need a longer queue.
  if (query_->goal.kind == Goal::kTopk) width = std::max(width, std::min(p.keys, static_cast<int32_t>(2 * query_->goal.value)));
  search_graph(walk_, *s_.isa, *p.graph, *keys_, q, group, width, false);
  report.bytes_read += static_cast<double>(walk_.scored().size()) * static_cast<double>(p.graph->codes.row_bytes() + sizeof(float)) +
                       static_cast<double>(p.graph->entries->centroids.bytes()) +
                       static_cast<double>(walk_.expanded()) * 4 * p.graph->links.slots();
}

// Of samples every node that a walk for the whole group scored is a candidate.
void PartitionSearch::visit_walked(Report& report) {
  walk(q_, group_, report);
  for (int32_t node : walk_.scored()) mark(node);
  report.keys_scored += static_cast<double>(walk_.scored().size());
}

// The best keys of a walk for each head, as calibration tried them, and of those without a home.
void PartitionSearch::best_of_walks(Report& report) {
  const int32_t homeless = s_.keys - s_.partition->keys;
  if (homeless > 0) {
    s_.codes->prepare(prepared_, s_.head, q_, group_, s_.shape->scale, 2, Codes::kUpper);
    scan_homeless(report);
  }
  double scored = 0, exactly = 0;
  for (int32_t g = 0; g < group_; g++) {
    const float* q = q_ + static_cast<size_t>(g) * static_cast<size_t>(s_.shape->head_dim);
    walk(q, 1, report);
    walk_.collect();
    ids_ = walk_.finalists();
    const size_t count = ids_.size();
    scored += static_cast<double>(walk_.scored().size());
    exactly += static_cast<double>(count);
    for (int32_t i = 0; i < homeless; i++) ids_.push_back(s_.partition->keys + i);
    scores_.resize(std::max(scores_.size(), ids_.size() + kRoom));
    score_rows(scores_.data(), q, 1, ids_.data(), static_cast<int32_t>(count));
    if (homeless > 0) {
      std::copy_n(scan_.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(g) * scan_stride_ + scan_skip_), homeless,
                  scores_.begin() + static_cast<std::ptrdiff_t>(count));
    }
    softcap(scores_.data(), ids_.size());
    top(g, ids_.data(), static_cast<int32_t>(ids_.size()), scores_.data(), homeless == 0, report);
    report.keys_kept += static_cast<double>(picked_.size());
  }
  report.keys_scored += scored / group_;
  report.bytes_read += exactly * static_cast<double>(keys_->row_bytes());
}

}  // namespace kvasir
