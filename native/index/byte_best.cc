// The best columns of many rows: a threshold from a thin sample lets a few more pass than are wanted.
#include <algorithm>
#include <limits>

#include "byte_panels.h"
#include "byte_passed.h"
#include "select.h"

namespace kvasir {
namespace {

constexpr double kMargin = 1.5;      // of k pass, expected
constexpr int32_t kSampled = 32;     // of them in the sample: with a deviation of .18 of what is expected
constexpr int32_t kRowsPerTask = 96;
constexpr int32_t kSlack = 256;
constexpr float kNone = -std::numeric_limits<float>::infinity();

// Selects from what passed.
struct Selection {
  std::vector<float> copy, best_scores, rest_scores;
  std::vector<int32_t> places, rest_ids;

  explicit Selection(size_t room) : copy(room), best_scores(room + kPanelRows), rest_scores(room), places(best_scores.size()), rest_ids(room) {}

  // Of the first `count` of a row the best k come first, of equals those that stood before; both parts keep their order, the second
  // where `rest` says so. The k-th best score. k <= count.
  float part(const SelectKernels& kernels, PassedColumns& passed, int32_t row, int32_t count, int32_t k, bool rest) {
    float* s = passed.scores(row);
    int32_t* of = passed.ids(row);
    std::copy_n(s, count, copy.data());
    float kth = find_kth(kernels, copy.data(), count, k, 0).value;
    int32_t best = kernels.compress(places.data(), best_scores.data(), copy.data(), (count + 31) / 32 * 32, kth);
    if (best < k) {  // the others are infinitely low
      kth = kNone;
      best = kernels.compress(places.data(), best_scores.data(), copy.data(), (count + 31) / 32 * 32, kth);
    }
    for (int32_t extra = best - k, i = best; extra > 0 && i-- > 0;) {  // the last of those at the threshold are too many
      if (best_scores[static_cast<size_t>(i)] != kth) continue;
      std::copy(places.begin() + i + 1, places.begin() + best, places.begin() + i);
      std::copy(best_scores.begin() + i + 1, best_scores.begin() + best, best_scores.begin() + i);
      best--, extra--;
    }
    size_t others = 0;
    for (int32_t i = 0, next = 0; rest && i < count; i++) {
      rest_scores[others] = s[i], rest_ids[others] = of[i];
      const bool taken = next < best && places[static_cast<size_t>(next)] == i;
      next += taken, others += !taken;
    }
    for (int32_t i = 0; i < best; i++) of[i] = of[places[static_cast<size_t>(i)]];  // ascending places
    std::copy_n(best_scores.data(), best, s);
    std::copy_n(rest_scores.data(), others, s + best);
    std::copy_n(rest_ids.data(), others, of + best);
    return kth;
  }
};

}  // namespace

BestColumns best_columns(const IndexIsa& isa, const RunTasks& run, const BytePanels& columns, const BytePanels::Terms& rows,
                         const std::vector<int32_t>& cuts) {
  const int32_t k = cuts.back(), n = columns.count();
  BestColumns out;
  out.k = k;
  // Where run leaves tasks out, ids are still ids.
  out.ids.assign(static_cast<size_t>(rows.count) * static_cast<size_t>(k), 0);
  out.scores.assign(out.ids.size(), 0);
  const bool thin = 4 * kMargin * k < n;
  const int32_t step = std::max(1, static_cast<int32_t>(kMargin * k / kSampled));
  const BytePanels sample(columns, step);
  const int32_t rank = static_cast<int32_t>(kMargin * k / step) + 1;
  const int32_t piece = std::min(kRowsPerTask, std::max(12, (rows.count + 3) / 4));
  run((rows.count + piece - 1) / piece, [&](int32_t task) {
    const int32_t first = task * piece, some = std::min(piece, rows.count - first);
    PassedColumns passed(some, 2 * k + kSlack);
    Selection selection(passed.room());
    if (thin) {
      const size_t width = static_cast<size_t>(sample.panels()) * kPanelRows;
      std::vector<float> scores(static_cast<size_t>(some) * kPanelRows), sampled(width * static_cast<size_t>(some));
      for (int32_t p = 0; p < sample.panels(); p++) {
        sample.dot(*isa.bytes, scores.data(), rows, first, some, p);
        for (size_t r = 0; r < static_cast<size_t>(some); r++) {
          std::copy_n(scores.data() + r * kPanelRows, kPanelRows, sampled.data() + r * width + static_cast<size_t>(p) * kPanelRows);
        }
      }
      for (size_t r = 0; r < static_cast<size_t>(some); r++) {
        passed.thresholds[r] = find_kth(*isa.select, sampled.data() + r * width, sample.count(), rank, rank / 16).value;
      }
    }
    // All columns that pass a row's threshold, which rises to its k-th best where too many do.
    const auto pass = [&](int32_t from, int32_t count) {
      for (int32_t p = 0; p < columns.panels(); p += PassedColumns::kPanels) {
        passed.pass(isa, columns, rows, first, from, count, p);
        for (int32_t r = from; r < from + count; r++) {
          int32_t& held = passed.counts[static_cast<size_t>(r)];
          if (held <= 2 * k + kSlack) continue;
          passed.thresholds[static_cast<size_t>(r)] = selection.part(*isa.select, passed, r, held, k, false);
          held = k;
        }
      }
    };
    pass(0, some);
    for (int32_t r = 0; r < some; r++) {
      float* scores = passed.scores(r);
      int32_t *ids = passed.ids(r), &held = passed.counts[static_cast<size_t>(r)];
      if (held < k) {  // the sample misled
        held = 0;
        passed.thresholds[static_cast<size_t>(r)] = kNone;
        pass(r, 1);
      }
      // Products that overflowed to NaN were let through nowhere.
      for (; held < k; held++) scores[held] = kNone, ids[held] = 0;
      int32_t end = held;
      for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut) {
        if (*cut < end) selection.part(*isa.select, passed, r, end, *cut, *cut < k);
        end = *cut;
      }
      const size_t at = static_cast<size_t>(first + r) * static_cast<size_t>(k);
      std::copy_n(scores, k, out.scores.data() + at);
      std::copy_n(ids, k, out.ids.data() + at);
    }
  });
  return out;
}

}  // namespace kvasir
