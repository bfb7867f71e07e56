#include "byte_panels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "byte_kernels.h"
#include "graph_kernels.h"
#include "prefetch.h"

namespace kvasir {
namespace {

constexpr int32_t kPanel = kPanelRows;
constexpr int32_t kTaskPanels = 32;
constexpr int32_t kMeasured = 512;    // columns that tell mean and spread
constexpr int32_t kRowsPerTask = 240;
constexpr double kMost = std::numeric_limits<float>::max() / 4;

float within_floats(double x) { return static_cast<float>(std::max(-kMost, std::min(kMost, x))); }

// round(x * factor), x [dim] no farther from zero than 127 / factor.
inline int32_t rounded(float x) { return static_cast<int32_t>(x + 128.5f); }

}  // namespace

BytePanels::BytePanels(const ByteKernels& kernels, const RunTasks& run, int32_t count, int32_t dim, const ReadColumns& read,
                       const float* weights)
    : count_(count), dim_(dim), units_((dim + 3) / 4) {
  measure(read, weights);
  const size_t width = static_cast<size_t>(units_) * 4, n = static_cast<size_t>(dim);
  codes_.assign(static_cast<size_t>(panels()) * width * kPanel, 128);
  scales_.assign(static_cast<size_t>(panels()) * kPanel, 0);
  std::vector<float> inverse(n);
  for (size_t d = 0; d < n; d++) inverse[d] = 1 / spread_[d];
  const BytePacking how = {mean_.data(), inverse.data(), order_.data(), dim_, units_};
  run((panels() + kTaskPanels - 1) / kTaskPanels, [&](int32_t task) {
    std::vector<float> columns(static_cast<size_t>(kPanel) * n);
    for (int32_t p = task * kTaskPanels; p < std::min(panels(), (task + 1) * kTaskPanels); p++) {
      const int32_t from = p * kPanel, some = std::min(kPanel, count_ - from);
      read(columns.data(), from, some);
      kernels.pack(codes_.data() + static_cast<size_t>(from) * width, scales_.data() + from, columns.data(), some, how);
    }
  });
}

BytePanels::BytePanels(const BytePanels& from, int32_t step)
    : count_((from.count_ + step - 1) / step), dim_(from.dim_), units_(from.units_), mean_(from.mean_), spread_(from.spread_),
      order_(from.order_), parts_(from.parts_) {
  const size_t width = static_cast<size_t>(units_) * 4;
  codes_.assign(static_cast<size_t>(panels()) * width * kPanel, 128);
  scales_.assign(static_cast<size_t>(panels()) * kPanel, 0);
  for (size_t i = 0; i < static_cast<size_t>(count_); i++) {
    const size_t j = i * static_cast<size_t>(step);
    scales_[i] = from.scales_[j];
    for (size_t u = 0; u < static_cast<size_t>(units_); u++) {
      std::copy_n(from.codes_.data() + (j / kPanel * width + u * 4) * kPanel + j % kPanel * 4, 4,
                  codes_.data() + (i / kPanel * width + u * 4) * kPanel + i % kPanel * 4);
    }
  }
}

// Mean and spread of evenly spaced columns, and the order of dimensions. A dimension that hardly varies counts as if it varied a
// thousandth of the others.
void BytePanels::measure(const ReadColumns& read, const float* weights) {
  const size_t n = static_cast<size_t>(dim_);
  const int32_t some = std::min(count_, kMeasured);
  std::vector<double> sum(n), square(n);
  std::vector<float> x(n), first(n);
  for (int32_t i = 0; i < some; i++) {
    read(x.data(), static_cast<int32_t>(static_cast<int64_t>(i) * count_ / some), 1);
    if (i == 0) first = x;
    for (size_t d = 0; d < n; d++) {
      const double y = static_cast<double>(x[d]) - static_cast<double>(first[d]);
      sum[d] += y, square[d] += y * y;
    }
  }
  double all = 0;
  for (size_t d = 0; d < n; d++) {
    const double mean = some > 0 ? sum[d] / some : 0;
    square[d] = std::max(0.0, some > 0 ? square[d] / some - mean * mean : 0);
    mean_.push_back(within_floats(mean + static_cast<double>(first[d])));
    all += square[d] / static_cast<double>(n);
  }
  // Within what a float's reciprocal can be.
  for (size_t d = 0; d < n; d++) {
    spread_.push_back(all > 0 ? static_cast<float>(std::min(1e30, std::max(1e-30, std::sqrt(square[d] + 1e-6 * all)))) : 1);
  }
  order_.resize(static_cast<size_t>(units_) * 4, dim_);
  std::iota(order_.begin(), order_.begin() + dim_, 0);
  if (weights == nullptr) return;
  std::vector<double> parts(n + 1);
  for (size_t d = 0; d < n; d++) {
    const double part = static_cast<double>(weights[d]) * static_cast<double>(spread_[d]) * static_cast<double>(spread_[d]);
    parts[d] = std::isfinite(part) ? part : kMost;
  }
  std::stable_sort(order_.begin(), order_.begin() + dim_, [&](int32_t a, int32_t b) {
    return parts[static_cast<size_t>(a)] > parts[static_cast<size_t>(b)];
  });
  double up_to = 0;
  for (size_t i = 0; i < order_.size(); i++) {
    up_to += parts[static_cast<size_t>(order_[i])];
    if (i % 4 == 3) parts_.push_back(up_to);
  }
  for (double& part : parts_) part = up_to > 0 ? part / up_to : 1;
}

BytePanels::Terms BytePanels::terms(const float* rows, const float* offsets, int32_t count, double share) const {
  const size_t n = static_cast<size_t>(dim_);
  Terms out;
  out.count = count;
  out.units = units_;
  if (share < 1 && !parts_.empty()) {
    out.units = static_cast<int32_t>(std::lower_bound(parts_.begin(), parts_.end(), share) - parts_.begin()) + 1;
    out.units = std::min(out.units, units_);
  }
  const size_t width = static_cast<size_t>(out.units) * 4, taken = std::min(width, n);
  out.codes.assign(static_cast<size_t>(count) * width, 0);
  std::vector<float> x(taken);
  for (size_t r = 0; r < static_cast<size_t>(count); r++) {
    float base = 0, most = 0;
    const float* row = rows + r * n;
    for (size_t d = 0; d < n; d++) base += row[d] * mean_[d];
    for (size_t i = 0; i < taken; i++) {
      const size_t d = static_cast<size_t>(order_[i]);
      x[i] = row[d] * spread_[d];
      const float size = std::fabs(x[i]);
      most = size > most ? size : most;
    }
    const float factor = 127 / most;
    int32_t sum = 0;
    if (most > 0 && std::isfinite(most) && std::isfinite(factor)) {
      int8_t* to = out.codes.data() + r * width;
      for (size_t i = 0; i < taken; i++) {
        const int32_t code = rounded(x[i] * factor) - 128;
        to[i] = static_cast<int8_t>(code);
        sum += code;
      }
    }
    if (offsets != nullptr) base += offsets[r];
    out.scales.push_back(sum == 0 && !(most > 0 && std::isfinite(most)) ? 0 : most / 127);
    out.bases.push_back(std::isfinite(base) ? base : within_floats(std::isnan(base) ? 0 : static_cast<double>(base)));
    out.shifts.push_back(-128 * sum);
  }
  return out;
}

ByteTerms BytePanels::terms_from(const Terms& rows, int32_t first) const {
  const size_t at = static_cast<size_t>(first), width = static_cast<size_t>(rows.units) * 4;
  return {rows.codes.data() + at * width, rows.scales.data() + at, rows.bases.data() + at, rows.shifts.data() + at};
}

void BytePanels::dot(const ByteKernels& kernels, float* out, const Terms& rows, int32_t first, int32_t some, int32_t panel) const {
  const size_t at = static_cast<size_t>(panel) * kPanel;
  kernels.dot(out, terms_from(rows, first), some, codes_.data() + at * static_cast<size_t>(units_) * 4, scales_.data() + at,
              rows.units);
}

// The next panel begins on another page, where no processor looks ahead by itself: a part of it is asked for with each few rows.
void BytePanels::above(const ByteKernels& kernels, const BytePassed& passed, const Terms& rows, int32_t first, int32_t some,
                       int32_t panel) const {
  constexpr int32_t kRows = 24;
  const size_t at = static_cast<size_t>(panel) * kPanel, width = static_cast<size_t>(units_) * 4;
  const uint8_t* const codes = codes_.data() + at * width;
  const size_t lines = panel + 1 < panels() ? static_cast<size_t>(rows.units) * 2 : 0, pieces = static_cast<size_t>((some + kRows - 1) / kRows);
  for (size_t piece = 0; piece < pieces; piece++) {
    for (size_t line = lines * piece / pieces; line < lines * (piece + 1) / pieces; line++) {
      prefetch_line(codes + kPanel * width + line * 64);
    }
    const size_t r = piece * kRows;
    const BytePassed part = {passed.thresholds + r, passed.masks + r * passed.stride, passed.stride, passed.scores + r * passed.room,
                             passed.room,           passed.counts + r};
    const int32_t row = static_cast<int32_t>(r);
    kernels.above(part, terms_from(rows, first + row), std::min(kRows, some - row), codes, scales_.data() + at, rows.units);
  }
}

void BytePanels::nearest(const ByteKernels& kernels, const RunTasks& run, int32_t* nearest, const Terms& rows) const {
  run((panels() + kTaskPanels - 1) / kTaskPanels, [&](int32_t task) {
    const int32_t from = task * kTaskPanels, some = std::min(kTaskPanels, panels() - from);
    std::vector<float> scores(static_cast<size_t>(kRowsPerTask) * kPanel);
    std::vector<float> best(static_cast<size_t>(some) * kPanel, -std::numeric_limits<float>::infinity());
    std::vector<int32_t> which(best.size(), 0);
    // Rows by the piece that the nearest cache holds, so that columns are read from farther away once a piece.
    for (int32_t r = 0; r < rows.count; r += kRowsPerTask) {
      const int32_t count = std::min(kRowsPerTask, rows.count - r);
      for (int32_t p = 0; p < some; p++) {
        dot(kernels, scores.data(), rows, r, count, from + p);
        kernels.best(best.data() + p * kPanel, which.data() + p * kPanel, scores.data(), count, r);
      }
    }
    std::copy_n(which.begin(), std::min(some * kPanel, count_ - from * kPanel), nearest + from * kPanel);
  });
}

BytePanels key_panels(const IndexIsa& isa, const RunTasks& run, const Rows& rows, int32_t head, int32_t from, int32_t count,
                      const float* weights) {
  const ReadColumns read = [&](float* out, int32_t first, int32_t some) {
    for (int32_t done = 0; done < some;) {
      const Segment& s = rows.find(from + first + done);
      const int32_t row = from + first + done - s.start(), n = std::min(some - done, s.capacity() - row);
      for (int32_t i = 0; i < n; i++) {
        float* to = out + static_cast<size_t>(done + i) * static_cast<size_t>(s.head_dim());
        isa.graph->widen(to, s.key(head, row + i), s.dtype(), s.head_dim());
        const float scale = s.key_scale(head, row + i);
        for (int32_t d = 0; scale != 1 && d < s.head_dim(); d++) to[d] *= scale;
      }
      done += n;
    }
  };
  return BytePanels(*isa.bytes, run, count, rows.find(from).head_dim(), read, weights);
}

std::vector<float> mean_squares(const float* rows, int32_t count, int32_t dim) {
  const size_t n = static_cast<size_t>(dim);
  std::vector<double> sums(n);
  for (size_t r = 0; r < static_cast<size_t>(count); r++) {
    const float* row = rows + r * n;
    for (size_t d = 0; d < n; d++) sums[d] += static_cast<double>(row[d]) * static_cast<double>(row[d]);
  }
  std::vector<float> out;
  for (double sum : sums) out.push_back(within_floats(sum / std::max(1, count)));
  return out;
}

}  // namespace kvasir
