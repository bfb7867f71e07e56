// The best columns of many rows: a threshold from a thin sample lets a few more pass than are wanted.
#include <algorithm>
#include <limits>

#include "byte_kernels.h"
#include "byte_panels.h"
#include "graph_kernels.h"

namespace kvasir {
namespace {

constexpr double kMargin = 1.5;      // of k pass, expected
constexpr int32_t kSampled = 32;     // of them in the sample: with a deviation of .18 of what is expected
constexpr int32_t kRowsPerTask = 96;
constexpr int32_t kSlack = 256;
constexpr float kNone = -std::numeric_limits<float>::infinity();

using Entry = std::pair<float, int32_t>;

bool better(const Entry& a, const Entry& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; }

struct Kept {
  std::vector<float> scores;  // room for all that may pass, and for one panel more
  std::vector<int32_t> ids;
  int32_t count = 0;
  float threshold = kNone;
};

// Cuts to the best k.
void cut(Kept& kept, int32_t k, std::vector<Entry>& order) {
  order.clear();
  for (size_t i = 0; i < static_cast<size_t>(kept.count); i++) order.push_back({kept.scores[i], kept.ids[i]});
  std::nth_element(order.begin(), order.begin() + (k - 1), order.end(), better);
  for (size_t i = 0; i < static_cast<size_t>(k); i++) kept.scores[i] = order[i].first, kept.ids[i] = order[i].second;
  kept.count = k;
  kept.threshold = order[static_cast<size_t>(k - 1)].first;
}

}  // namespace

BestColumns best_columns(const IndexIsa& isa, const RunTasks& run, const BytePanels& columns, const BytePanels::Terms& rows,
                         const std::vector<int32_t>& cuts) {
  const int32_t k = cuts.back(), n = columns.count();
  const size_t room = static_cast<size_t>(2 * k + kSlack + kPanelRows);
  BestColumns out;
  out.k = k;
  // Where run leaves tasks out, ids are still ids.
  out.ids.assign(static_cast<size_t>(rows.count) * static_cast<size_t>(k), 0);
  out.scores.assign(out.ids.size(), 0);
  const bool thin = 4 * kMargin * k < n;
  const int32_t step = std::max(1, static_cast<int32_t>(kMargin * k / kSampled));
  const BytePanels sample(columns, step);
  const int32_t rank = static_cast<int32_t>(kMargin * k / step);
  const int32_t piece = std::min(kRowsPerTask, std::max(12, (rows.count + 7) / 8));
  run((rows.count + piece - 1) / piece, [&](int32_t task) {
    const int32_t first = task * piece, some = std::min(piece, rows.count - first);
    std::vector<float> scores(static_cast<size_t>(some) * kPanelRows), sampled;
    std::vector<Kept> kept(static_cast<size_t>(some));
    std::vector<Entry> order;
    for (Kept& row : kept) row.scores.resize(room), row.ids.resize(room);
    if (thin) {
      const size_t width = static_cast<size_t>(sample.panels()) * kPanelRows;
      sampled.resize(width * static_cast<size_t>(some));
      for (int32_t p = 0; p < sample.panels(); p++) {
        sample.dot(*isa.bytes, scores.data(), rows, first, some, p);
        for (size_t r = 0; r < static_cast<size_t>(some); r++) {
          std::copy_n(scores.data() + r * kPanelRows, kPanelRows, sampled.data() + r * width + static_cast<size_t>(p) * kPanelRows);
        }
      }
      for (size_t r = 0; r < static_cast<size_t>(some); r++) {
        float* row = sampled.data() + r * width;
        std::nth_element(row, row + rank, row + sample.count(), std::greater<float>());
        kept[r].threshold = row[rank];
      }
    }
    const auto pass = [&](int32_t from, int32_t count, int32_t panel) {
      columns.dot(*isa.bytes, scores.data(), rows, first + from, count, panel);
      const int32_t valid = std::min(kPanelRows, n - panel * kPanelRows);
      for (int32_t i = 0; i < count; i++) {
        Kept& row = kept[static_cast<size_t>(from + i)];
        float* s = scores.data() + static_cast<size_t>(i) * kPanelRows;
        for (int32_t j = valid; j < kPanelRows; j++) s[j] = kNone;
        int32_t above = isa.graph->above(row.scores.data() + row.count, row.ids.data() + row.count, s, row.threshold, panel * kPanelRows);
        while (above > 0 && row.ids[static_cast<size_t>(row.count + above - 1)] >= n) above--;
        row.count += above;
        if (row.count + kPanelRows > static_cast<int32_t>(room)) cut(row, k, order);
      }
    };
    for (int32_t p = 0; p < columns.panels(); p++) pass(0, some, p);
    for (int32_t r = 0; r < some; r++) {
      Kept& row = kept[static_cast<size_t>(r)];
      if (row.count < k) {  // the sample misled
        row.count = 0;
        row.threshold = kNone;
        for (int32_t p = 0; p < columns.panels(); p++) pass(r, 1, p);
      }
      order.clear();
      for (size_t i = 0; i < static_cast<size_t>(row.count); i++) order.push_back({row.scores[i], row.ids[i]});
      // Products that overflowed to NaN were let through nowhere.
      while (order.size() < static_cast<size_t>(k)) order.push_back({kNone, 0});
      auto end = order.end();
      for (auto cut_at = cuts.rbegin(); cut_at != cuts.rend(); ++cut_at) {
        const auto last = order.begin() + (*cut_at - 1);
        std::nth_element(order.begin(), last, end, better);
        end = last;
      }
      const size_t at = static_cast<size_t>(first + r) * static_cast<size_t>(k);
      for (size_t i = 0; i < static_cast<size_t>(k); i++) out.scores[at + i] = order[i].first, out.ids[at + i] = order[i].second;
    }
  });
  return out;
}

}  // namespace kvasir
