// Type "snap": SnapKV (Li et al. 2024, section 4): what the last w queries of the prompt attend to is kept, nothing
// else is seen again. a_i = sum over those queries of their softmax weight of key i (over all they see), pooled over m
// neighbours; the best of a budget C - w, chosen when the prompt ends; the w last tokens are the policy's window.
// PyramidKV (Cai et al. 2024) is the same with budgets by layer, which are the policy's. Defaults: w 64, m 5, average
// (signature of the authors' code). group=head: each query head keeps its own; group=mean: KVPress, KVCache-Factory.
// What differs: positions before the index's first (sinks, if the policy has any) are attended anyway and not counted
// in the budget. Tokens that are added later are kept, newest first where the budget is short (published: it grows).
// Goals that sample draw by votes from everything. Memory: one float a key and head that chooses.
#include <algorithm>
#include <cmath>

#include "error.h"
#include "kvasir_index.h"
#include "votes.h"

namespace kvasir {
namespace {

constexpr float kKept = 1e4f, kStep = 0.01f;  // scores of what is kept unasked: above all logarithms, newer ones first
constexpr float kLeast = 1e-30f;

struct SnapOptions {
  int32_t pool;
  bool by_max, apart;
};

class Snap final : public HeadState {
 public:
  explicit Snap(const SnapOptions& options) : o_(options) {}
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<Snap>(*this); }

  void grow(const HeadKeys& keys, const Asked& asked, int32_t from) override {
    meta_[0] = keys.count;
    if (from == 0) {
      meta_[1] = keys.count;
      freeze(keys, *asked.recent);
    }
  }
  int32_t covered() const override { return meta_[0]; }
  void score(float* out, size_t stride, const HeadKeys& keys, const float*) const override {
    const size_t frozen = static_cast<size_t>(meta_[1]);
    for (int32_t g = 0; g < keys.group(); g++) {
      float* to = out + static_cast<size_t>(g) * stride;
      const float* votes = votes_.data() + (o_.apart ? static_cast<size_t>(g) * frozen : 0);
      std::copy(votes, votes + frozen, to);
      for (int32_t i = meta_[1]; i < meta_[0]; i++) to[i] = kKept + kStep * static_cast<float>(i);
    }
  }
  double score_bytes() const override { return static_cast<double>(bytes()); }
  int32_t keys_scored() const override { return 0; }  // nothing depends on the query
  void visit(Arrays& arrays) override {
    arrays("counts", meta_);
    arrays("votes", votes_);
  }
  void check(const HeadKeys& keys) const override {
    expect_size("counts", meta_.size(), 2);
    if (meta_[0] != keys.count || meta_[1] < 0 || meta_[1] > meta_[0]) {
      fail(KVASIR_ARGUMENT, "Cannot open index: votes on %d of %d keys, expected %d", meta_[1], meta_[0], keys.count);
    }
    expect_size("votes", votes_.size(), static_cast<size_t>(meta_[1]) * static_cast<size_t>(o_.apart ? keys.group() : 1));
  }
  std::string decision() const override {
    if (meta_[0] == 0) return "";
    return "kept by votes of " + std::to_string(voters_) + " queries on " + std::to_string(meta_[1]) + " tokens";
  }

 private:
  void freeze(const HeadKeys& keys, const RecentQueries& recent) {
    const int32_t group = keys.group(), rows = o_.apart ? group : 1;
    votes_.assign(static_cast<size_t>(meta_[1]) * static_cast<size_t>(rows), 0);
    voters_ = recent.count();
    if (voters_ == 0) {  // nobody asked: the newest
      for (size_t i = 0; i < votes_.size(); i++) votes_[i] = kStep * static_cast<float>(i % static_cast<size_t>(meta_[1]));
      return;
    }
    // Votes on all that stands before the voters.
    const HeadKeys visible = visible_keys(keys, recent.position(voters_ - 1));
    const int32_t first = std::min(recent.position(0) - visible.begin, visible.count);
    const int32_t before = std::max(keys.begin + keys.count - visible.begin, first);
    std::vector<float> weights;
    std::vector<double> sums(static_cast<size_t>(before) * static_cast<size_t>(group));
    for (int32_t v = 0; v < voters_; v++) {
      const int32_t seen = std::min(recent.position(v) + 1 - visible.begin, visible.count);
      if (seen <= 0) continue;
      attention_weights(weights, visible, recent.of(*keys.shape, v, keys.head), seen, [](int32_t, int32_t) { return false; });
      for (int32_t g = 0; g < group; g++) {
        const float* w = weights.data() + static_cast<size_t>(g) * static_cast<size_t>(seen);
        double* to = sums.data() + static_cast<size_t>(g) * static_cast<size_t>(before);
        for (int32_t i = 0; i < std::min(seen, before); i++) to[i] += static_cast<double>(w[i]);
      }
    }
    const int32_t skip = keys.begin - visible.begin, half = o_.pool / 2;
    for (int32_t g = 0; g < group; g++) {
      const double* from = sums.data() + static_cast<size_t>(g) * static_cast<size_t>(before);
      float* to = votes_.data() + (o_.apart ? static_cast<size_t>(g) * static_cast<size_t>(meta_[1]) : 0);
      for (int32_t i = 0; i < meta_[1]; i++) {
        double pooled = 0;
        for (int32_t j = std::max(0, skip + i - half); j <= std::min(before - 1, skip + i + half); j++) {
          pooled = o_.by_max ? std::max(pooled, from[j]) : pooled + from[j] / o_.pool;
        }
        to[i] += static_cast<float>(pooled);
      }
    }
    for (float& x : votes_) x = std::log(std::max(x, kLeast));
  }

  SnapOptions o_;
  int32_t voters_ = 0;
  std::vector<int32_t> meta_ = {0, 0};  // keys, of them those that were voted on
  std::vector<float> votes_;            // [heads that choose, voted]: logarithms
};

Method make(const LayerShape&, const Params& params) {
  Method m;
  m.settings.recent_queries = params.integer("observe", 1, 1024);
  const bool apart = params.choice("group", {"head", "mean"}) == 0;
  m.settings.sharing = apart ? Sharing::kHead : Sharing::kMean;
  const int32_t pool = params.integer("pool", 1, 255);
  if (pool % 2 == 0) fail(KVASIR_ARGUMENT, "Cannot use \"snap\": pool is %d, expected an odd number", pool);
  m.empty = std::make_shared<Snap>(SnapOptions{pool, params.choice("kind", {"avg", "max"}) == 1, apart});
  return m;
}

}  // namespace

extern const IndexType kSnap;
const IndexType kSnap = method_type<make>("snap", "observe=64,pool=5,kind=avg,group=head",
                                          "keeps what the last prompt queries attended to (SnapKV, PyramidKV)");

}  // namespace kvasir
