// Type "channels": SparQ attention (Ribar et al. 2024, algorithm 1). A second copy of the keys lies channel by channel;
// the r channels with the largest sum over heads of |q_c| score all keys: s = q_r . k_r / sqrt(d |q_r|_1 / |q|_1), in
// units of the model's own scale. The best k of the group's summed softmax weights are attended, a quarter of them the
// newest. With tail=surrogate the mean value of all keys stands for the rest, with the weight that approximate scores
// give it: (1 - alpha) v + alpha o. Defaults: r 32 (k 128 is the policy's budget). What differs: the mean, alpha and
// the newest quarter are of what the index holds; sinks and window are exact beside. Grows by appending. Memory: 2 d
// bytes a key as f16 would; ours float, 4 d.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "error.h"
#include "kvasir_index.h"
#include "method.h"

namespace kvasir {
namespace {

constexpr int32_t kBlock = 1024;  // keys whose channels lie together

class Channels final : public HeadState {
 public:
  explicit Channels(int32_t r) : r_(r) {}
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<Channels>(*this); }

  void grow(const HeadKeys& keys, const Asked&, int32_t from) override {
    const size_t dim = static_cast<size_t>(keys.dim());
    channels_.resize(static_cast<size_t>((keys.count + kBlock - 1) / kBlock) * dim * kBlock, 0);
    values_.resize(dim, 0);
    std::vector<float> row(dim);
    for (int32_t i = from; i < keys.count; i++) {
      keys.read(row.data(), i, 1);
      float* block = channels_.data() + static_cast<size_t>(i / kBlock) * dim * kBlock + static_cast<size_t>(i % kBlock);
      for (size_t c = 0; c < dim; c++) block[c * kBlock] = row[c];
      keys.read_values(row.data(), i, 1);
      for (size_t c = 0; c < dim; c++) values_[c] += row[c];
    }
    meta_[0] = keys.count;
  }
  int32_t covered() const override { return meta_[0]; }

  void score(float* out, size_t stride, const HeadKeys& keys, const float* q) const override {
    const size_t dim = static_cast<size_t>(keys.dim());
    std::vector<float> size(dim);
    for (int32_t g = 0; g < keys.group(); g++) {
      for (size_t c = 0; c < dim; c++) size[c] += std::fabs(q[static_cast<size_t>(g) * dim + c]);
    }
    std::vector<size_t> order(dim);
    std::iota(order.begin(), order.end(), size_t{0});
    const size_t r = std::min(dim, static_cast<size_t>(r_));
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return size[a] > size[b]; });
    for (int32_t g = 0; g < keys.group(); g++) {
      const float* own = q + static_cast<size_t>(g) * dim;
      float all = 0, chosen = 0;
      for (size_t c = 0; c < dim; c++) all += std::fabs(own[c]);
      for (size_t j = 0; j < r; j++) chosen += std::fabs(own[order[j]]);
      const float factor = chosen > 0 ? keys.shape->scale / std::sqrt(chosen / all) : 0;
      float* to = out + static_cast<size_t>(g) * stride;
      std::fill(to, to + meta_[0], 0.0f);
      for (int32_t from = 0; from < meta_[0]; from += kBlock) {
        const int32_t n = std::min(kBlock, meta_[0] - from);
        const float* block = channels_.data() + static_cast<size_t>(from / kBlock) * dim * kBlock;
        for (size_t j = 0; j < r; j++) {
          const float x = factor * own[order[j]];
          const float* channel = block + order[j] * kBlock;
          for (int32_t i = 0; i < n; i++) to[from + i] += x * channel[i];
        }
      }
    }
  }
  double score_bytes() const override { return static_cast<double>(meta_[0]) * r_ * 4; }

  void rest(float* o, float* lse, const HeadKeys& keys, const float* q, const float* scores, const float*,
            const std::vector<int32_t>& ids) const override {
    std::vector<float> picked(ids.size());
    for (size_t i = 0; i < ids.size(); i++) picked[i] = scores[ids[i]];
    const int32_t n = static_cast<int32_t>(ids.size());
    const double alpha = std::exp(log_sum_exp(picked.data(), n) - log_sum_exp(scores, keys.count));
    keys.score_ids(picked.data(), q, ids.data(), n);
    for (float& s : picked) s = keys.shape->softcap > 0 ? keys.shape->softcap * std::tanh(s / keys.shape->softcap) : s;
    *lse = static_cast<float>(log_sum_exp(picked.data(), n) + std::log((1 - alpha) / alpha));
    if (!(alpha > 0 && alpha < 1)) *lse = -__builtin_inff();
    for (size_t c = 0; c < values_.size(); c++) o[c] = values_[c] / static_cast<float>(meta_[0]);
  }

  void visit(Arrays& arrays) override {
    arrays("count", meta_);
    arrays("channels", channels_);
    arrays("values", values_);
  }
  void check(const HeadKeys& keys) const override {
    expect_size("count", meta_.size(), 1);
    if (meta_[0] != keys.count) fail(KVASIR_ARGUMENT, "Cannot open index: channels of %d keys, expected %d", meta_[0], keys.count);
    const size_t dim = static_cast<size_t>(keys.dim());
    expect_size("channels", channels_.size(), static_cast<size_t>((meta_[0] + kBlock - 1) / kBlock) * dim * kBlock);
    expect_size("values", values_.size(), meta_[0] == 0 ? 0 : dim);
  }

 private:
  int32_t r_;
  std::vector<int32_t> meta_ = {0};
  std::vector<float> channels_;  // [blocks, dim, kBlock]
  std::vector<float> values_;    // [dim]: their sum
};

Method make(const LayerShape&, const Params& params) {
  Method m;
  m.settings.sharing = parse_sharing(params);
  m.settings.recent_share = params.number("recent");
  if (m.settings.recent_share < 0 || m.settings.recent_share > 1) {
    fail(KVASIR_ARGUMENT, "Cannot use \"channels\": recent is %g, expected 0 to 1", m.settings.recent_share);
  }
  m.settings.surrogates = true;
  m.empty = std::make_shared<Channels>(params.integer("r", 1, 4096));
  return m;
}

}  // namespace

extern const IndexType kChannels;
const IndexType kChannels = method_type<make>("channels", "r=32,recent=0.25,group=sum",
                                              "scores keys by the query's largest channels (SparQ); the mean value for the rest");

}  // namespace kvasir
