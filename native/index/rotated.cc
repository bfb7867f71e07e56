#include "rotated.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "error.h"
#include "kvasir_index.h"
#include "row_kernels.h"

namespace kvasir {

void RotatedKeys::grow(const HeadKeys& keys) {
  const int32_t dim = keys.dim(), count = r(dim), from = this->keys(dim);
  std::vector<float> row(static_cast<size_t>(dim));
  rows.resize(static_cast<size_t>(keys.count) * static_cast<size_t>(count));
  for (int32_t i = from; i < keys.count; i++) {
    keys.read(row.data(), i, 1);
    keys.environment->isa->rows->dot_f32(rows.data() + static_cast<size_t>(i) * static_cast<size_t>(count), basis.data(), row.data(),
                                         count, dim);
  }
}

void RotatedKeys::score(float* out, size_t stride, const HeadKeys& keys, const float* q) const {
  const int32_t dim = keys.dim(), count = r(dim), n = this->keys(dim), group = keys.group();
  const RowKernels& kernels = *keys.environment->isa->rows;
  std::vector<float> own(static_cast<size_t>(group * count)), dots(static_cast<size_t>(group));
  for (int32_t g = 0; g < group; g++) {
    kernels.dot_f32(own.data() + static_cast<size_t>(g * count), basis.data(), q + static_cast<size_t>(g * dim), count, dim);
  }
  for (float& x : own) x *= keys.shape->scale;
  for (int32_t i = 0; i < n; i++) {
    kernels.dot_f32(dots.data(), own.data(), rows.data() + static_cast<size_t>(i) * static_cast<size_t>(count), group, count);
    for (int32_t g = 0; g < group; g++) out[static_cast<size_t>(g) * stride + static_cast<size_t>(i)] = dots[static_cast<size_t>(g)];
  }
}

void RotatedKeys::check(const HeadKeys& keys) const {
  const size_t dim = static_cast<size_t>(keys.dim());
  if (basis.size() % dim != 0 || basis.size() > dim * dim) {
    fail(KVASIR_ARGUMENT, "Cannot open index: a basis of %zu numbers for %d dimensions", basis.size(), keys.dim());
  }
  expect_size("rotated keys", rows.size(), basis.empty() ? 0 : static_cast<size_t>(keys.count) * (basis.size() / dim));
}

void add_moment(std::vector<double>& moment, const float* rows, int32_t count, int32_t dim) {
  for (int32_t i = 0; i < count; i++) {
    const float* x = rows + static_cast<size_t>(i) * static_cast<size_t>(dim);
    for (int32_t a = 0; a < dim; a++) {
      double* to = moment.data() + static_cast<size_t>(a) * static_cast<size_t>(dim);
      for (int32_t b = 0; b < dim; b++) to[b] += static_cast<double>(x[a] * x[b]);
    }
  }
}

std::vector<float> eigenvectors(std::vector<double> a, int32_t dim) {
  const size_t n = static_cast<size_t>(dim);
  std::vector<double> v(n * n, 0);
  for (size_t i = 0; i < n; i++) v[i * n + i] = 1;
  const auto turn = [](double* x, double* y, size_t count, size_t step, double c, double s) {
    for (size_t k = 0; k < count; k++) {
      const double p = x[k * step], q = y[k * step];
      x[k * step] = c * p - s * q;
      y[k * step] = s * p + c * q;
    }
  };
  for (int sweep = 0; sweep < 30; sweep++) {
    double off = 0, diagonal = 0;
    for (size_t p = 0; p < n; p++) {
      diagonal += a[p * n + p] * a[p * n + p];
      for (size_t q = p + 1; q < n; q++) off += a[p * n + q] * a[p * n + q];
    }
    if (off <= 1e-10 * diagonal) break;
    for (size_t p = 0; p < n; p++) {
      for (size_t q = p + 1; q < n; q++) {
        const double x = a[p * n + q];
        if (x * x <= 1e-18 * std::fabs(a[p * n + p] * a[q * n + q])) continue;
        const double theta = (a[q * n + q] - a[p * n + p]) / (2 * x);
        const double t = (theta >= 0 ? 1 : -1) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        turn(&a[p], &a[q], n, n, c, s);
        turn(&a[p * n], &a[q * n], n, 1, c, s);
        turn(&v[p * n], &v[q * n], n, 1, c, s);
      }
    }
  }
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) { return a[x * n + x] > a[y * n + y]; });
  std::vector<float> out;
  out.reserve(n * n);
  for (size_t i : order) {
    for (size_t j = 0; j < n; j++) out.push_back(static_cast<float>(v[i * n + j]));
  }
  return out;
}

}  // namespace kvasir
