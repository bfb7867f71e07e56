#include "kmeans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include "byte_panels.h"
#include "draw.h"

namespace kvasir {
namespace {

constexpr int32_t kTaskRows = 1024;  // rows of one task: fixed, so that sums do not depend on threads
constexpr int32_t kFindRows = 48;

struct Sums {
  std::vector<double> totals;  // [clusters, dim]
  std::vector<int32_t> counts;
};

// `clusters` distinct places of [0, count), in order of a hash.
std::vector<int32_t> pick(int32_t count, int32_t clusters, uint32_t seed) {
  std::vector<int32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  const uint32_t key = lowbias32(seed + 0x51ed27u);
  const auto before = [&](int32_t a, int32_t b) {
    const uint32_t x = draw_bits(key, a), y = draw_bits(key, b);
    return x != y ? x < y : a < b;
  };
  std::partial_sort(order.begin(), order.begin() + std::min(count, clusters), order.end(), before);
  return order;
}

}  // namespace

Nearest::Nearest(Panels packed) : panels(std::move(packed)) {
  offsets.assign(panels.width(), -std::numeric_limits<float>::infinity());
  for (int32_t c = 0; c < panels.count(); c++) {
    double square = 0;
    for (int32_t d = 0; d < panels.dim(); d++) square += static_cast<double>(panels.at(c, d)) * static_cast<double>(panels.at(c, d));
    offsets[static_cast<size_t>(c)] = static_cast<float>(-square / 2);
  }
}

Nearest::Nearest(const float* centroids, int32_t count, int32_t dim, bool spherical) {
  panels.pack(centroids, count, dim);
  if (!spherical) {
    *this = Nearest(std::move(panels));
    return;
  }
  offsets.assign(panels.width(), -std::numeric_limits<float>::infinity());
  std::fill_n(offsets.begin(), count, 0.0f);
}

void Nearest::find(const PanelKernels& kernels, int32_t* nearest, float* best, const float* rows, int32_t count) const {
  const size_t width = offsets.size();
  std::vector<float> scores(width * kFindRows);
  for (int32_t from = 0; from < count; from += kFindRows) {
    const int32_t some = std::min(kFindRows, count - from);
    panels.dot(kernels, scores.data(), rows + static_cast<size_t>(from) * static_cast<size_t>(panels.dim()), some);
    for (int32_t r = 0; r < some; r++) {
      float* row = scores.data() + static_cast<size_t>(r) * width;
      for (size_t c = 0; c < width; c++) row[c] += offsets[c];
      float largest;
      nearest[from + r] = kernels.argmax(&largest, row, panels.count());
      if (best != nullptr) best[from + r] = largest;
    }
  }
}

void normalize(float* rows, int32_t count, int32_t dim) {
  for (int32_t r = 0; r < count; r++) {
    float* row = rows + static_cast<size_t>(r) * static_cast<size_t>(dim);
    double square = 0;
    for (int32_t d = 0; d < dim; d++) square += static_cast<double>(row[d]) * static_cast<double>(row[d]);
    if (square == 0) continue;
    const double factor = 1 / std::sqrt(square);
    for (int32_t d = 0; d < dim; d++) row[d] = static_cast<float>(row[d] * factor);
  }
}

std::vector<float> kmeans(const PanelKernels& kernels, const RunTasks& run, const float* points, int32_t count, int32_t dim,
                          const KMeans& options) {
  const size_t width = static_cast<size_t>(dim), clusters = static_cast<size_t>(options.clusters);
  const std::vector<int32_t> order = pick(count, options.clusters, options.seed);
  std::vector<float> centroids(clusters * width);
  if (options.start != nullptr) std::copy_n(options.start, centroids.size(), centroids.begin());
  for (size_t c = 0; c < clusters && options.start == nullptr; c++) {
    const float* from = points + static_cast<size_t>(order[c % order.size()]) * width;
    std::copy(from, from + width, centroids.begin() + static_cast<std::ptrdiff_t>(c * width));
  }
  std::vector<int32_t> nearest(static_cast<size_t>(count)), before;
  const int32_t tasks = (count + kTaskRows - 1) / kTaskRows;
  std::unique_ptr<const BytePanels> columns;
  if (options.bytes != nullptr) {
    columns = std::make_unique<const BytePanels>(*options.bytes, run, count, dim, [&](float* out, int32_t first, int32_t some) {
      std::copy_n(points + static_cast<size_t>(first) * width, static_cast<size_t>(some) * width, out);
    });
  }
  for (int32_t round = 0; round < options.iterations; round++) {
    const Nearest find(centroids.data(), options.clusters, dim, options.spherical);
    if (columns != nullptr) {
      columns->nearest(*options.bytes, run, nearest.data(), columns->terms(centroids.data(), find.offsets.data(), options.clusters));
    } else {
      run(tasks, [&](int32_t task) {
        const int32_t from = task * kTaskRows, some = std::min(kTaskRows, count - from);
        find.find(kernels, nearest.data() + from, nullptr, points + static_cast<size_t>(from) * width, some);
      });
    }
    if (nearest == before) break;
    before = nearest;
    Sums sums = {std::vector<double>(clusters * width), std::vector<int32_t>(clusters)};
    for (int32_t i = 0; i < count; i++) {
      const size_t c = static_cast<size_t>(nearest[static_cast<size_t>(i)]);
      sums.counts[c]++;
      const float* from = points + static_cast<size_t>(i) * width;
      double* to = sums.totals.data() + c * width;
      for (size_t d = 0; d < width; d++) to[d] += static_cast<double>(from[d]);
    }
    size_t empty = 0;
    for (size_t c = 0; c < clusters; c++) {
      float* to = centroids.data() + c * width;
      if (sums.counts[c] == 0) {
        // Points are taken in hashed order, those that started no cluster first.
        const size_t at = (clusters + empty++) % order.size();
        const float* from = points + static_cast<size_t>(order[at]) * width;
        std::copy(from, from + width, to);
        continue;
      }
      for (size_t d = 0; d < width; d++) to[d] = static_cast<float>(sums.totals[c * width + d] / sums.counts[c]);
    }
    if (options.spherical) normalize(centroids.data(), options.clusters, dim);
  }
  return centroids;
}

}  // namespace kvasir
