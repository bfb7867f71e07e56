// Type "pages": pages of consecutive keys, ranked by what stands for them.
//   score=bound           Quest (Tang et al. 2024, algorithm 1): Sum_c max(q_c m_c, q_c M_c) with the least and largest key of each
//                         channel; an upper bound of q . k. Defaults: size 16, per query head; first two layers dense (the policy's).
//   score=representative  InfLLM (Xiao et al. 2024, section 3.2): the r keys of a block that later tokens of the local window asked
//                         for most (mean logit), summed: score = sum of q . k over them, over all heads of the layer. Defaults: size
//                         128, r 4, group=layer; with topk=16 blocks the budget is 2048. What differs: keys keep their positions (the
//                         original leaves them unrotated and puts far blocks at one distance), and the mean is over sampled queries.
// Budgets that are no multiple of the page: the best keys of the next page fill up. Memory: 2 d floats a page (bound), d (else).
#include <algorithm>
#include <numeric>

#include "error.h"
#include "kvasir_index.h"
#include "pages.h"

namespace kvasir {

void PageBounds::grow(const HeadKeys& keys, int32_t from) {
  const size_t dim = static_cast<size_t>(keys.dim());
  const int32_t count = (keys.count + size - 1) / size;
  low.resize(static_cast<size_t>(count) * dim, 0);
  high.resize(low.size(), 0);
  std::vector<float> row(dim);
  for (int32_t i = from; i < keys.count; i++) {
    keys.read(row.data(), i, 1);
    float* const l = low.data() + static_cast<size_t>(i / size) * dim;
    float* const h = high.data() + static_cast<size_t>(i / size) * dim;
    const bool first = i % size == 0;
    for (size_t c = 0; c < dim; c++) {
      l[c] = first ? row[c] : std::min(l[c], row[c]);
      h[c] = first ? row[c] : std::max(h[c], row[c]);
    }
  }
}

void PageBounds::bound(float* out, size_t stride, const HeadKeys& keys, const float* q) const {
  const size_t dim = static_cast<size_t>(keys.dim());
  // q m or q M, whichever is larger: the negative part of q meets m, the positive part M.
  std::vector<float> split(2 * dim);
  for (int32_t g = 0; g < keys.group(); g++) {
    for (size_t c = 0; c < dim; c++) {
      const float x = q[static_cast<size_t>(g) * dim + c];
      split[c] = std::min(x, 0.0f), split[dim + c] = std::max(x, 0.0f);
    }
    for (int32_t p = 0; p < pages(keys.dim()); p++) {
      const float* l = low.data() + static_cast<size_t>(p) * dim;
      const float* h = high.data() + static_cast<size_t>(p) * dim;
      float sums[16] = {};
      size_t c = 0;
      for (; c + 16 <= dim; c += 16) {
        for (size_t j = 0; j < 16; j++) sums[j] += split[c + j] * l[c + j] + split[dim + c + j] * h[c + j];
      }
      for (; c < dim; c++) sums[0] += split[c] * l[c] + split[dim + c] * h[c];
      out[static_cast<size_t>(g) * stride + static_cast<size_t>(p)] = keys.shape->scale * std::accumulate(sums, sums + 16, 0.0f);
    }
  }
}

void BoundedPages::grow(const HeadKeys& keys, const Asked&, int32_t from) {
  bounds_.grow(keys, from);
  meta_ = {keys.count};
}

void BoundedPages::members(std::vector<int32_t>& out, int32_t unit) const {
  for (int32_t i = unit * bounds_.size; i < std::min(meta_[0], (unit + 1) * bounds_.size); i++) out.push_back(i);
}

void BoundedPages::visit(Arrays& arrays) {
  arrays("covered", meta_);
  arrays("low", bounds_.low);
  arrays("high", bounds_.high);
}

void BoundedPages::check(const HeadKeys& keys) const {
  expect_size("count", meta_.size(), 1);
  if (meta_[0] != keys.count) fail(KVASIR_ARGUMENT, "Cannot open index: pages of %d keys, expected %d", meta_[0], keys.count);
  const size_t numbers = static_cast<size_t>(units()) * static_cast<size_t>(keys.dim());
  expect_size("pages", bounds_.low.size(), numbers);
  expect_size("pages", bounds_.high.size(), numbers);
}

namespace {

class RepresentativePages final : public HeadState {
 public:
  RepresentativePages(int32_t size, int32_t r, int32_t local) : size_(size), r_(r), local_(local) {}
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<RepresentativePages>(*this); }
  // Blocks close when they are full; keys of the open one are units of their own.
  void grow(const HeadKeys& keys, const Asked& asked, int32_t) override {
    const size_t dim = static_cast<size_t>(keys.dim());
    std::vector<float> mean(dim), own(static_cast<size_t>(keys.group()) * dim), logits(static_cast<size_t>(size_)), row(dim);
    for (; covered() + size_ <= keys.count; meta_[0] += size_) {
      // The mean logit of later queries is that of their mean.
      const int32_t first = keys.begin + covered();
      std::fill(mean.begin(), mean.end(), 0.0f);
      const auto& positions = asked.samples->positions();
      for (size_t i = 0; i < positions.size(); i++) {
        if (positions[i] <= first || positions[i] > first + size_ + local_) continue;
        asked.samples->read(own.data(), *keys.shape, static_cast<int32_t>(i), keys.head);
        for (size_t c = 0; c < own.size(); c++) mean[c % dim] += own[c];
      }
      keys.score(logits.data(), logits.size(), mean.data(), 1, covered(), covered() + size_);
      std::vector<int32_t> order(static_cast<size_t>(size_));
      std::iota(order.begin(), order.end(), 0);
      const int32_t r = std::min(r_, size_);
      std::partial_sort(order.begin(), order.begin() + r, order.end(), [&](int32_t a, int32_t b) {
        const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
        return x > y || (x == y && a < b);
      });
      const size_t at = sums_.size();
      sums_.resize(at + dim, 0);
      for (int32_t i = 0; i < r; i++) {
        keys.read(row.data(), covered() + order[static_cast<size_t>(i)], 1);
        for (size_t c = 0; c < dim; c++) sums_[at + c] += row[c] / static_cast<float>(r);
      }
    }
  }
  int32_t covered() const override { return meta_[0]; }
  int32_t units() const override { return meta_[0] / size_; }
  bool keyed() const override { return false; }
  void members(std::vector<int32_t>& out, int32_t unit) const override {
    for (int32_t i = unit * size_; i < (unit + 1) * size_; i++) out.push_back(i);
  }
  void score(float* out, size_t stride, const HeadKeys& keys, const float* q) const override {
    score_rows(out, stride, keys, q, sums_);
  }
  double score_bytes() const override { return static_cast<double>(bytes()); }
  int32_t keys_scored() const override { return units(); }
  void visit(Arrays& arrays) override {
    arrays("covered", meta_);
    arrays("representatives", sums_);
  }
  void check(const HeadKeys& keys) const override {
    expect_size("count", meta_.size(), 1);
    if (meta_[0] < 0 || meta_[0] > keys.count || meta_[0] % size_ != 0) {
      fail(KVASIR_ARGUMENT, "Cannot open index: blocks of %d keys, expected at most %d", meta_[0], keys.count);
    }
    expect_size("blocks", sums_.size(), static_cast<size_t>(units()) * static_cast<size_t>(keys.dim()));
  }

 private:
  int32_t size_, r_, local_;
  std::vector<int32_t> meta_ = {0};
  std::vector<float> sums_;  // [blocks, dim]: means of representatives
};

Method make(const LayerShape&, const Params& params) {
  Method m;
  const int32_t size = params.integer("size", 1, 4096);
  m.settings.sharing = parse_sharing(params);
  if (params.choice("score", {"bound", "representative"}) == 0) {
    m.settings.bounds = true;
    m.empty = std::make_shared<BoundedPages>(size);
  } else {
    m.settings.sampled_queries = true;
    m.empty = std::make_shared<RepresentativePages>(size, params.integer("r", 1, 4096), params.integer("local", 1, 1 << 24));
  }
  return m;
}

}  // namespace

extern const IndexType kPages;
const IndexType kPages = method_type<make>("pages", "size=16,score=bound,group=head,r=4,local=4096",
                                           "pages of keys ranked by min/max bounds (Quest) or by representative keys (InfLLM)");

}  // namespace kvasir
