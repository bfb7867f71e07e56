// Exact nearest keys against sorting everything.
#include <functional>
#include <thread>

#include "index_fixture.h"
#include "knn.h"

using namespace kvasir_test;

namespace {

void on_threads(int32_t count, const std::function<void(int32_t)>& body) {
  std::vector<std::thread> threads;
  for (int32_t t = 0; t < 2; t++) {
    threads.emplace_back([&, t] {
      for (int32_t i = t; i < count; i += 2) body(i);
    });
  }
  for (std::thread& t : threads) t.join();
}

kvasir::Rows rows_of(const Layer& layer) {
  const int32_t desc[KVASIR_SEGMENT_DESC] = {layer.start, KVASIR_F32, layer.kv_heads, layer.capacity, layer.dim};
  kvasir::Rows rows;
  rows.append(std::make_shared<const kvasir::Segment>(desc, layer.keys, layer.values, nullptr, nullptr));
  return rows;
}

std::vector<std::string> index_isas() {
  std::vector<std::string> found = {"portable"};
  for (const char* name : {"avx2", "avx512"}) {
    kvasir_index_context* c = kvasir_index_context_create(("threads=1,isa=" + std::string(name)).c_str(), nullptr);
    if (c != nullptr) found.push_back(name);
    if (c != nullptr) kvasir_index_context_destroy(c);
  }
  return found;
}

}  // namespace

TEST("nearest keys are those a sort of all products finds") {
  Random random(11);
  for (const std::string& name : index_isas()) {
    const kvasir::IndexIsa& isa = kvasir::find_index_isa(name.c_str());
    for (const int32_t dim : {5, 64, 80}) {
      Layer layer(2, 2, 1500, dim, 7);
      layer.fill(random);
      std::memcpy(layer.key(1, 40), layer.key(1, 900), sizeof(float) * static_cast<size_t>(dim));  // equals: the lower position first
      const kvasir::Rows rows = rows_of(layer);
      const int32_t from = 16, to = 1391, queries = 29;
      const std::vector<float> q = random.normals(static_cast<size_t>(queries * dim));
      for (const int32_t k : {1, 40, 1375, 5000}) {
        const kvasir::Neighbours got = kvasir::nearest_keys(isa, on_threads, rows, 1, from, to, q.data(), queries, k);
        EXPECT_EQ(got.k, std::min(k, to - from));
        for (int32_t i = 0; i < queries; i++) {
          std::vector<std::pair<double, int32_t>> want;
          for (int32_t p = from; p < to; p++) {
            double dot = 0;
            for (int32_t d = 0; d < dim; d++) dot += double(q[static_cast<size_t>(i * dim + d)]) * double(layer.key(1, p - 7)[d]);
            want.push_back({-dot, p});
          }
          std::sort(want.begin(), want.end());
          for (int32_t j = 0; j < got.k; j++) {
            const auto& w = want[static_cast<size_t>(j)];
            // Neighbours of almost equal products may change places.
            EXPECT_NEAR(got.scores_of(i)[j], -w.first, 1e-3);
            if (j > 0 && w.first - want[static_cast<size_t>(j - 1)].first < 1e-4) continue;
            if (j + 1 < to - from && want[static_cast<size_t>(j + 1)].first - w.first < 1e-4) continue;
            EXPECT_EQ(got.of(i)[j], w.second);
          }
        }
      }
    }
  }
}

TEST("equal keys are found in order of position") {
  Layer layer(1, 1, 700, 8);
  for (int32_t r = 0; r < 700; r++) {
    for (int32_t d = 0; d < 8; d++) layer.key(0, r)[d] = 1;
  }
  const std::vector<float> q(16, 0.5f);
  const kvasir::Neighbours got =
      kvasir::nearest_keys(kvasir::find_index_isa("auto"), kvasir::run_inline, rows_of(layer), 0, 0, 700, q.data(), 2, 9);
  for (int32_t i = 0; i < 2; i++) {
    for (int32_t j = 0; j < 9; j++) EXPECT_EQ(got.of(i)[j], j);
  }
}
