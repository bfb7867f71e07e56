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

// Keys that their coordinates rank, once there is a basis.
class RotatedState : public HeadState {
 public:
  int32_t covered() const override { return dim_ == 0 ? 0 : rotated_.keys(dim_); }
  void score(float* out, size_t stride, const HeadKeys& keys, const float* q) const override { rotated_.score(out, stride, keys, q); }
  double score_bytes() const override { return static_cast<double>(bytes()); }
  void visit(Arrays& arrays) override {
    arrays("basis", rotated_.basis);
    arrays("keys", rotated_.rows);
  }
  void check(const HeadKeys& keys) const override {
    rotated_.check(keys);
    dim_ = keys.dim();
  }

 protected:
  void take(const HeadKeys& keys) {
    rotated_.grow(keys);
    dim_ = keys.dim();
  }
  RotatedKeys rotated_;

 private:
  mutable int32_t dim_ = 0;  // 0: nothing is known yet
};

// Adds x x^T of rows [count, dim] to moment [dim, dim].
void add_moment(std::vector<double>& moment, const float* rows, int32_t count, int32_t dim);
// Eigenvectors of a symmetric matrix [dim, dim], by falling eigenvalue, as rows (cyclic Jacobi; Golub and Van Loan,
// 8.5).
std::vector<float> eigenvectors(std::vector<double> matrix, int32_t dim);

}  // namespace kvasir
