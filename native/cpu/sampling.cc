#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "context.h"
#include "row_histogram.h"

namespace kvasir {
namespace {

// Up to here the likely candidates are sorted; beyond, a histogram is cheaper.
constexpr size_t kMostSorted = 1024;

// The rule over candidates in order: all of them, or so many of the best that the rest is not drawn; then `whole` is
// the sum over all.
int32_t draw_sorted(const LogitRow& row, const std::vector<uint64_t>& keys, const SampleParams& p, double whole) {
  std::vector<double> weights;
  weights.reserve(keys.size());
  for (uint64_t key : keys) weights.push_back(row.weight(key, p.temperature));
  size_t end = weights.size();
  if (p.top_p < 1) {
    double sum = 0;
    for (size_t i = 0; i < end; i++) {
      sum += weights[i];
      if (sum >= p.top_p * whole) end = i + 1;
    }
  }
  while (end > 1 && weights[end - 1] < p.min_p * weights[0]) end--;
  // Without a filter what is left is everything, also what keys leaves out.
  double total = whole;
  if (p.top_p < 1 || p.min_p > 0) {
    total = std::accumulate(weights.begin(), weights.begin() + static_cast<long>(end), 0.0);
  }
  double sum = 0;
  size_t rank = 0;
  for (; rank + 1 < end; rank++) {
    sum += weights[rank];
    if (sum > p.uniform * total) break;
  }
  return static_cast<int32_t>(LogitRow::id_of(keys[rank]));
}

double sum_of(const LogitRow& row, const std::vector<uint64_t>& keys, double temperature) {
  double sum = 0;
  for (uint64_t key : keys) sum += row.weight(key, temperature);
  return sum;
}

// Of candidates in order, the ones that typical_p keeps, in order.
std::vector<uint64_t> typical(const LogitRow& row, const std::vector<uint64_t>& keys, const SampleParams& p) {
  struct Candidate {
    double distance;
    size_t rank;
  };
  std::vector<double> weights;
  weights.reserve(keys.size());
  for (uint64_t key : keys) weights.push_back(row.weight(key, p.temperature));
  const double whole = std::accumulate(weights.begin(), weights.end(), 0.0), log_whole = std::log(whole);
  double entropy = 0;
  for (double w : weights) entropy += w > 0 ? w / whole * (log_whole - std::log(w)) : 0;
  std::vector<Candidate> order;
  for (size_t i = 0; i < weights.size(); i++) order.push_back({std::fabs(log_whole - std::log(weights[i]) - entropy), i});
  std::sort(order.begin(), order.end(), [](const Candidate& a, const Candidate& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.rank < b.rank;
  });
  std::vector<size_t> kept;
  double sum = 0;
  for (const Candidate& c : order) {
    kept.push_back(c.rank);
    sum += weights[c.rank];
    if (sum >= p.typical_p * whole) break;
  }
  std::sort(kept.begin(), kept.end());
  std::vector<uint64_t> left;
  for (size_t rank : kept) left.push_back(keys[rank]);
  return left;
}

int32_t draw_by_histogram(const LogitRow& row, const SampleParams& p) {
  RowHistogram all(row, p.temperature);
  RowHistogram::Mark end = all.end();
  if (p.top_p < 1) {
    const double share = p.top_p * all.sum(end);
    end = all.find(end, [&](double sum) { return sum >= share; });
  }
  if (p.min_p > 0) end = std::min(end, all.reaching(p.min_p));
  const double bound = p.uniform * all.sum(end);
  return static_cast<int32_t>(all.id_before(all.find(end, [&](double sum) { return sum > bound; })));
}

}  // namespace

int32_t draw(const LogitRow& row, const SampleParams& p) {
  if (p.temperature == 0) return row.best();
  const double max = static_cast<double>(row.max());
  std::vector<uint64_t> keys;
  if (p.top_k > 0 && p.top_k < static_cast<double>(row.size())) {
    keys = row.top(static_cast<size_t>(p.top_k));
    if (p.typical_p < 1) keys = typical(row, keys, p);
    return draw_sorted(row, keys, p, sum_of(row, keys, p.temperature));
  }
  if (p.typical_p < 1) {  // entropy needs all of them
    keys = row.at_least(-HUGE_VAL);
    std::sort(keys.begin(), keys.end());
    keys = typical(row, keys, p);
    return draw_sorted(row, keys, p, sum_of(row, keys, p.temperature));
  }
  if (!std::isfinite(max)) {  // every other weighs nothing, and is never drawn
    keys = row.at_least(max);
    std::sort(keys.begin(), keys.end());
    return draw_sorted(row, keys, p, static_cast<double>(keys.size()));
  }
  // Below this logit min-p drops everything; a little lower, since the weight itself decides.
  const double lowest =
      p.min_p > 0 ? max + p.temperature * (std::log(p.min_p) - 1e-6) - std::fabs(max) * 1e-12 : -HUGE_VAL;
  const bool needs_whole = p.top_p < 1 || p.min_p == 0;
  const double whole = needs_whole ? row.sum_exp(p.temperature) : 0;
  for (double depth : {3.0, 8.0, 16.0, 50.0}) {
    const double threshold = needs_whole ? std::max(lowest, max - depth * p.temperature) : lowest;
    keys = row.at_least(threshold, kMostSorted);
    if (keys.size() > kMostSorted) break;
    std::sort(keys.begin(), keys.end());
    const double sum = needs_whole ? sum_of(row, keys, p.temperature) : 0;
    const bool enough = p.top_p < 1 ? sum >= p.top_p * whole : sum > p.uniform * whole;
    if (threshold == lowest || enough) return draw_sorted(row, keys, p, whole);
  }
  return draw_by_histogram(row, p);
}

}  // namespace kvasir
