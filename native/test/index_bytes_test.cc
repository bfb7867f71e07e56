// Products in bytes, what is found with them, and packed lists.
#include <algorithm>
#include <cmath>

#include "byte_kernels.h"
#include "byte_panels.h"
#include "error.h"
#include "fixture.h"
#include "harness.h"
#include "knn.h"
#include "list_tables.h"

using namespace kvasir;
using namespace kvasir_test;

namespace {

std::vector<const IndexIsa*> all_sets() {
  std::vector<const IndexIsa*> sets;
  for (const char* name : {"portable", "avx2", "avx512"}) {
    try {
      sets.push_back(&find_index_isa(name));
    } catch (const Error&) {
    }
  }
  return sets;
}

ReadColumns reader(const std::vector<float>& columns, int32_t dim) {
  return [&columns, dim](float* out, int32_t first, int32_t count) {
    std::copy_n(columns.data() + size_t(first) * size_t(dim), size_t(count) * size_t(dim), out);
  };
}

double dot(const float* a, const float* b, int32_t dim) {
  double sum = 0;
  for (int32_t d = 0; d < dim; d++) sum += double(a[d]) * double(b[d]);
  return sum;
}

}  // namespace

TEST("products in bytes err by a few hundredths of their spread, whatever dimensions stand out, on every instruction set") {
  Random random(5);
  for (int32_t dim : {1, 6, 64, 131}) {
    const int32_t count = 77, rows = 29;
    std::vector<float> columns = random.normals(size_t(count * dim)), q = random.normals(size_t(rows * dim));
    for (int32_t i = 0; i < count; i++) {
      columns[size_t(i * dim)] = columns[size_t(i * dim)] * 40 + 900;  // one dimension large and off centre
      if (dim > 5) columns[size_t(i * dim + 5)] = 3;                   // one that never varies
    }
    const BytePanels panels(*find_index_isa("auto").bytes, run_inline, count, dim, reader(columns, dim));
    const BytePanels::Terms terms = panels.terms(q.data(), nullptr, rows);
    for (const IndexIsa* isa : all_sets()) {
      for (int32_t r = 0; r < rows; r++) {
        double mean = 0, square = 0, error = 0;
        for (int32_t p = 0; p < panels.panels(); p++) {
          std::vector<float> out(32 * size_t(rows));
          panels.dot(*isa->bytes, out.data(), terms, 0, rows, p);
          for (int32_t j = 0; j < std::min(32, count - p * 32); j++) {
            const double want = dot(q.data() + r * dim, columns.data() + (p * 32 + j) * dim, dim);
            mean += want / count, square += want * want / count;
            error += (want - double(out[size_t(r * 32 + j)])) * (want - double(out[size_t(r * 32 + j)])) / count;
          }
        }
        EXPECT(std::sqrt(error) < 0.04 * std::sqrt(square - mean * mean) + 1e-6 * std::fabs(mean));
      }
    }
  }
}

TEST("best columns are nearly the best, in classes of the depths asked for") {
  Random random(6);
  const int32_t dim = 32, count = 5000, rows = 40;
  const std::vector<float> columns = random.normals(size_t(count * dim)), q = random.normals(size_t(rows * dim));
  const BytePanels panels(*find_index_isa("auto").bytes, run_inline, count, dim, reader(columns, dim));
  for (const IndexIsa* isa : all_sets()) {
    // 1000 of 5000 go without a sample, 300 with one.
    for (const std::vector<int32_t>& cuts : {std::vector<int32_t>{50, 300}, {1000}}) {
      const BestColumns best = best_columns(*isa, run_inline, panels, panels.terms(q.data(), nullptr, rows), cuts);
      for (int32_t r = 0; r < rows; r++) {
        std::vector<double> s;
        for (int32_t i = 0; i < count; i++) s.push_back(dot(q.data() + r * dim, columns.data() + i * dim, dim));
        std::vector<double> sorted = s;
        std::sort(sorted.rbegin(), sorted.rend());
        for (int32_t k : cuts) {
          const int32_t* ids = best.ids.data() + r * best.k;
          std::vector<int32_t> first(ids, ids + k);
          std::sort(first.begin(), first.end());
          EXPECT(std::unique(first.begin(), first.end()) == first.end());
          const auto found = std::count_if(first.begin(), first.end(), [&](int32_t id) { return s[size_t(id)] >= sorted[size_t(k - 1)]; });
          EXPECT(double(found) >= 0.93 * k);
          const float* scores = best.scores.data() + r * best.k;
          EXPECT_NEAR(*std::min_element(scores, scores + k), sorted[size_t(k - 1)], 0.3);
        }
      }
    }
  }
}

