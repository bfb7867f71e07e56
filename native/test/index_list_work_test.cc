// What growing lists costs, in counted products.
#include <string>

#include "byte_kernels.h"
#include "byte_panels.h"
#include "index_fixture.h"
#include "knn.h"
#include "partition.h"

using namespace kvasir;
using namespace kvasir_test;

namespace {

// Products of rows with columns, in units of four dimensions, that the kernels of `counting` made.
const ByteKernels* counted_kernels;
int64_t counted_units;

void count_dot(float* out, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* scales, int32_t units) {
  counted_units += int64_t{count} * kPanelRows * units;
  counted_kernels->dot(out, rows, count, panel, scales, units);
}

void count_above(const BytePassed& passed, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* scales, int32_t units) {
  counted_units += int64_t{count} * kPanelRows * units;
  counted_kernels->above(passed, rows, count, panel, scales, units);
}

struct Counting {
  IndexIsa isa = find_index_isa("auto");
  ByteKernels kernels = *isa.bytes;
  Counting() {
    counted_kernels = find_index_isa("auto").bytes;
    kernels.dot = count_dot;
    kernels.above = count_above;
    isa.bytes = &kernels;
    counted_units = 0;
  }
};

Rows rows_of(const Layer& layer) {
  const int32_t desc[KVASIR_SEGMENT_DESC] = {layer.start, KVASIR_F32, layer.kv_heads, layer.capacity, layer.dim};
  Rows rows;
  rows.append(std::make_shared<const Segment>(desc, layer.keys, layer.values, nullptr, nullptr));
  return rows;
}

}  // namespace

TEST("the best columns cost a product each, and a thin sample of them") {
  const int32_t dim = 32, count = 6400, rows = 24, k = 100;
  Random random(9);
  const std::vector<float> columns = random.normals(size_t(count * dim)), q = random.normals(size_t(rows * dim));
  const Counting counting;
  const BytePanels panels(counting.kernels, run_inline, count, dim, [&](float* out, int32_t first, int32_t some) {
    std::copy_n(columns.data() + size_t(first * dim), size_t(some * dim), out);
  });
  best_columns(counting.isa, run_inline, panels, panels.terms(q.data(), nullptr, rows), {k / 2, k});
  const int64_t once = int64_t{rows} * count * dim / 4;
  EXPECT(counted_units >= once);
  EXPECT(counted_units < once * 3 / 2);  // a quarter is the sample; the rest is rows that it misled
}

TEST("dimensions that rows have lost cost nothing, and what they say is kept") {
  const int32_t dim = 64, count = 320, rows = 16;
  Random random(10);
  std::vector<float> columns = random.normals(size_t(count * dim)), q = random.normals(size_t(rows * dim));
  for (int32_t i = 0; i < rows * dim; i++) {
    if (i % 2 == 1) q[size_t(i)] *= 0.01f;  // every second dimension
  }
  for (int32_t i = 0; i < count; i++) columns[size_t(i * dim + 1)] += 1e4f;  // which all columns have in common
  const Counting counting;
  const std::vector<float> weights = mean_squares(q.data(), rows, dim);
  const BytePanels panels(counting.kernels, run_inline, count, dim, [&](float* out, int32_t first, int32_t some) {
    std::copy_n(columns.data() + size_t(first * dim), size_t(some * dim), out);
  }, weights.data());
  for (double share : {1.0, 0.999}) {
    const BytePanels::Terms terms = panels.terms(q.data(), nullptr, rows, share);
    EXPECT(share == 1 ? terms.units == 16 : terms.units <= 8);
    std::vector<float> out(size_t(rows) * kPanelRows);
    counted_units = 0;
    double error = 0, square = 0;
    for (int32_t p = 0; p < panels.panels(); p++) {
      panels.dot(counting.kernels, out.data(), terms, 0, rows, p);
      for (int32_t r = 0; r < rows; r++) {
        for (int32_t j = 0; j < kPanelRows; j++) {
          double want = 0, offset = 0;
          for (int32_t d = 0; d < dim; d++) {
            want += double(q[size_t(r * dim + d)]) * double(columns[size_t((p * kPanelRows + j) * dim + d)]);
          }
          offset = 1e4 * double(q[size_t(r * dim + 1)]);
          error += (want - double(out[size_t(r * kPanelRows + j)])) * (want - double(out[size_t(r * kPanelRows + j)]));
          square += (want - offset) * (want - offset);
        }
      }
    }
    EXPECT_EQ(counted_units, int64_t{rows} * count * terms.units);
    EXPECT(std::sqrt(error / square) < 0.06);
  }
}

