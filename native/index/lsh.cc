// Type "lsh": MagicPIG (Chen et al. 2024, algorithm 1). l tables of k signs of random projections of k' = key - mean of
// the first keys; with tail=sample the keys that collide with the query in at least two tables are attended, weighted
// by 1 / pi: with p = 1 - arccos(cos(q, k')) / pi and x = p^k, pi = 1 - (1 - x)^l - l x (1 - x)^(l - 1), and the bias
// -ln(pi + 1e-4). Defaults: k 10, l 150 (170 for its 2.5 % cost); sinks 4, window 64, dense layers 0, 16, 32, 48 are
// the policy's. What differs: tables are columns of codes that are compared with the query's, not hash tables: the same
// keys collide, and time depends on n. Where more collide than the budget has room for, so many are drawn, weighted by
// that, too; the tables themselves are not drawn anew, so that no draw vouches for its mean. tail=none takes the keys
// with most collisions. Shifting keys changes no softmax, hence only codes and angles. Grows: by codes (published:
// window only, as the policy's grow=false). Memory: 2 l bytes a key.
#include <algorithm>
#include <cmath>

#include "draw.h"
#include "kvasir_index.h"
#include "method.h"
#include "panel_kernels.h"

namespace kvasir {
namespace {

constexpr int32_t kBlock = 1024, kBatch = 64;  // keys whose codes of a table lie together; that are projected at once

// Projections, the same for all heads: [l * k, dim], normal by Box and Muller.
Panels projections(int32_t rows, int32_t dim, uint32_t seed) {
  std::vector<float> p(static_cast<size_t>(rows) * static_cast<size_t>(dim));
  for (size_t i = 0; i < p.size(); i++) {
    const uint32_t key = lowbias32(seed), at = static_cast<uint32_t>(2 * i);
    const double u = (lowbias32(at ^ key) + 1.0) / 4294967297.0, angle = 2 * M_PI * lowbias32((at + 1) ^ key) / 4294967296.0;
    p[i] = static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(angle));
  }
  Panels panels;
  panels.pack(p.data(), rows, dim);
  return panels;
}

class Lsh final : public HeadState {
 public:
  Lsh(int32_t k, int32_t l, std::shared_ptr<const Panels> planes) : k_(k), l_(l), planes_(std::move(planes)) {}
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<Lsh>(*this); }

  void grow(const HeadKeys& keys, const Asked&, int32_t from) override {
    const size_t dim = static_cast<size_t>(keys.dim());
    std::vector<float> rows(kBatch * dim), products;
    if (from == 0) {
      mean_.assign(dim, 0);
      for (int32_t i = 0; i < keys.count; i++) {
        keys.read(rows.data(), i, 1);
        for (size_t c = 0; c < dim; c++) mean_[c] += rows[c] / static_cast<float>(keys.count);
      }
    }
    codes_.resize(static_cast<size_t>((keys.count + kBlock - 1) / kBlock * l_) * kBlock, 0);
    norms_.resize(static_cast<size_t>(keys.count));
    std::vector<uint16_t> codes(static_cast<size_t>(l_));
    for (int32_t i = from; i < keys.count; i += kBatch) {
      const int32_t n = std::min(kBatch, keys.count - i);
      keys.read(rows.data(), i, n);
      for (size_t j = 0; j < static_cast<size_t>(n) * dim; j++) rows[j] -= mean_[j % dim];
      project(products, keys, rows.data(), n);
      for (int32_t r = 0; r < n; r++) {
        const float* row = rows.data() + static_cast<size_t>(r) * dim;
        double square = 0;
        for (size_t c = 0; c < dim; c++) square += static_cast<double>(row[c]) * static_cast<double>(row[c]);
        norms_[static_cast<size_t>(i + r)] = static_cast<float>(std::sqrt(square));
        sign(codes.data(), products.data() + static_cast<size_t>(r) * planes_->width());
        const int32_t key = i + r;
        uint16_t* block = codes_.data() + static_cast<size_t>(key / kBlock * l_) * kBlock + static_cast<size_t>(key % kBlock);
        for (int32_t t = 0; t < l_; t++) block[static_cast<size_t>(t) * kBlock] = codes[static_cast<size_t>(t)];
      }
    }
  }
  int32_t covered() const override { return static_cast<int32_t>(norms_.size()); }

  // Collisions of each key.
  void score(float* out, size_t stride, const HeadKeys& keys, const float* q) const override {
    std::vector<float> products;
    std::vector<uint16_t> codes(static_cast<size_t>(l_)), hits(kBlock);
    project(products, keys, q, keys.group());
    for (int32_t g = 0; g < keys.group(); g++) {
      sign(codes.data(), products.data() + static_cast<size_t>(g) * planes_->width());
      for (int32_t from = 0; from < covered(); from += kBlock) {
        std::fill(hits.begin(), hits.end(), uint16_t{0});
        const uint16_t* block = codes_.data() + static_cast<size_t>(from / kBlock * l_) * kBlock;
        for (int32_t t = 0; t < l_; t++, block += kBlock) {
          const uint16_t own = codes[static_cast<size_t>(t)];
          for (size_t i = 0; i < kBlock; i++) hits[i] = static_cast<uint16_t>(hits[i] + (block[i] == own));
        }
        for (int32_t i = 0; i < std::min(kBlock, covered() - from); i++) {
          out[static_cast<size_t>(g) * stride + static_cast<size_t>(from + i)] = static_cast<float>(hits[static_cast<size_t>(i)]);
        }
      }
    }
  }
  double score_bytes() const override { return static_cast<double>(codes_.size()) * 2; }

