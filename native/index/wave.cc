// Type "wave": RetroInfer (Chen et al. 2025, section 4): clusters of keys, ranked by softmax weights summed over the
// group; the first share is opened (its tokens are hits), the next is estimated, the rest ignored. With tail=surrogate
// the estimate stands for those tokens: cluster C of size m, mean key c and value sum V adds m exp(q . c) to the
// denominator and V exp(q . c) to the numerator, a lower bound of its mass (Jensen). Defaults: keys minus their mean,
// segments of 8192, n / 16 clusters, 9 spherical iterations, opened 0.018, estimated 0.232; every 1024 tokens 64 more
// clusters; 4 + 64 tokens exact are the policy's. What differs: clusters keep to their segment (published: one more
// pass over all); keys without a cluster yet, the newest ones, are attended exactly within the estimate. Memory: 2 d
// floats a cluster, 4 bytes a key.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "cells.h"
#include "error.h"
#include "kvasir_index.h"

namespace kvasir {
namespace {

struct WaveOptions {
  int32_t cluster, segment, iterations, step;
  double retrieve, estimate;
  uint32_t seed;
};

class Wave final : public CellState {
 public:
  explicit Wave(const WaveOptions& options) : o_(options) {}
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<Wave>(*this); }

  void grow(const HeadKeys& keys, const Asked&, int32_t) override {
    const size_t dim = static_cast<size_t>(keys.dim());
    if (keys.count - covered() < o_.step) return;
    if (mean_.empty()) {
      mean_.assign(dim, 0);
      std::vector<float> row(dim);
      for (int32_t i = 0; i < keys.count; i++) {
        keys.read(row.data(), i, 1);
        for (size_t c = 0; c < dim; c++) mean_[c] += row[c] / static_cast<float>(keys.count);
      }
    }
    // What there is at first in segments, later steps as they come.
    const int32_t size = covered() == 0 ? o_.segment : o_.step, first = cells_.count();
    const int32_t end = covered() == 0 ? keys.count : covered() + (keys.count - covered()) / o_.step * o_.step;
    for (int32_t from = covered(); from < end; from = covered()) {
      const int32_t to = std::min(end, from + size);
      cells_.cluster(keys, from, to, (to - from + o_.cluster - 1) / o_.cluster, o_.iterations,
                     o_.seed + static_cast<uint32_t>(from + keys.head), mean_.data());
    }
    values_.resize(static_cast<size_t>(cells_.count()) * dim, 0);
    std::vector<float> row(dim);
    for (int32_t cell = first; cell < cells_.count(); cell++) {
      for (int32_t i = 0; i < cells_.size(cell); i++) {
        keys.read_values(row.data(), cells_.begin(cell)[i], 1);
        for (size_t c = 0; c < dim; c++) values_[static_cast<size_t>(cell) * dim + c] += row[c];
      }
    }
  }
  bool whole() const override { return true; }
  int32_t wanted(const float*, int32_t, int32_t k) const override {
    if (o_.retrieve == 0) return k;
    return std::min(k, std::max(o_.cluster, static_cast<int32_t>(o_.retrieve * covered())));
  }

  void rest(float* o, float* lse, const HeadKeys& keys, const float*, const float* scores, const float* ranking,
            const std::vector<int32_t>& ids) const override {
    const size_t dim = static_cast<size_t>(keys.dim());
    const auto is_hit = [&](int32_t id) { return std::binary_search(ids.begin(), ids.end(), id); };
    std::vector<int32_t> closed;
    for (int32_t cell = 0; cell < units(); cell++) {
      if (!is_hit(cells_.begin(cell)[0])) closed.push_back(cell);
    }
    const size_t most = static_cast<size_t>(std::ceil(o_.estimate * units())), kept = std::min(closed.size(), most);
    std::partial_sort(closed.begin(), closed.begin() + static_cast<std::ptrdiff_t>(kept), closed.end(), [&](int32_t a, int32_t b) {
      return ranking[a] > ranking[b] || (ranking[a] == ranking[b] && a < b);
    });
    closed.resize(kept);
    std::vector<float> logits;
    for (int32_t cell : closed) logits.push_back(scores[cell] + std::log(static_cast<float>(cells_.size(cell))));
    const int32_t pending = keys.count - covered();
    std::vector<int32_t> missing;
    for (int32_t i = 0; i < pending; i++) {
      if (is_hit(covered() + i)) continue;
      missing.push_back(covered() + i);
      logits.push_back(scores[units() + i]);
    }
    const double total = log_sum_exp(logits.data(), static_cast<int32_t>(logits.size()));
    *lse = static_cast<float>(total);
    std::vector<float> row(dim);
    for (size_t i = 0; i < logits.size(); i++) {
      float weight = std::exp(logits[i] - *lse);
      const float* value = row.data();
      if (i < closed.size()) {
        value = values_.data() + static_cast<size_t>(closed[i]) * dim;
        weight /= static_cast<float>(cells_.size(closed[i]));
      } else {
        keys.read_values(row.data(), missing[i - closed.size()], 1);
      }
      for (size_t c = 0; c < dim; c++) o[c] += weight * value[c];
    }
  }

  void visit(Arrays& arrays) override {
    cells_.visit(arrays);
    arrays("values", values_);
    arrays("mean", mean_);
  }
  void check(const HeadKeys& keys) const override {
    cells_.check(keys);
    expect_size("values", values_.size(), cells_.centroids.size());
    expect_size("mean", mean_.size(), cells_.count() == 0 ? 0 : static_cast<size_t>(keys.dim()));
  }

 private:
  WaveOptions o_;
  std::vector<float> values_;  // [cells, dim]: sums
  std::vector<float> mean_;    // of the first keys
};

Method make(const LayerShape& shape, const Params& params) {
  Method m;
  m.settings.sharing = parse_sharing(params);
  m.settings.surrogates = true;
  const WaveOptions o = {params.integer("cluster", 1, 4096), params.integer("segment", 64, 1 << 20), params.integer("iterations", 1, 300),
                         params.integer("step", 64, 1 << 20), params.number("retrieve"), params.number("estimate"), shape.seed};
  if (!(o.retrieve >= 0 && o.retrieve <= 1 && o.estimate >= 0 && o.estimate <= 1)) {
    fail(KVASIR_ARGUMENT, "Cannot use \"wave\": retrieve is %g, estimate %g, expected shares", o.retrieve, o.estimate);
  }
  m.settings.selective = o.retrieve > 0;
  m.empty = std::make_shared<Wave>(o);
  return m;
}

}  // namespace

extern const IndexType kWave;
const IndexType kWave = method_type<make>(
    "wave", "cluster=16,segment=8192,iterations=9,step=1024,retrieve=0.018,estimate=0.232,group=sum",
    "opens the best clusters and lets others stand for their tokens (RetroInfer); retrieve=0: by budget alone");

}  // namespace kvasir