TEST("the nearest row of a column is found in bytes, of equals the first") {
  Random random(7);
  const int32_t dim = 24, count = 300, rows = 500;  // more rows than a task's piece
  std::vector<float> columns, q = random.normals(size_t(rows * dim));
  for (int32_t i = 0; i < count; i++) {
    for (int32_t d = 0; d < dim; d++) columns.push_back(3 * q[size_t((i * 37 % 250) * dim + d)] + 0.1f * random.normals(1)[0]);
  }
  std::copy_n(q.begin(), 250 * dim, q.begin() + 250 * dim);  // each row twice
  std::vector<float> offsets;
  for (int32_t r = 0; r < rows; r++) offsets.push_back(float(-1.5 * dot(q.data() + r * dim, q.data() + r * dim, dim)));
  const BytePanels panels(*find_index_isa("auto").bytes, run_inline, count, dim, reader(columns, dim));
  for (const IndexIsa* isa : all_sets()) {
    std::vector<int32_t> nearest(size_t(count), -1);
    panels.nearest(*isa->bytes, run_inline, nearest.data(), panels.terms(q.data(), offsets.data(), rows));
    for (int32_t i = 0; i < count; i++) EXPECT_EQ(nearest[size_t(i)], i * 37 % 250);
  }
}

TEST("equal, huge and unmeasurable columns leave products finite") {
  for (float x : {0.0f, 5.0f, 1e-42f, 3e38f}) {
    std::vector<float> columns(8 * 64, x), q(8 * 3, 1);
    columns[9] = -x;
    const BytePanels panels(*find_index_isa("auto").bytes, run_inline, 64, 8, reader(columns, 8));
    std::vector<float> out(3 * 32);
    for (const IndexIsa* isa : all_sets()) {
      panels.dot(*isa->bytes, out.data(), panels.terms(q.data(), nullptr, 3), 0, 3, 0);
      for (float s : out) EXPECT(std::isfinite(s) || x == 3e38f);
      for (float s : out) EXPECT(!std::isnan(s));
    }
  }
}

TEST("best columns are all different where products are equal or overflow") {
  for (float x : {1.0f, 3e38f}) {
    const int32_t dim = 8, count = 3000, rows = 3;
    std::vector<float> columns(size_t(dim * count), x), q(size_t(dim * rows), 1);
    for (int32_t i = 0; i < dim; i++) columns[size_t(i)] = -x, q[size_t(i)] = x;
    const BytePanels panels(*find_index_isa("auto").bytes, run_inline, count, dim, reader(columns, dim));
    for (const IndexIsa* isa : all_sets()) {
      const BestColumns best = best_columns(*isa, run_inline, panels, panels.terms(q.data(), nullptr, rows), {100, 1000});
      for (int32_t r = x > 1 ? 1 : 0; r < rows; r++) {
        std::vector<int32_t> ids(best.ids.begin() + r * 1000, best.ids.begin() + (r + 1) * 1000);
        std::sort(ids.begin(), ids.end());
        EXPECT(std::unique(ids.begin(), ids.end()) == ids.end());
        EXPECT(ids.front() >= 0 && ids.back() < count);
      }
    }
  }
}

TEST("packed lists hold what was appended, in every width of gap, and refuse what is no list") {
  Random random(8);
  GapLists lists;
  lists.routers = GraphCodes::of_rows(random.normals(3 * 4), 4);
  std::vector<std::vector<int32_t>> all(3);
  int32_t next = 0;
  for (int32_t round = 0; round < 4; round++) {
    std::vector<std::vector<int32_t>> more(3);
    for (int32_t gap : {0, 1, 239, 240, 241, 495, 496, 3823, 3824, 3825, 70000, 9000000}) {
      next += gap + 1;
      more[size_t(round % 2)].push_back(next - 1);  // the third stays empty
      all[size_t(round % 2)].push_back(next - 1);
    }
    lists.append(more);
  }
  for (int32_t list = 0; list < 3; list++) {
    std::vector<int32_t> found;
    lists.each(list, [&](int32_t id) { found.push_back(id); });
    EXPECT(found == all[size_t(list)]);
  }
  GapLists read = lists;
  read.last.clear();
  EXPECT(read.check(next));
  EXPECT(read.last == lists.last);
  EXPECT(!read.check(next - 1));
  for (const std::vector<uint8_t>& bad : {std::vector<uint8_t>{240}, {255, 0, 0, 0, 0}, {254, 0, 0, 0}, {254, 255, 255, 255, 255}}) {
    GapLists one;
    one.routers = GraphCodes::of_rows(random.normals(4), 4);
    one.gaps = bad;
    one.offsets = {0, int32_t(bad.size())};
    EXPECT(!one.check(1 << 30));
  }
}
