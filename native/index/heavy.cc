// Type "heavy": H2O, heavy hitters (Zhang et al. 2023, algorithm 1): of the prompt the `share` of tokens is kept whose
// accumulated attention weights A_i are largest, beside the `recent` newest; decode queries add their weights, over
// what is kept, and what falls behind is gone for good. Defaults: both 0.1 of the prompt [their code]. mean=true
// divides A_i by how many queries saw token i, as KVPress does (H2O does not, so that early tokens gather more).
// What differs: weights come of queries at positions divisible by `every`, recomputed in the commit that makes tokens
// searchable, not from the attention kernel; decode queries count, and tokens are dropped, when the next block of
// tokens joins the index (64 of them), not at each step. Goals that sample draw by A from everything. Memory: 4 bytes a
// key and query head; queries until they count.
#include "error.h"
#include "kvasir_index.h"
#include "votes.h"

namespace kvasir {
namespace {

// Sums of weights are below e^20.
constexpr float kGone = -1, kGoneScore = -1e4f, kNewScore = 20, kLeast = 1e-30f;

struct HeavyOptions {
  double share, recent;
  bool mean;
};

class Heavy final : public HeadState {
 public:
  explicit Heavy(const HeavyOptions& options) : o_(options) {}
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<Heavy>(*this); }

  void grow(const HeadKeys& keys, const Asked& asked, int32_t from) override {
    const int32_t group = keys.group();
    const size_t had = static_cast<size_t>(from), n = static_cast<size_t>(keys.count);
    std::vector<float> sums(n * static_cast<size_t>(group), 0);
    for (size_t g = 0; g < static_cast<size_t>(group); g++) {
      std::copy_n(sums_.begin() + static_cast<std::ptrdiff_t>(g * had), had, sums.begin() + static_cast<std::ptrdiff_t>(g * n));
    }
    sums_ = std::move(sums);
    if (meta_[0] == 0) meta_[1] = keys.count, meta_[2] = keys.count;
    meta_[0] = keys.count;
    const RecentQueries& recent = *asked.recent;
    if (recent.count() > 0) {
      const HeadKeys visible = visible_keys(keys, recent.position(recent.count() - 1));
      const int32_t skip = keys.begin - visible.begin;
      if (from == 0) meta_[1] = meta_[2] = std::max(keys.count, visible.count);  // tokens of the prompt
      std::vector<float> weights;
      for (int32_t i = 0; i < recent.count(); i++) {
        const int32_t seen = std::min(recent.position(i) + 1 - visible.begin, visible.count);
        if (seen <= 0) continue;
        const auto is_gone = [&](int32_t g, int32_t row) {
          return row >= skip && row < skip + keys.count && at(g, row - skip) == kGone;
        };
        attention_weights(weights, visible, recent.of(*keys.shape, i, keys.head), seen, is_gone);
        for (int32_t g = 0; g < group; g++) {
          const float* w = weights.data() + static_cast<size_t>(g) * static_cast<size_t>(seen) + skip;
          for (int32_t j = 0; j < std::min(keys.count, seen - skip); j++) {
            if (at(g, j) != kGone) at(g, j) += w[j];
          }
        }
      }
    }
    for (int32_t g = 0; g < group; g++) evict(g, keys.begin - keys.rows->begin());
  }
  int32_t covered() const override { return meta_[0]; }

  void score(float* out, size_t stride, const HeadKeys& keys, const float*) const override {
    const int32_t old = meta_[0] - newest();
    for (int32_t g = 0; g < keys.group(); g++) {
      for (int32_t i = 0; i < meta_[0]; i++) {
        const float a = sums_[static_cast<size_t>(g) * static_cast<size_t>(meta_[0]) + static_cast<size_t>(i)];
        out[static_cast<size_t>(g) * stride + static_cast<size_t>(i)] =
            i >= old ? kNewScore : a == kGone ? kGoneScore : std::log(std::max(a, kLeast));
      }
    }
  }
  double score_bytes() const override { return static_cast<double>(bytes()); }
  int32_t keys_scored() const override { return 0; }  // nothing depends on the query
  int32_t wanted(const float* scores, int32_t n, int32_t k) const override {
    return std::min(k, static_cast<int32_t>(std::count_if(scores, scores + n, [](float s) { return s > kGoneScore; })));
  }
  void visit(Arrays& arrays) override {
    arrays("counts", meta_);
    arrays("sums", sums_);
  }
  void check(const HeadKeys& keys) const override {
    expect_size("counts", meta_.size(), 3);
    if (meta_[0] != keys.count || meta_[1] < 0 || meta_[2] < 0) {
      fail(KVASIR_ARGUMENT, "Cannot open index: weights of %d keys, expected %d", meta_[0], keys.count);
    }
    expect_size("sums", sums_.size(), static_cast<size_t>(keys.count) * static_cast<size_t>(keys.group()));
  }

 private:
  float& at(int32_t g, int32_t i) { return sums_[static_cast<size_t>(g) * static_cast<size_t>(meta_[0]) + static_cast<size_t>(i)]; }
  int32_t newest() const { return std::min(meta_[0], static_cast<int32_t>(o_.recent * meta_[1])); }

  // All but the newest and the heaviest go.
  void evict(int32_t g, int32_t skip) {
    const int32_t old = meta_[0] - newest(), most = std::max(1, static_cast<int32_t>(o_.share * meta_[1]));
    std::vector<std::pair<float, int32_t>> alive;  // falling weight
    for (int32_t i = 0; i < old; i++) {
      if (at(g, i) == kGone) continue;
      const float seen = o_.mean ? static_cast<float>(std::max(1, meta_[2] - skip - i)) : 1.0f;
      alive.push_back({-at(g, i) / seen, i});
    }
    if (static_cast<int32_t>(alive.size()) <= most) return;
    std::nth_element(alive.begin(), alive.begin() + most, alive.end());
    for (size_t i = static_cast<size_t>(most); i < alive.size(); i++) at(g, alive[i].second) = kGone;
  }

  HeavyOptions o_;
  std::vector<int32_t> meta_ = {0, 0, 0};  // keys; tokens of the prompt; the same, to divide by
  std::vector<float> sums_;                // [group, keys]: A, or kGone
};

Method make(const LayerShape&, const Params& params) {
  Method m;
  m.settings.selective = true;
  m.settings.recent_queries = 1 << 30;
  m.settings.recent_every = params.integer("every", 1, 1 << 20);
  m.settings.consumes = true;
  const HeavyOptions o = {params.number("share"), params.number("recent"), params.flag("mean")};
  if (!(o.share > 0 && o.share <= 1 && o.recent >= 0 && o.recent <= 1)) {
    fail(KVASIR_ARGUMENT, "Cannot use \"heavy\": share is %g, recent %g, expected shares", o.share, o.recent);
  }
  m.empty = std::make_shared<Heavy>(o);
  return m;
}

}  // namespace

extern const IndexType kHeavy;
const IndexType kHeavy = method_type<make>("heavy", "share=0.1,recent=0.1,every=8,mean=false",
                                           "keeps the tokens with most accumulated attention, and the newest (H2O)");

}  // namespace kvasir
