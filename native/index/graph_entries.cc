// Where searches of a graph start.
#include <algorithm>

#include "graph_build.h"
#include "graph_entries.h"

namespace kvasir {

size_t GraphEntries::bytes() const {
  return sizeof(float) * static_cast<size_t>(centroids.panels()) * kPanelRows * static_cast<size_t>(centroids.dim()) +
         sizeof(int32_t) * (nodes.size() + least.size());
}

size_t Graph::bytes() const {
  size_t bytes = links.bytes() + codes.bytes() + entries->bytes() + parents->size() * sizeof(int32_t);
  for (const auto& ids : newcomers) bytes += ids.size() * sizeof(int32_t);
  return bytes;
}

void GraphEntries::find(std::vector<int32_t>& out, const PanelKernels& kernels, const float* q, int32_t count,
                        const std::vector<std::vector<int32_t>>& newcomers) const {
  const int32_t n = centroids.count();
  std::vector<float> scores(static_cast<size_t>(centroids.panels()) * kPanelRows);
  centroids.dot(kernels, scores.data(), q, 1);
  for (int32_t i = 0; i < std::min(count, n); i++) {
    float largest;
    const int32_t c = kernels.argmax(&largest, scores.data(), n);
    if (c < 0 || c >= n) break;
    scores[static_cast<size_t>(c)] = -__builtin_inff();
    for (int32_t j = 0; j < kKeys; j++) {
      const int32_t node = nodes[static_cast<size_t>(c) * kKeys + static_cast<size_t>(j)];
      if (node == GraphLinks::kNone) break;
      out.push_back(node);
    }
    if (!newcomers.empty()) {
      const std::vector<int32_t>& ids = newcomers[static_cast<size_t>(c)];
      out.insert(out.end(), ids.begin(), ids.end());
    }
  }
}

std::shared_ptr<const GraphEntries> make_entries(const IndexIsa& isa, const std::vector<float>& training,
                                                 const Neighbours& nearest, const GraphKeys& keys, uint32_t seed,
                                                 const RunTasks& run) {
  const PanelKernels& kernels = *isa.panels;
  constexpr int32_t kQueriesPerCentroid = 16, kMostCentroids = 1024, kSamplesPerCentroid = 16, kVotes = 32;
  const int32_t dim = keys.dim(), count = nearest.queries;
  std::vector<float> queries = training;
  normalize(queries.data(), count, dim);
  KMeans options;
  // At most 8 bytes of centroids a key.
  options.clusters = std::max(1, std::min({kMostCentroids, count / kQueriesPerCentroid, std::max(16, 2 * keys.nodes() / dim)}));
  options.iterations = 6;
  options.spherical = true;
  options.seed = seed;
  // Trained on an even sample.
  const int32_t samples = std::min(count, options.clusters * kSamplesPerCentroid);
  std::vector<float> points(static_cast<size_t>(samples) * static_cast<size_t>(dim));
  for (int32_t i = 0; i < samples; i++) {
    const float* from = queries.data() + static_cast<size_t>(static_cast<int64_t>(i) * count / samples) * static_cast<size_t>(dim);
    std::copy(from, from + dim, points.begin() + static_cast<std::ptrdiff_t>(i) * dim);
  }
  const std::vector<float> centroids = kmeans(kernels, run, points.data(), samples, dim, options);
  const Nearest find(centroids.data(), options.clusters, dim, true);
  std::vector<int32_t> cluster(static_cast<size_t>(count));
  constexpr int32_t kTask = 512;
  run((count + kTask - 1) / kTask, [&](int32_t task) {
    const int32_t first = task * kTask;
    find.find(kernels, cluster.data() + first, nullptr, queries.data() + static_cast<size_t>(first) * static_cast<size_t>(dim),
              std::min(kTask, count - first));
  });
  auto entries = std::make_shared<GraphEntries>();
  // What would be among the best keys of a centroid, were it there: more than a query's hundred, as queries differ from centroids.
  constexpr int32_t kBest = 256;
  const Neighbours best = nearest_keys(isa, run, keys.rows(), keys.head(), keys.begin(), keys.begin() + keys.nodes(),
                                       centroids.data(), options.clusters, kBest);
  for (int32_t c = 0; c < options.clusters; c++) entries->least.push_back(best.scores_of(c)[best.k - 1]);
  entries->centroids.pack(centroids.data(), options.clusters, dim);
  entries->nodes.assign(static_cast<size_t>(options.clusters) * GraphEntries::kKeys, GraphLinks::kNone);
  std::vector<std::vector<int32_t>> votes(static_cast<size_t>(options.clusters));
  for (int32_t i = 0; i < count; i++) {
    std::vector<int32_t>& to = votes[static_cast<size_t>(cluster[static_cast<size_t>(i)])];
    to.insert(to.end(), nearest.of(i), nearest.of(i) + std::min(nearest.k, kVotes));
  }
  run(options.clusters, [&](int32_t c) {
    std::vector<int32_t>& ids = votes[static_cast<size_t>(c)];
    std::sort(ids.begin(), ids.end());
    std::vector<std::pair<int32_t, int32_t>> ranked;  // minus votes, position
    for (size_t i = 0; i < ids.size();) {
      size_t j = i;
      while (j < ids.size() && ids[j] == ids[i]) j++;
      ranked.push_back({-static_cast<int32_t>(j - i), ids[i]});
      i = j;
    }
    const size_t some = std::min<size_t>(ranked.size(), GraphEntries::kKeys);
    std::partial_sort(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(some), ranked.end());
    for (size_t i = 0; i < some; i++) {
      entries->nodes[static_cast<size_t>(c) * GraphEntries::kKeys + i] = ranked[i].second - keys.begin();
    }
  });
  return entries;
}

}  // namespace kvasir
