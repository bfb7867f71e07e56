// Bounds of the keys of a page: what types "pages" and "mol" skip by.
#pragma once
#include <vector>

#include "method.h"

namespace kvasir {

// Least and largest key of each page of `size` consecutive keys, channel by channel (Quest, Tang et al. 2024, section 3.2).
struct PageBounds {
  int32_t size = 16;
  std::vector<float> low, high;  // [pages, dim]

  int32_t pages(int32_t dim) const { return static_cast<int32_t>(low.size()) / dim; }
  // Keys [from, keys.count) join: the open page is updated.
  void grow(const HeadKeys& keys, int32_t from);
  // out[g * stride + page] = scale * sum of max(q low, q high), for q [group, dim]: no key of the page scores above.
  void bound(float* out, size_t stride, const HeadKeys& keys, const float* q) const;
};

// Pages that their bounds rank.
class BoundedPages : public HeadState {
 public:
  explicit BoundedPages(int32_t size) { bounds_.size = size; }
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<BoundedPages>(*this); }
  void grow(const HeadKeys& keys, const Asked&, int32_t from) override;
  int32_t covered() const override { return meta_[0]; }
  int32_t units() const override { return (meta_[0] + bounds_.size - 1) / bounds_.size; }
  bool keyed() const override { return false; }
  void members(std::vector<int32_t>& out, int32_t unit) const override;
  void score(float* out, size_t stride, const HeadKeys& keys, const float* q) const override { bounds_.bound(out, stride, keys, q); }
  double score_bytes() const override { return static_cast<double>(bytes()); }
  int32_t keys_scored() const override { return units(); }
  void visit(Arrays& arrays) override;
  void check(const HeadKeys& keys) const override;

 protected:
  PageBounds bounds_;
  std::vector<int32_t> meta_ = {0};  // keys in pages
};

}  // namespace kvasir
