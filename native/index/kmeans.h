// k-means on rows of floats.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "panel_kernels.h"

namespace kvasir {

struct ByteKernels;

// Runs body(0) ... body(count - 1), each once, in any order and on any threads; returns when all are done.
using RunTasks = std::function<void(int32_t count, const std::function<void(int32_t)>& body)>;

struct KMeans {
  int32_t clusters = 1;
  int32_t iterations = 8;
  // Rows and centroids have length 1 and the largest inner product is nearest; else the smallest L2 distance is.
  bool spherical = false;
  uint32_t seed = 0;
  const float* start = nullptr;  // centroids [clusters, dim] to begin with; null: random points
  const ByteKernels* bytes = nullptr;  // points are assigned nearly, in bytes
};

// Centroids [clusters, dim] of points [count, dim] (spherical: of length 1 or 0), count >= 1. Lloyd's algorithm, from distinct
// random points where it is given no start; a cluster that lost all its points restarts at another random point. The result depends on the arguments alone,
// never on threads. Fewer points than clusters leave some centroids equal.
std::vector<float> kmeans(const PanelKernels& kernels, const RunTasks& run, const float* points, int32_t count, int32_t dim,
                          const KMeans& options);

// What finds the nearest centroid.
struct Nearest {
  Panels panels;
  std::vector<float> offsets;  // [panels.width()]: -|c|^2 / 2, or 0 (spherical), or -infinity where there is no centroid

  Nearest() = default;
  explicit Nearest(Panels packed);  // L2
  Nearest(const float* centroids, int32_t count, int32_t dim, bool spherical);
  // nearest [count] of rows [count, dim]; of equals the first. best [count] (may be null): x . c + offset.
  void find(const PanelKernels& kernels, int32_t* nearest, float* best, const float* rows, int32_t count) const;
};

// Scales rows [count, dim] to length 1; rows of length 0 stay.
void normalize(float* rows, int32_t count, int32_t dim);

}  // namespace kvasir
