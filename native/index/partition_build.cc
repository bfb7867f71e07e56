#include <algorithm>
#include <cmath>

#include "byte_panels.h"
#include "partition.h"

namespace kvasir {
namespace {

constexpr int32_t kTaskKeys = 1024;     // fixed, so that sums do not depend on threads
constexpr int32_t kTaskCells = 16;
constexpr int32_t kTrainKeys = 32;      // per cell
constexpr int32_t kMomentQueries = 4096;  // tell the second moment
constexpr double kRidge = 1e-4;         // of the mean variance: keeps the factor regular

// Lower triangular L with S + ridge = L Lᵀ, S = mean of q qᵀ / mean |q|^2 over queries [count, dim].
std::vector<double> factor_of(const float* queries, int32_t count, int32_t dim) {
  const size_t n = static_cast<size_t>(dim);
  std::vector<double> s(n * n);
  double square = 0;
  const int32_t some = std::min(count, kMomentQueries);
  for (int32_t i = 0; i < some; i++) {
    const float* q = queries + static_cast<size_t>(static_cast<int64_t>(i) * count / some) * n;
    for (size_t a = 0; a < n; a++) {
      square += static_cast<double>(q[a]) * static_cast<double>(q[a]);
      for (size_t b = 0; b <= a; b++) s[a * n + b] += static_cast<double>(q[a] * q[b]);
    }
  }
  for (double& x : s) x = square > 0 ? x / square : 0;
  for (size_t a = 0; a < n; a++) s[a * n + a] += kRidge / dim;
  for (size_t j = 0; j < n; j++) {
    for (size_t k = 0; k < j; k++) {
      for (size_t i = j; i < n; i++) s[i * n + j] -= s[i * n + k] * s[j * n + k];
    }
    const double root = std::sqrt(std::max(s[j * n + j], 1e-12));
    for (size_t i = j; i < n; i++) s[i * n + j] /= root;
  }
  for (size_t a = 0; a < n; a++) {
    for (size_t b = a + 1; b < n; b++) s[a * n + b] = 0;
  }
  return s;
}

}  // namespace

void move_to_metric(const Panels& metric, const PartitionSource& source, std::vector<float>& keys, int32_t count) {
  if (metric.count() == 0) return;
  const size_t dim = static_cast<size_t>(source.dim), width = metric.width();
  std::vector<float> out(static_cast<size_t>(count) * width);
  metric.dot(*source.isa->panels, out.data(), keys.data(), count);
  for (size_t i = 0; i < static_cast<size_t>(count); i++) {
    std::copy_n(out.begin() + static_cast<std::ptrdiff_t>(i * width), dim, keys.begin() + static_cast<std::ptrdiff_t>(i * dim));
  }
}

void read_moved(float* out, const Panels& metric, const PartitionSource& source, int32_t first, int32_t count) {
  const size_t dim = static_cast<size_t>(source.dim), width = metric.width();
  source.rows->read_keys(out, source.head, source.begin + first, count);
  if (metric.count() == 0) return;
  std::vector<float> moved(static_cast<size_t>(count) * width);
  metric.dot(*source.isa->panels, moved.data(), out, count);
  for (size_t i = 0; i < static_cast<size_t>(count); i++) std::copy_n(moved.data() + i * width, dim, out + i * dim);
}

void build_homes(Partition& to, const PartitionSource& source, const RunTasks& run, int32_t count, const float* queries,
                 int32_t queries_count, int32_t iterations, uint32_t seed) {
  const size_t dim = static_cast<size_t>(source.dim);
  const int32_t n = source.keys, cells = std::max(1, std::min(count, n));
  if (queries_count > 0) {
    const std::vector<double> factor = factor_of(queries, queries_count, source.dim);
    std::vector<float> columns(dim * dim);
    for (size_t a = 0; a < dim; a++) {
      for (size_t b = 0; b < dim; b++) columns[b * dim + a] = static_cast<float>(factor[a * dim + b]);
    }
    to.metric.pack(columns.data(), source.dim, source.dim);
  }
  // Evenly spaced keys; all of a short index.
  const int32_t train = static_cast<int32_t>(std::min<int64_t>(n, static_cast<int64_t>(cells) * kTrainKeys));
  std::vector<float> points(static_cast<size_t>(train) * dim);
  const int32_t loads = (train + kTaskKeys - 1) / kTaskKeys;
  run(loads, [&](int32_t task) {
    const int32_t from = task * kTaskKeys, some = std::min(kTaskKeys, train - from);
    std::vector<float> keys(static_cast<size_t>(some) * dim);
    for (int32_t i = 0; i < some; i++) {
      const int64_t id = static_cast<int64_t>(from + i) * n / train;
      source.rows->read_keys(keys.data() + static_cast<size_t>(i) * dim, source.head, source.begin + static_cast<int32_t>(id), 1);
    }
    move_to_metric(to.metric, source, keys, some);
    std::copy(keys.begin(), keys.end(), points.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(from) * dim));
  });
  KMeans options;
  options.clusters = cells;
  options.iterations = iterations;
  options.seed = seed;
  options.bytes = source.isa->bytes;
  const std::vector<float> centroids = kmeans(*source.isa->panels, run, points.data(), train, source.dim, options);
  points = {};
  const Nearest nearest(centroids.data(), cells, source.dim, false);

