#include "byte_panels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "byte_kernels.h"
#include "graph_kernels.h"

namespace kvasir {
namespace {

constexpr int32_t kPanel = kPanelRows;
constexpr int32_t kTaskPanels = 32;
constexpr int32_t kMeasured = 2048;   // columns that tell mean and spread
constexpr int32_t kRowsPerTask = 240;
constexpr double kMost = std::numeric_limits<float>::max() / 4;

float within_floats(double x) { return static_cast<float>(std::max(-kMost, std::min(kMost, x))); }

// round(x * factor), x [dim] no farther from zero than 127 / factor.
inline int32_t rounded(float x) { return static_cast<int32_t>(x + 128.5f); }

}  // namespace

BytePanels::BytePanels(const RunTasks& run, int32_t count, int32_t dim, const ReadColumns& read)
    : count_(count), dim_(dim), units_((dim + 3) / 4) {
  measure(read);
  const size_t width = static_cast<size_t>(units_) * 4, n = static_cast<size_t>(dim);
  codes_.assign(static_cast<size_t>(panels()) * width * kPanel, 128);
  scales_.assign(static_cast<size_t>(panels()) * kPanel, 0);
  std::vector<float> inverse(n);
  for (size_t d = 0; d < n; d++) inverse[d] = 1 / spread_[d];
  run((panels() + kTaskPanels - 1) / kTaskPanels, [&](int32_t task) {
    const int32_t from = task * kTaskPanels * kPanel, some = std::min(kTaskPanels * kPanel, count_ - from);
    std::vector<float> columns(static_cast<size_t>(some) * n);
    std::vector<uint8_t> line(width, 128);
    read(columns.data(), from, some);
    for (int32_t i = 0; i < some; i++) {
      float* x = columns.data() + static_cast<size_t>(i) * n;
      float most = 0;
      for (size_t d = 0; d < n; d++) {
        x[d] = (x[d] - mean_[d]) * inverse[d];
        const float size = std::fabs(x[d]);
        most = size > most ? size : most;
      }
      if (!(most > 0) || !std::isfinite(most)) continue;  // it counts as the mean
      const float factor = 127 / most;
      if (!std::isfinite(factor)) continue;
      for (size_t d = 0; d < n; d++) line[d] = static_cast<uint8_t>(rounded(x[d] * factor));
      const size_t at = static_cast<size_t>(from + i);
      scales_[at] = most / 127;
      uint8_t* to = codes_.data() + at / kPanel * width * kPanel + at % kPanel * 4;
      for (size_t u = 0; u < static_cast<size_t>(units_); u++) std::copy_n(line.data() + u * 4, 4, to + u * kPanel * 4);
    }
  });
}

BytePanels::BytePanels(const BytePanels& from, int32_t step)
    : count_((from.count_ + step - 1) / step), dim_(from.dim_), units_(from.units_), mean_(from.mean_), spread_(from.spread_) {
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

// Mean and spread of evenly spaced columns. A dimension that hardly varies counts as if it varied a thousandth of the others.
void BytePanels::measure(const ReadColumns& read) {
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
}

BytePanels::Terms BytePanels::terms(const float* rows, const float* offsets, int32_t count) const {
  const size_t n = static_cast<size_t>(dim_), width = static_cast<size_t>(units_) * 4;
  Terms out;
  out.count = count;
  out.codes.assign(static_cast<size_t>(count) * width, 0);
  std::vector<float> x(n);
  for (size_t r = 0; r < static_cast<size_t>(count); r++) {
    float base = 0, most = 0;
    for (size_t d = 0; d < n; d++) {
      const float q = rows[r * n + d];
      base += q * mean_[d];
      x[d] = q * spread_[d];
      const float size = std::fabs(x[d]);
      most = size > most ? size : most;
    }
    const float factor = 127 / most;
    int32_t sum = 0;
    if (most > 0 && std::isfinite(most) && std::isfinite(factor)) {
      int8_t* to = out.codes.data() + r * width;
      for (size_t d = 0; d < n; d++) {
        const int32_t code = rounded(x[d] * factor) - 128;
        to[d] = static_cast<int8_t>(code);
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

void BytePanels::dot(const ByteKernels& kernels, float* out, const Terms& rows, int32_t first, int32_t some, int32_t panel) const {
  const size_t at = static_cast<size_t>(first), width = static_cast<size_t>(units_) * 4;
  const ByteTerms terms = {rows.codes.data() + at * width, rows.scales.data() + at, rows.bases.data() + at, rows.shifts.data() + at};
  kernels.dot(out, terms, some, codes_.data() + static_cast<size_t>(panel) * width * kPanel,
              scales_.data() + static_cast<size_t>(panel) * kPanel, units_);
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

BytePanels key_panels(const IndexIsa& isa, const RunTasks& run, const Rows& rows, int32_t head, int32_t from, int32_t count) {
  return BytePanels(run, count, rows.find(from).head_dim(), [&](float* out, int32_t first, int32_t some) {
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
  });
}

}  // namespace kvasir
