#include "knn.h"

#include <algorithm>
#include <limits>

#include "graph_kernels.h"
#include "kvasir_abi.h"
#include "panel_kernels.h"

namespace kvasir {
namespace {

constexpr int32_t kQueriesPerTask = 480;  // repays packing the keys once a task: a multiple of every tile
constexpr int32_t kSlack = 128;

// The best of one query so far.
struct Best {
  float* scores;
  int32_t* ids;
  int32_t count = 0;
  float threshold = -std::numeric_limits<float>::infinity();
};

bool better(const std::pair<float, int32_t>& a, const std::pair<float, int32_t>& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

// Cuts to the best k and raises the threshold to the k-th.
void cut(Best& best, int32_t k, std::vector<std::pair<float, int32_t>>& order) {
  order.resize(static_cast<size_t>(best.count));
  for (int32_t i = 0; i < best.count; i++) order[static_cast<size_t>(i)] = {best.scores[i], best.ids[i]};
  std::nth_element(order.begin(), order.begin() + (k - 1), order.end(), better);
  for (int32_t i = 0; i < k; i++) {
    best.scores[i] = order[static_cast<size_t>(i)].first;
    best.ids[i] = order[static_cast<size_t>(i)].second;
  }
  best.count = k;
  best.threshold = order[static_cast<size_t>(k - 1)].first;
}

// Keys [from, from + count) of a head, count <= 32, as a panel [dim][32]; missing ones are zero.
void pack_panel(float* panel, const GraphKernels& kernels, const Rows& rows, int32_t head, int32_t from, int32_t count,
                int32_t dim, std::vector<float>& wide) {
  wide.resize(static_cast<size_t>(dim));
  if (count < kPanelRows) std::fill(panel, panel + static_cast<size_t>(dim) * kPanelRows, 0.0f);
  const Segment* s = nullptr;
  for (int32_t i = 0; i < count; i++) {
    const int32_t at = from + i;
    if (s == nullptr || at >= s->start() + s->capacity()) s = &rows.find(at);
    const int32_t row = at - s->start();
    kernels.widen(wide.data(), s->key(head, row), s->dtype(), dim);
    const float scale = s->key_scale(head, row);
    for (int32_t d = 0; d < dim; d++) panel[static_cast<size_t>(d) * kPanelRows + static_cast<size_t>(i)] = wide[static_cast<size_t>(d)] * scale;
  }
}

}  // namespace

void run_inline(int32_t count, const std::function<void(int32_t)>& body) {
  for (int32_t i = 0; i < count; i++) body(i);
}

Neighbours nearest_keys(const IndexIsa& isa, const RunTasks& run, const Rows& rows, int32_t head, int32_t from, int32_t to,
                        const float* queries, int32_t count, int32_t k, const std::atomic<bool>* cancel) {
  Neighbours out;
  out.queries = count;
  out.k = std::min(k, to - from);
  if (count == 0 || out.k == 0) return out;
  // Where run leaves tasks out, positions are still positions.
  out.positions.assign(static_cast<size_t>(count) * static_cast<size_t>(out.k), from);
  out.scores.resize(out.positions.size());
  const int32_t dim = rows.find(from).head_dim(), panels = (to - from + kPanelRows - 1) / kPanelRows;
  const size_t room = static_cast<size_t>(2 * out.k + kSlack + kPanelRows);
  // Few queries are still shared among threads, in pieces that do not depend on how many there are.
  const int32_t piece = std::min(kQueriesPerTask, std::max(24, (count + 7) / 8));
  run((count + piece - 1) / piece, [&](int32_t task) {
    const int32_t first = task * piece, some = std::min(piece, count - first);
    std::vector<float> kept(room * static_cast<size_t>(some)), panel(static_cast<size_t>(dim) * kPanelRows), wide;
    std::vector<int32_t> ids(kept.size());
    std::vector<float> dots(static_cast<size_t>(some) * kPanelRows);
    std::vector<Best> best(static_cast<size_t>(some));
    std::vector<std::pair<float, int32_t>> order;
    for (size_t i = 0; i < best.size(); i++) best[i].scores = kept.data() + i * room, best[i].ids = ids.data() + i * room;
    for (int32_t p = panels - 1; p >= 0; p--) {
      if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) return;
      const int32_t start = from + p * kPanelRows, valid = std::min(kPanelRows, to - start);
      pack_panel(panel.data(), *isa.graph, rows, head, start, valid, dim, wide);
      isa.panels->dot(dots.data(), kPanelRows, queries + static_cast<size_t>(first) * static_cast<size_t>(dim), some, panel.data(),
                      dim);
      for (int32_t i = 0; i < some; i++) {
        Best& b = best[static_cast<size_t>(i)];
        float* scores = dots.data() + static_cast<size_t>(i) * kPanelRows;
        for (int32_t j = valid; j < kPanelRows; j++) scores[j] = -std::numeric_limits<float>::infinity();
        int32_t above = isa.graph->above(b.scores + b.count, b.ids + b.count, scores, b.threshold, start);
        // While nothing has set a threshold, the padding passes too; it comes last.
        while (above > 0 && b.ids[b.count + above - 1] >= to) above--;
        b.count += above;
        if (b.count + kPanelRows > static_cast<int32_t>(room)) cut(b, out.k, order);
      }
    }
    for (int32_t i = 0; i < some; i++) {
      Best& b = best[static_cast<size_t>(i)];
      order.resize(static_cast<size_t>(b.count));
      for (int32_t j = 0; j < b.count; j++) order[static_cast<size_t>(j)] = {b.scores[j], b.ids[j]};
      // Products that overflowed to NaN were let through nowhere.
      while (order.size() < static_cast<size_t>(out.k)) order.push_back({-std::numeric_limits<float>::infinity(), from});
      std::partial_sort(order.begin(), order.begin() + out.k, order.end(), better);
      for (int32_t j = 0; j < out.k; j++) {
        const size_t at = static_cast<size_t>(first + i) * static_cast<size_t>(out.k) + static_cast<size_t>(j);
        out.scores[at] = order[static_cast<size_t>(j)].first;
        out.positions[at] = order[static_cast<size_t>(j)].second;
      }
    }
  });
  return out;
}

}  // namespace kvasir
