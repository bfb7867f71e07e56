// Type "mol": mixture of logits (Ding et al. 2024, "Retrieval with Learned Similarities") over the queries of a group:
// phi(k) = sum_h pi_h s_h, pi = softmax over h of s_h / t; the group shares the best keys by phi. Exact, by the paper's
// bound: phi is at most max_h s_h, so pages whose best bound over heads (as type "pages") is below the K-th best phi
// found are skipped. Defaults: t 1. What differs: one item embedding, components not normalized, no learned gate; the
// bound is taken over pages in falling order in place of the top K of each component. Goals that sample propose by page
// bounds. Memory: 2 d floats a page.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>

#include "error.h"
#include "kvasir_index.h"
#include "pages.h"

namespace kvasir {
namespace {

// phi of one key, from scores s[h * stride].
float mixture(const float* s, size_t stride, int32_t group, float t) {
  float most = s[0];
  for (int32_t h = 1; h < group; h++) most = std::max(most, s[static_cast<size_t>(h) * stride]);
  float sum = 0, total = 0;
  for (int32_t h = 0; h < group; h++) {
    const float x = s[static_cast<size_t>(h) * stride], weight = std::exp((x - most) / t);
    total += weight;
    sum += weight * x;
  }
  return std::min(most, sum / total);
}

class Mol final : public BoundedPages {
 public:
  Mol(int32_t size, float t) : BoundedPages(size), t_(t) {}
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<Mol>(*this); }

  bool pick(const HeadKeys& keys, const PickQuery& query, Picked* rows, PickWork& work) const override {
    if (query.goal.kind != Goal::kTopk || query.goal.sample_tail) return false;
    const int32_t pages = units(), group = keys.group();
    const size_t k = static_cast<size_t>(query.goal.value), size = static_cast<size_t>(bounds_.size);
    std::vector<float> bounds(static_cast<size_t>(pages * group)), scores(size * static_cast<size_t>(group));
    score(bounds.data(), static_cast<size_t>(pages), keys, query.q);
    for (int32_t p = 0; p < pages; p++) {
      for (int32_t g = 1; g < group; g++) {
        bounds[static_cast<size_t>(p)] = std::max(bounds[static_cast<size_t>(p)], bounds[static_cast<size_t>(g * pages + p)]);
      }
    }
    std::vector<int32_t> order(static_cast<size_t>(pages));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return bounds[static_cast<size_t>(a)] > bounds[static_cast<size_t>(b)]; });
    // The worst of the best k on top: least phi, then highest position.
    using Kept = std::pair<float, int32_t>;
    std::priority_queue<Kept, std::vector<Kept>, std::greater<Kept>> best;
    for (int32_t p : order) {
      // Rounding of bounds and scores differs.
      const float slack = 1e-5f * std::fabs(bounds[static_cast<size_t>(p)]) + 1e-6f;
      if (best.size() == k && bounds[static_cast<size_t>(p)] + slack < best.top().first) break;
      const int32_t from = p * bounds_.size, to = std::min(meta_[0], from + bounds_.size);
      keys.score(scores.data(), size, query.q, group, from, to);
      for (int32_t i = from; i < to; i++) {
        const Kept one = {mixture(scores.data() + (i - from), size, group, t_), -i};
        if (best.size() == k && !(one > best.top())) continue;
        if (best.size() == k) best.pop();
        best.push(one);
      }
      work.keys_scored += to - from;
    }
    work.bytes_read += work.keys_scored * static_cast<double>(keys.rows->segments().front()->row_bytes()) + score_bytes();
    work.keys_scored += pages;
    rows[0].bias.clear();
    rows[0].ids.clear();
    for (; !best.empty(); best.pop()) rows[0].ids.push_back(-best.top().second);
    std::sort(rows[0].ids.begin(), rows[0].ids.end());
    for (int32_t g = 1; g < group; g++) rows[g] = rows[0];
    return true;
  }

 private:
  float t_;
};

Method make(const LayerShape&, const Params& params) {
  Method m;
  const double t = params.number("t");
  if (!(t > 0 && t <= 1e6)) fail(KVASIR_ARGUMENT, "Cannot use \"mol\": t is %g, expected above 0", t);
  m.settings.bounds = true;
  m.empty = std::make_shared<Mol>(params.integer("size", 1, 4096), static_cast<float>(t));
  return m;
}

}  // namespace

extern const IndexType kMol;
const IndexType kMol = method_type<make>("mol", "t=1,size=16", "the group shares the best keys by a mixture of its heads' logits");

}  // namespace kvasir
