// Type "clusters": Squeezed Attention (Hooper et al. 2024, section 4). Of a fixed prefix, k-means on normalized keys,
// share * n clusters, each with the mean of its keys; a token is wanted where exp(q . c) / sum_j N_j exp(q . c_j) > T.
// Defaults: share 0.05; T is the quantile (0.5 to 0.9 in the paper) over tokens of the mean of that score for the last
// 100 prefix queries. quantile=0 (ours): the best clusters until the budget is full.
// What differs: one T a KV head, not one of all layers; k-means from random keys for `iterations` (published:
// k-means++, at most 300); one level of clusters, since the second only saves time. Does not grow: later tokens are
// scanned; with the policy's grow=false they stay in the window, as published. Memory: d floats a cluster, 4 bytes a
// key.
#include <algorithm>
#include <cmath>

#include "cells.h"
#include "error.h"
#include "kvasir_index.h"

namespace kvasir {
namespace {

constexpr int32_t kVoters = 100;

struct ClusterOptions {
  double share, quantile;
  int32_t iterations;
  uint32_t seed;
};

class Clusters final : public CellState {
 public:
  explicit Clusters(const ClusterOptions& options) : o_(options) {}
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<Clusters>(*this); }

  void grow(const HeadKeys& keys, const Asked& asked, int32_t from) override {
    if (from > 0) return;
    const int32_t count = std::max(1, static_cast<int32_t>(std::lround(o_.share * keys.count)));
    cells_.cluster(keys, 0, keys.count, count, o_.iterations, o_.seed + static_cast<uint32_t>(keys.head), nullptr);
    if (o_.quantile > 0) calibrate(keys, *asked.recent);
  }

  int32_t wanted(const float* scores, int32_t n, int32_t k) const override {
    if (o_.quantile == 0) return k;
    const double least = log_total(scores, n) + static_cast<double>(threshold_[0]);
    int64_t count = 0;
    for (int32_t i = 0; i < n; i++) count += static_cast<double>(scores[i]) > least ? size_of(i) : 0;
    return static_cast<int32_t>(std::min<int64_t>(count, k));
  }
  void visit(Arrays& arrays) override {
    cells_.visit(arrays);
    arrays("threshold", threshold_);
  }
  void check(const HeadKeys& keys) const override {
    cells_.check(keys);
    expect_size("thresholds", threshold_.size(), 1);
  }

 private:
  int32_t size_of(int32_t entry) const { return entry < units() ? cells_.size(entry) : 1; }
  // ln of sum_j N_j exp(score_j).
  double log_total(const float* scores, int32_t n) const {
    const float most = *std::max_element(scores, scores + n);
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += size_of(i) * static_cast<double>(std::exp(scores[i] - most));
    return static_cast<double>(most) + std::log(sum);
  }
  void calibrate(const HeadKeys& keys, const RecentQueries& recent) {
    if (recent.count() == 0) return;  // no queries: every cluster is above
    const size_t n = static_cast<size_t>(units()), group = static_cast<size_t>(keys.group());
    std::vector<float> scores(n * group);
    std::vector<double> mean(n, 0);
    for (int32_t v = 0; v < recent.count(); v++) {
      score(scores.data(), n, keys, recent.of(*keys.shape, v, keys.head));
      for (size_t g = 0; g < group; g++) {
        const double total = log_total(scores.data() + g * n, units());
        for (size_t i = 0; i < n; i++) mean[i] += std::exp(static_cast<double>(scores[g * n + i]) - total);
      }
    }
    std::vector<double> tokens;
    for (size_t i = 0; i < n; i++) tokens.insert(tokens.end(), static_cast<size_t>(cells_.size(static_cast<int32_t>(i))), mean[i]);
    const auto at = tokens.begin() + static_cast<std::ptrdiff_t>(o_.quantile * static_cast<double>(tokens.size() - 1));
    std::nth_element(tokens.begin(), at, tokens.end());
    threshold_[0] = static_cast<float>(std::log(std::max(1e-30, *at / static_cast<double>(recent.count() * keys.group()))));
  }

  ClusterOptions o_;
  std::vector<float> threshold_ = {-1e30f};  // ln T
};

Method make(const LayerShape& shape, const Params& params) {
  Method m;
  m.settings.sharing = parse_sharing(params);
  const ClusterOptions o = {params.number("share"), params.number("quantile"), params.integer("iterations", 1, 300), shape.seed};
  if (!(o.share > 0 && o.share <= 1 && o.quantile >= 0 && o.quantile < 1)) {
    fail(KVASIR_ARGUMENT, "Cannot use \"clusters\": share is %g, quantile %g, expected shares", o.share, o.quantile);
  }
  if (o.quantile > 0) m.settings.recent_queries = kVoters, m.settings.selective = true;
  m.empty = std::make_shared<Clusters>(o);
  return m;
}

}  // namespace

extern const IndexType kClusters;
const IndexType kClusters = method_type<make>("clusters", "share=0.05,quantile=0,iterations=10,group=head",
                                              "clusters of a fixed prefix's keys, ranked by their means (Squeezed Attention)");

}  // namespace kvasir
