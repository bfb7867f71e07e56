// k-means and the re-rotation of queries.
#include "error.h"
#include "fixture.h"
#include "harness.h"
#include "index.h"
#include "kmeans.h"
#include "spread.h"

using namespace kvasir;
using namespace kvasir_test;

namespace {
void run_here(int32_t count, const std::function<void(int32_t)>& body) {
  for (int32_t i = 0; i < count; i++) body(i);
}
}  // namespace

TEST("panels multiply as loops do, on every instruction set") {
  Random random(11);
  for (const char* isa : {"portable", "avx2", "avx512"}) {
    const IndexIsa* set = nullptr;
    try {
      set = &find_index_isa(isa);
    } catch (const Error&) {
      continue;
    }
    for (int32_t dim : {1, 5, 64}) {
      const int32_t rows = 29, columns = 37;
      const std::vector<float> a = random.normals(static_cast<size_t>(rows * dim)), b = random.normals(static_cast<size_t>(columns * dim));
      Panels panels;
      panels.pack(b.data(), columns, dim);
      std::vector<float> out(static_cast<size_t>(rows) * 64);
      panels.dot(*set->panels, out.data(), a.data(), rows);
      for (int32_t r = 0; r < rows; r++) {
        for (int32_t c = 0; c < 64; c++) {
          double want = 0;
          for (int32_t d = 0; c < columns && d < dim; d++) want += double(a[size_t(r * dim + d)]) * double(b[size_t(c * dim + d)]);
          EXPECT_NEAR(out[size_t(r * 64 + c)], want, 1e-4);
        }
        float largest;
        const float* row = out.data() + r * 64;
        EXPECT_EQ(set->panels->argmax(&largest, row, columns), int32_t(std::max_element(row, row + columns) - row));
      }
    }
  }
}

TEST("k-means finds separate clusters, whatever the threads") {
  Random random(12);
  const int32_t count = 3000, dim = 6, clusters = 5;
  std::vector<float> points = random.normals(size_t(count * dim));
  for (int32_t i = 0; i < count; i++) points[size_t(i * dim + i % clusters)] += 30;
  const PanelKernels& kernels = *find_index_isa("auto").panels;
  KMeans options;
  options.clusters = clusters * 3;
  options.iterations = 12;
  const std::vector<float> found = kmeans(kernels, run_here, points.data(), count, dim, options);
  const Nearest nearest(found.data(), options.clusters, dim, false);
  std::vector<int32_t> of(size_t(count), 0);
  nearest.find(kernels, of.data(), nullptr, points.data(), count);
  // No centroid serves two of the planted clusters.
  std::vector<int32_t> owner(size_t(options.clusters), -1);
  for (int32_t i = 0; i < count; i++) {
    int32_t& o = owner[size_t(of[size_t(i)])];
    if (o < 0) o = i % clusters;
    EXPECT_EQ(o, i % clusters);
  }
  const std::vector<float> again = kmeans(
      kernels,
      [](int32_t n, const std::function<void(int32_t)>& body) {
        for (int32_t i = n - 1; i >= 0; i--) body(i);
      },
      points.data(), count, dim, options);
  EXPECT(found == again);
}

TEST("k-means survives fewer points than clusters and equal points") {
  const std::vector<float> points(7 * 3, 2.0f);
  KMeans options;
  options.clusters = 9;
  options.spherical = true;
  std::vector<float> unit = points;
  normalize(unit.data(), 7, 3);
  const std::vector<float> found = kmeans(*find_index_isa("auto").panels, run_here, unit.data(), 7, 3, options);
  for (float x : found) EXPECT_NEAR(x, 1 / std::sqrt(3.0), 1e-6);
}

TEST("moved queries score as if asked elsewhere") {
  for (bool neighbours : {false, true}) {
    LayerShape shape;
    shape.head_dim = 10;
    shape.neighbours = neighbours;
    shape.frequencies = {1.0, 0.25, 0.01, 0.003};  // 8 of 10 dims rotate
    Random random(13);
    const std::vector<float> q = random.normals(10), k = random.normals(10);
    const auto at = [&](const std::vector<float>& x, double p) {
      std::vector<float> y = x;
      for (size_t i = 0; i < 4; i++) {
        const size_t a = neighbours ? 2 * i : i, b = neighbours ? 2 * i + 1 : i + 4;
        const double angle = p * shape.frequencies[i];
        y[a] = float(x[a] * std::cos(angle) - x[b] * std::sin(angle));
        y[b] = float(x[a] * std::sin(angle) + x[b] * std::cos(angle));
      }
      return y;
    };
    std::vector<float> moved = at(q, 100);
    rotate(shape, moved.data(), 900);
    const std::vector<float> there = at(q, 1000);
    for (size_t i = 0; i < 10; i++) EXPECT_NEAR(moved[i], there[i], 1e-4);
    // Spread: every query lands within the horizon, and not all at one place.
    std::vector<float> many;
    std::vector<int32_t> positions;
    for (int32_t i = 0; i < 50; i++) {
      const std::vector<float> one = at(q, i);
      many.insert(many.end(), one.begin(), one.end());
      positions.push_back(i);
    }
    spread(shape, many.data(), positions.data(), 50, 2000, 64);
    std::vector<int32_t> places;
    for (int32_t i = 0; i < 50; i++) {
      int32_t place = -1;
      for (int32_t p = 2000; p < 2064; p++) {
        const std::vector<float> want = at(q, p);
        double worst = 0;
        for (size_t d = 0; d < 10; d++) worst = std::max(worst, std::fabs(double(many[size_t(i) * 10 + d]) - double(want[d])));
        if (worst < 2e-3) place = p;
      }
      EXPECT(place >= 2000);
      places.push_back(place);
    }
    std::sort(places.begin(), places.end());
    EXPECT(std::unique(places.begin(), places.end()) - places.begin() > 40);
  }
}