  bool pick(const HeadKeys& keys, const PickQuery& query, Picked* rows, PickWork& work) const override {
    if (query.goal.kind != Goal::kTopk || !query.goal.sample_tail) return false;
    const size_t dim = static_cast<size_t>(keys.dim()), n = static_cast<size_t>(covered());
    const size_t most = static_cast<size_t>(query.goal.value);
    std::vector<float> counts(n * static_cast<size_t>(keys.group())), logits;
    score(counts.data(), n, keys, query.q);
    for (int32_t g = 0; g < keys.group(); g++) {
      Picked& row = rows[g];
      row.ids.clear();
      for (size_t i = 0; i < n; i++) {
        if (counts[static_cast<size_t>(g) * n + i] >= 2) row.ids.push_back(static_cast<int32_t>(i));
      }
      float thinned = 0;
      if (row.ids.size() > most) {
        thinned = static_cast<float>(std::log(static_cast<double>(row.ids.size()) / static_cast<double>(most)));
        const uint32_t key = draw_key(query.goal.draw, keys.head);
        const auto cut = row.ids.begin() + static_cast<std::ptrdiff_t>(most);
        std::nth_element(row.ids.begin(), cut, row.ids.end(), [&](int32_t a, int32_t b) {
          return draw_bits(key, keys.begin + a) < draw_bits(key, keys.begin + b);
        });
        row.ids.resize(most);
        std::sort(row.ids.begin(), row.ids.end());
      }
      const float* q = query.q + static_cast<size_t>(g) * dim;
      logits.resize(row.ids.size());
      keys.score_ids(logits.data(), q, row.ids.data(), static_cast<int32_t>(row.ids.size()));
      double offset = 0, square = 0;
      for (size_t c = 0; c < dim; c++) offset += static_cast<double>(q[c] * mean_[c]), square += static_cast<double>(q[c] * q[c]);
      row.bias.resize(row.ids.size());
      for (size_t i = 0; i < row.ids.size(); i++) {
        const double length = std::sqrt(square) * static_cast<double>(norms_[static_cast<size_t>(row.ids[i])]);
        const double dot = static_cast<double>(logits[i] / keys.shape->scale) - offset;
        const double cosine = length > 0 ? std::max(-1.0, std::min(1.0, dot / length)) : 0;
        const double x = std::pow(1 - std::acos(cosine) / M_PI, k_), none = std::pow(1 - x, l_ - 1);
        const double chance = 1 - (1 - x) * none - l_ * x * none;
        row.bias[i] = std::max(0.0f, static_cast<float>(-std::log(std::max(0.0, chance) + 1e-4)) + thinned);
      }
      work.keys_scored += static_cast<double>(row.ids.size());
      work.bytes_read += static_cast<double>(row.ids.size() * dim) * 2;
    }
    work.keys_scored += covered();
    work.bytes_read += score_bytes();
    return true;
  }

  void visit(Arrays& arrays) override {
    arrays("mean", mean_);
    arrays("norms", norms_);
    arrays("codes", codes_);
  }
  void check(const HeadKeys& keys) const override {
    expect_size("mean", mean_.size(), keys.count == 0 ? 0 : static_cast<size_t>(keys.dim()));
    expect_size("norms", norms_.size(), static_cast<size_t>(keys.count));
    expect_size("codes", codes_.size(), static_cast<size_t>((keys.count + kBlock - 1) / kBlock * l_) * kBlock);
  }

 private:
  void project(std::vector<float>& out, const HeadKeys& keys, const float* rows, int32_t count) const {
    out.resize(planes_->width() * static_cast<size_t>(count));
    planes_->dot(*keys.environment->isa->panels, out.data(), rows, count);
  }
  void sign(uint16_t* codes, const float* products) const {
    for (int32_t t = 0; t < l_; t++) {
      uint32_t code = 0;
      for (int32_t b = 0; b < k_; b++) code |= static_cast<uint32_t>(products[t * k_ + b] > 0) << b;
      codes[t] = static_cast<uint16_t>(code);
    }
  }

  int32_t k_, l_;
  std::shared_ptr<const Panels> planes_;
  std::vector<float> mean_, norms_;  // [dim]; [keys]: of k'
  std::vector<uint16_t> codes_;      // [blocks, l, kBlock]
};

Method make(const LayerShape& shape, const Params& params) {
  Method m;
  m.settings.draws = true;
  const int32_t k = params.integer("k", 1, 16), l = params.integer("l", 2, 4096);
  m.empty = std::make_shared<Lsh>(k, l, std::make_shared<const Panels>(projections(k * l, shape.head_dim, shape.seed)));
  return m;
}

}  // namespace

extern const IndexType kLsh;
const IndexType kLsh = method_type<make>("lsh", "k=10,l=150",
                                         "keys that collide with the query in two hash tables, weighted (MagicPIG)");

}  // namespace kvasir