TEST("codes of rows stand for them within an eighth, and score as what they stand for") {
  Random random(31);
  for (const int32_t dim : {16, 64, 96, 256}) {
    const int32_t count = 1500, group = 3;  // more than a block
    std::vector<float> rows = random.normals(size_t(count * dim)), q = random.normals(size_t(group * dim));
    for (float& x : rows) x += 5;
    const std::shared_ptr<const GraphCodes> codes = GraphCodes::of_rows(rows, dim);
    const std::vector<float> decoded = codes->decode();
    double error = 0, square = 0;
    for (size_t i = 0; i < rows.size(); i++) {
      error += double(decoded[i] - rows[i]) * double(decoded[i] - rows[i]);
      square += double(rows[i] - 5) * double(rows[i] - 5);
    }
    EXPECT(std::sqrt(error / square) < 0.125);
    std::vector<int32_t> nodes(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; i++) nodes[size_t(i)] = i;
    std::vector<float> scores(size_t(group * count));
    GraphCodeQuery query;
    codes->prepare(query, q.data(), group);
    codes->score_heads(scores.data(), size_t(count), *find_index_isa("auto").graph, query, nodes.data(), count);
    for (int32_t g = 0; g < group; g++) {
      for (int32_t i = 0; i < count; i++) {
        double want = 0;
        for (int32_t d = 0; d < dim; d++) want += double(decoded[size_t(i * dim + d)]) * double(q[size_t(g * dim + d)]);
        EXPECT_NEAR(scores[size_t(g * count + i)], want, 0.01 * dim);
      }
    }
  }
}

TEST("an extension multiplies new keys alone, with each cell and each list once") {
  const int32_t dim = 16, old = 2048, added = 320, cells = 16, lists = 24;
  Random random(11);
  Layer layer(1, 1, old + added, dim);
  layer.fill(random);
  const Rows rows = rows_of(layer);
  const Counting counting;
  Partition before;
  const std::vector<float> queries = random.normals(size_t(400 * dim)), centroids = random.normals(size_t(lists * dim));
  build_homes(before, {&counting.isa, &rows, 0, dim, 0, old}, run_inline, cells, queries.data(), 400, 4, 7);
  before.routed.routers = GraphCodes::of_rows(centroids, dim);
  before.routed.append(std::vector<std::vector<int32_t>>(size_t(lists)));
  before.thresholds.assign(size_t(lists), 3);
  counted_units = 0;
  const std::shared_ptr<Partition> grown = extend(before, {&counting.isa, &rows, 0, dim, 0, old + added}, run_inline);
  EXPECT(counted_units > int64_t{added} * (cells + lists / 2) * dim / 4);
  EXPECT(counted_units <= int64_t{added} * (cells + lists) * dim / 4);
  // The lists have what their thresholds let pass, the homes every key, near where a product in float32 puts it.
  const std::vector<float> coded = before.routed.routers->decode();
  int32_t right = 0, wrong = 0, homes = 0;
  for (int32_t list = 0; list < lists; list++) {
    std::vector<char> has(size_t(old + added));
    grown->routed.each(list, [&](int32_t id) { has[size_t(id)] = 1; });
    for (int32_t id = 0; id < old + added; id++) {
      double s = 0;
      for (int32_t d = 0; d < dim; d++) s += double(coded[size_t(list * dim + d)]) * double(layer.key(0, id)[d]);
      const bool belongs = id >= old && s >= 3;
      (belongs == (has[size_t(id)] != 0) ? right : wrong)++;
      if (std::fabs(s - 3) > 0.5) EXPECT_EQ(belongs, has[size_t(id)] != 0);
    }
  }
  EXPECT(wrong * 200 < right);
  for (int32_t cell = 0; cell < cells; cell++) {
    grown->homes.each(cell, [&](int32_t id) { homes += id >= old; });
  }
  EXPECT_EQ(homes, added);
  EXPECT_EQ(grown->keys, old + added);
}

TEST("lists of long contexts are aimed twice while their keys double") {
  const int32_t dim = 8, first = 65536, last = 130000;
  Random random(12);
  Layer layer(1, 1, last, dim);
  const std::vector<float> keys = random.normals(size_t(last * dim));
  std::memcpy(layer.key(0, 0), keys.data(), keys.size() * 4);
  const std::vector<float> queries = random.normals(size_t(last * dim));
  IndexContext c("threads=1,builders=0");
  const kvasir_index index = c.index("lists:keys=1000,depth=256", layer, 0.35);
  double numbers[KVASIR_STATS];
  std::vector<char> text(1 << 14);
  for (int32_t at = 0; at < last;) {
    const int32_t some = at == 0 ? first : std::min(1024, last - at);
    EXPECT_INDEX_OK(index_add(c, index, at, some, queries.data() + size_t(at) * dim));
    EXPECT_INDEX_OK(kvasir_index_commit(c, index));
    at += some;
    if (at == first) EXPECT_INDEX_OK(kvasir_index_settle(c, index));
  }
  EXPECT_INDEX_OK(kvasir_index_stats(c, index, numbers, text.data(), int32_t(text.size())));
  const std::string why = text.data();
  int32_t aims = 0, builds = 0;
  for (size_t at = 0; (at = why.find("aim of", at)) != std::string::npos; at++) aims++;
  for (size_t at = 0; (at = why.find("build of", at)) != std::string::npos; at++) builds++;
  EXPECT_EQ(builds, 1);
  EXPECT_EQ(aims, 2);
}