  std::vector<int32_t> home(static_cast<size_t>(n));
  std::vector<float> squares(static_cast<size_t>(n));  // squared norms in the metric
  const BytePanels moved(*source.isa->bytes, run, n, source.dim, [&](float* out, int32_t first, int32_t some) {
    read_moved(out, to.metric, source, first, some);
    for (int32_t i = 0; i < some; i++) {
      const float* x = out + static_cast<size_t>(i) * dim;
      float square = 0;
      for (size_t d = 0; d < dim; d++) square += x[d] * x[d];
      squares[static_cast<size_t>(first + i)] = square;
    }
  });
  moved.nearest(*source.isa->bytes, run, home.data(), moved.terms(centroids.data(), nearest.offsets.data(), cells));
  std::vector<std::vector<int32_t>> ids(static_cast<size_t>(cells));
  for (int32_t i = 0; i < n; i++) ids[static_cast<size_t>(home[static_cast<size_t>(i)])].push_back(i);

  // A cell's mean; in the metric it is the mean of the moved keys, which is linear.
  std::vector<float> means(static_cast<size_t>(cells) * dim);
  to.deviations.assign(static_cast<size_t>(cells), 0);
  run((cells + kTaskCells - 1) / kTaskCells, [&](int32_t task) {
    std::vector<float> key(dim), moved;
    std::vector<double> sum(dim);
    for (int32_t c = task * kTaskCells; c < std::min(cells, (task + 1) * kTaskCells); c++) {
      const std::vector<int32_t>& own = ids[static_cast<size_t>(c)];
      if (own.empty()) continue;
      std::fill(sum.begin(), sum.end(), 0.0);
      double square = 0;
      for (int32_t id : own) {
        source.rows->read_keys(key.data(), source.head, source.begin + id, 1);
        for (size_t d = 0; d < dim; d++) sum[d] += static_cast<double>(key[d]);
        square += static_cast<double>(squares[static_cast<size_t>(id)]);
      }
      float* mean = means.data() + static_cast<size_t>(c) * dim;
      for (size_t d = 0; d < dim; d++) mean[d] = static_cast<float>(sum[d] / static_cast<double>(own.size()));
      moved.assign(mean, mean + dim);
      move_to_metric(to.metric, source, moved, 1);
      double variance = square / static_cast<double>(own.size());
      for (float m : moved) variance -= static_cast<double>(m) * static_cast<double>(m);
      if (to.metric.count() == 0) variance /= static_cast<double>(dim);
      to.deviations[static_cast<size_t>(c)] = static_cast<float>(std::sqrt(std::max(0.0, variance)));
    }
  });
  to.homes.centroids.pack(means.data(), cells, source.dim);
  to.homes.append(ids);
  to.keys = n;
}

}  // namespace kvasir
