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

}  // namespace kvasir
