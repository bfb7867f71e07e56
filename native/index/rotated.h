// Keys in a few coordinates of another basis: what types "pca" and "skew" score by.
#pragma once
#include <vector>

#include "method.h"

namespace kvasir {

struct RotatedKeys {
  std::vector<float> basis;  // [r, dim]: directions
  std::vector<float> rows;   // [keys, r]

  int32_t r(int32_t dim) const { return static_cast<int32_t>(basis.size()) / dim; }
  int32_t keys(int32_t dim) const { return basis.empty() ? 0 : static_cast<int32_t>(rows.size()) / r(dim); }
  // Keys up to keys.count join those that there are.
  void grow(const HeadKeys& keys);
  // out[g * stride + i] = scale * (basis q) . row i.
  void score(float* out, size_t stride, const HeadKeys& keys, const float* q) const;
  void check(const HeadKeys& keys) const;  // see HeadState::check
};

// Adds x x^T of rows [count, dim] to moment [dim, dim].
void add_moment(std::vector<double>& moment, const float* rows, int32_t count, int32_t dim);
// Eigenvectors of a symmetric matrix [dim, dim], by falling eigenvalue, as rows (cyclic Jacobi; Golub and Van Loan,
// 8.5).
std::vector<float> eigenvectors(std::vector<double> matrix, int32_t dim);

}  // namespace kvasir
