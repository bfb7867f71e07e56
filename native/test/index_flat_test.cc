// Type "flat": certificates against float64, and what must not matter: threads, instruction set, how keys came, ties.
#include <numeric>

#include "half.h"
#include "index_fixture.h"

using namespace kvasir_test;

namespace {

constexpr int32_t kStart = 3;

// One layer in one segment of any element type; `shape` changes a row's numbers before they are stored.
struct Keys {
  int32_t heads, kv_heads, count, dim, dtype;
  kvasir_memory *keys, *scales;
  std::vector<float> wide;  // [kv_heads, count, dim], as stored

  template <class F>
  Keys(int32_t heads_, int32_t kv_heads_, int32_t count_, int32_t dim_, int32_t dtype_, uint64_t seed, F&& shape)
      : heads(heads_), kv_heads(kv_heads_), count(count_), dim(dim_), dtype(dtype_), keys(block(elements() * 4)),
        scales(block(static_cast<size_t>(kv_heads * count) * 4)), wide(elements()) {
    Random random(seed);
    const std::vector<float> mean = random.normals(static_cast<size_t>(kv_heads * dim), 2);
    for (int32_t h = 0; h < kv_heads; h++) {
      for (int32_t r = 0; r < count; r++) {
        std::vector<float> row = random.normals(static_cast<size_t>(dim));
        for (size_t i = 0; i < row.size(); i++) row[i] += mean[static_cast<size_t>(h * dim) + i];
        shape(row.data(), r);
        const size_t at = static_cast<size_t>(h * count + r);
        const float scale = 0.02f + 0.05f * static_cast<float>(random.uniform());
        static_cast<float*>(scales->data)[at] = scale;
        for (size_t i = 0; i < row.size(); i++) store(at * row.size() + i, row[i], scale);
      }
    }
  }
  Keys(int32_t heads_, int32_t kv_heads_, int32_t count_, int32_t dim_, int32_t dtype_, uint64_t seed)
      : Keys(heads_, kv_heads_, count_, dim_, dtype_, seed, [](float*, int32_t) {}) {}
  ~Keys() {
    keys->release(keys);
    scales->release(scales);
  }
  Keys(const Keys&) = delete;

  kvasir_index index(kvasir_index_context* c, const std::string& spec, double scale = 0.125, double softcap = 0) const {
    const int32_t desc[KVASIR_SEGMENT_DESC] = {kStart, dtype, kv_heads, count, dim};
    kvasir_segment segment = 0;
    EXPECT_INDEX_OK(kvasir_segment_create(c, &segment, desc, keys, keys, scales, scales));
    const double shape[KVASIR_INDEX_SHAPE] = {double(heads), double(kv_heads), double(dim), scale, softcap, 0, 0, 7};
    kvasir_index id = 0;
    EXPECT_INDEX_OK(kvasir_index_create(c, &id, spec.c_str(), shape, nullptr));
    EXPECT_INDEX_OK(kvasir_index_append_segment(c, id, segment));
    return id;
  }
  // Row `row`'s logits of the first n keys in float64.
  std::vector<double> logits(const float* q, int32_t row, int32_t n, double scale = 0.125) const {
    std::vector<double> out(static_cast<size_t>(n));
    const int32_t head = row / (heads / kv_heads);
    for (int32_t i = 0; i < n; i++) {
      double dot = 0;
      for (int32_t d = 0; d < dim; d++) {
        dot += double(q[row * dim + d]) * double(wide[static_cast<size_t>((head * count + i) * dim + d)]);
      }
      out[static_cast<size_t>(i)] = dot * scale;
    }
    return out;
  }

 private:
  size_t elements() const { return static_cast<size_t>(kv_heads) * static_cast<size_t>(count) * static_cast<size_t>(dim); }
  static kvasir_memory* block(size_t bytes) { return kvasir::share_memory(kvasir::aligned_allocate(bytes), bytes); }
  void store(size_t at, float x, float scale) {
    if (dtype == KVASIR_F32) {
      static_cast<float*>(keys->data)[at] = wide[at] = x;
    } else if (dtype == KVASIR_F16) {
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      const bool normal = std::fabs(x) > 1e-4f && std::fabs(x) < 6e4f;
      const uint16_t half = normal ? static_cast<uint16_t>((bits >> 16 & 0x8000) | ((bits >> 13 & 0x3ffff) - (112u << 10))) : 0;
      static_cast<uint16_t*>(keys->data)[at] = half;
      wide[at] = kvasir::half_to_float(half);
    } else {
      const int8_t code = static_cast<int8_t>(std::lrint(std::fmax(-127.0f, std::fmin(127.0f, x * 20))));
      static_cast<int8_t*>(keys->data)[at] = code;
      wide[at] = scale * static_cast<float>(code);
    }
  }
};

struct Answer {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> bias;
  double report[KVASIR_REPORT];
};

Answer ask(kvasir_index_context* c, kvasir_index index, const Keys& keys, const std::vector<float>& q, double k, bool tail = false,
           double draw = 1) {
  const double goal[KVASIR_GOAL] = {KVASIR_GOAL_TOPK, k, tail ? 1.0 : 0.0, draw};
  const size_t room = static_cast<size_t>(k), rows = static_cast<size_t>(keys.heads);
  std::vector<int32_t> tokens(rows * room), counts(rows);
  std::vector<float> bias(rows * room), errors(rows), exact(rows, -INFINITY);
  Answer a;
  EXPECT_INDEX_OK(kvasir_index_search(c, index, tokens.data(), bias.data(), counts.data(), errors.data(), a.report,
                                      static_cast<int32_t>(k), goal, q.data(), exact.data(), nullptr, nullptr));
  for (size_t r = 0; r < rows; r++) {
    const auto at = static_cast<ptrdiff_t>(r * room), n = static_cast<ptrdiff_t>(counts[r]);
    a.tokens.emplace_back(tokens.begin() + at, tokens.begin() + at + n);
    a.bias.emplace_back(bias.begin() + at, bias.begin() + at + n);
  }
  return a;
}

// Every key that is left out scores at most what the worst returned one does, but for float32's last bits.
void expect_best(const Keys& keys, const Answer& a, const std::vector<float>& q, int32_t n, int32_t k, double scale = 0.125,
                 double tolerance = 2e-6) {
  EXPECT_EQ(a.report[0], double(KVASIR_CERTIFICATE_EXACT));
  for (int32_t row = 0; row < keys.heads; row++) {
    const auto& got = a.tokens[static_cast<size_t>(row)];
    EXPECT_EQ(got.size(), static_cast<size_t>(std::min(n, k)));
    const std::vector<double> want = keys.logits(q.data(), row, n, scale);
    std::vector<bool> in(static_cast<size_t>(n));
    double worst = INFINITY, best_left = -INFINITY, size = 0;
    for (size_t i = 0; i < got.size(); i++) {
      EXPECT(i == 0 || got[i] > got[i - 1]);
      EXPECT(got[i] >= kStart && got[i] < kStart + n);
      in[static_cast<size_t>(got[i] - kStart)] = true;
      worst = std::fmin(worst, want[static_cast<size_t>(got[i] - kStart)]);
    }
    for (size_t i = 0; i < want.size(); i++) {
      size = std::fmax(size, std::fabs(want[i]));
      if (!in[i]) best_left = std::fmax(best_left, want[i]);
    }
    EXPECT(best_left <= worst + tolerance * size);
  }
}

kvasir_index filled(kvasir_index_context* c, const Keys& keys, const std::string& spec, int32_t n, double scale = 0.125,
                    double softcap = 0) {
  const kvasir_index index = keys.index(c, spec, scale, softcap);
  EXPECT_INDEX_OK(kvasir_index_add(c, index, kStart, n));
  EXPECT_INDEX_OK(kvasir_index_commit(c, index));
  return index;
}

}  // namespace

TEST("flat's top-k is exact: every head size, group, cache, kind of codes and instruction set") {
  int32_t group = 0, dtype = 0;
  for (const int32_t dim : {64, 80, 96, 128, 256, 5, 33, 1}) {
    group = group % 8 + 1;
    const int32_t dtypes[] = {KVASIR_F32, KVASIR_F16, KVASIR_I8};
    const Keys keys(2 * group, 2, 700, dim, dtypes[dtype++ % 3], static_cast<uint64_t>(dim));
    Random random(3);
    const std::vector<float> q = random.normals(static_cast<size_t>(2 * group * dim));
    for (const std::string& isa : isas()) {
      for (const char* spec : {"flat:codes=int8", "flat:codes=int4", "flat:codes=f16"}) {
        IndexContext c(("threads=2,isa=" + isa).c_str());
        const kvasir_index index = filled(c, keys, spec, 667);
        for (const int32_t k : {1, 7, 100, 666, 667, 4096}) expect_best(keys, ask(c, index, keys, q, k), q, 667, k);
      }
    }
  }
}

TEST("flat's top-k is exact where keys are many, and rescores few of them") {
  const Keys keys(6, 2, 9000, 64, KVASIR_F16, 8);
  Random random(4);
  const std::vector<float> q = random.normals(6 * 64);
  IndexContext c("threads=2");
  const kvasir_index index = filled(c, keys, "flat:codes=int8", 9000);
  for (const int32_t k : {1, 100, 1000, 4096}) {
    const Answer a = ask(c, index, keys, q, k);
    expect_best(keys, a, q, 9000, k);
    const double scan = 2 * 9000 * (64 + 4 + 2), rescored = (a.report[3] - scan) / 128;
    EXPECT(rescored >= 6 * k);
    EXPECT(rescored <= 6 * (1.6 * k + 40));
  }
}

TEST("where 4-bit bounds decide too little, flat reads the rows once for the group") {
  const Keys keys(4, 1, 6000, 256, KVASIR_F16, 9);
  Random random(4);
  const std::vector<float> q = random.normals(4 * 256);
  IndexContext c("threads=2");
  const kvasir_index index = filled(c, keys, "flat:codes=int4", 6000);
  const Answer a = ask(c, index, keys, q, 100);
  expect_best(keys, a, q, 6000, 100);
  EXPECT_EQ(a.report[1], 12000.0);  // every key by its code, then by its row
}

TEST("flat's top-k stays exact for duplicates, constant keys, huge, tiny and unequal norms") {
  struct Shape {
    const char* name;
    void (*apply)(float* row, int32_t r);
  };
  static constexpr int32_t kDim = 48;
  const Shape shapes[] = {
      {"duplicates", [](float* row, int32_t r) { for (int32_t i = 0; i < kDim; i++) row[i] = static_cast<float>((r % 7 * 31 + i * 17) % 13); }},
      {"constant", [](float* row, int32_t) { for (int32_t i = 0; i < kDim; i++) row[i] = 1.5f; }},
      {"zeros", [](float* row, int32_t) { for (int32_t i = 0; i < kDim; i++) row[i] = 0; }},
      {"huge", [](float* row, int32_t) { for (int32_t i = 0; i < kDim; i++) row[i] *= 1e15f; }},
      {"enormous", [](float* row, int32_t) { for (int32_t i = 0; i < kDim; i++) row[i] *= 3e36f; }},
      {"beyond float32", [](float* row, int32_t) { for (int32_t i = 0; i < kDim; i++) row[i] *= 2e37f; }},
      {"tiny", [](float* row, int32_t) { for (int32_t i = 0; i < kDim; i++) row[i] *= 1e-18f; }},
      {"vanishing", [](float* row, int32_t) { for (int32_t i = 0; i < kDim; i++) row[i] *= 1e-34f; }},
      {"unequal", [](float* row, int32_t r) { for (int32_t i = 0; i < kDim; i++) row[i] *= std::pow(10.0f, static_cast<float>(r % 20 - 10)); }},
      {"one giant", [](float* row, int32_t r) { for (int32_t i = 0; i < kDim; i++) row[i] *= r == 77 ? 1e20f : 1.0f; }},
  };
  for (const Shape& shape : shapes) {
    const Keys keys(4, 2, 300, kDim, KVASIR_F32, 11, shape.apply);
    Random random(5);
    for (const float size : {1.0f, 1e-6f}) {
      std::vector<float> q = random.normals(4 * kDim, size);
      std::fill(q.begin(), q.begin() + kDim, 0.0f);  // the first head asks nothing: lowest positions win
      for (const std::string& isa : isas()) {
        for (const char* spec : {"flat:codes=int8", "flat:codes=int4", "flat:codes=f16"}) {
          IndexContext c(("threads=1,isa=" + isa).c_str());
          const kvasir_index index = filled(c, keys, spec, 300);
          const Answer a = ask(c, index, keys, q, 20);
          const int before = failures();
          expect_best(keys, a, q, 300, 20, 0.125, 1e-5);
          for (int32_t i = 0; i < 20; i++) EXPECT_EQ(a.tokens[0][static_cast<size_t>(i)], kStart + i);
          if (failures() != before) {
            std::printf("  keys: %s, queries of size %g, %s, %s\n", shape.name, static_cast<double>(size), isa.c_str(), spec);
          }
        }
      }
    }
  }
}

TEST("flat answers alike whatever the threads and the adds") {
  const Keys keys(6, 3, 5000, 64, KVASIR_F16, 21);
  Random random(6);
  const std::vector<float> q = random.normals(6 * 64);
  IndexContext one("threads=1"), two("threads=2");
  const kvasir_index a = filled(one, keys, "flat", 5000), b = keys.index(two, "flat");
  for (int32_t at = 0; at < 5000;) {
    const int32_t n = std::min(5000 - at, 1 + static_cast<int32_t>(random.bits() % 900));
    EXPECT_INDEX_OK(kvasir_index_add(two, b, kStart + at, n));
    at += n;
  }
  EXPECT_INDEX_OK(kvasir_index_commit(two, b));
  for (const bool tail : {false, true}) {
    const Answer x = ask(one, a, keys, q, 100, tail), y = ask(two, b, keys, q, 100, tail), z = ask(two, b, keys, q, 100, tail, 2);
    EXPECT(x.tokens == y.tokens && x.bias == y.bias);
    EXPECT_EQ(x.tokens == z.tokens, !tail);
  }
}

TEST("flat finds only what was committed, and grows") {
  const Keys keys(2, 1, 3000, 64, KVASIR_F32, 22);
  Random random(7);
  const std::vector<float> q = random.normals(2 * 64);
  IndexContext c;
  const kvasir_index index = keys.index(c, "flat");
  EXPECT_EQ(ask(c, index, keys, q, 10).tokens[0].size(), size_t{0});
  int32_t seen = 0;
  for (const int32_t n : {1, 5, 31, 32, 33, 64, 500, 2047, 2049, 3000}) {
    EXPECT_INDEX_OK(kvasir_index_add(c, index, kStart + seen, n - seen));
    if (seen > 0) expect_best(keys, ask(c, index, keys, q, 50), q, seen, 50);
    EXPECT_INDEX_OK(kvasir_index_commit(c, index));
    expect_best(keys, ask(c, index, keys, q, 50), q, n, 50);
    seen = n;
  }
}

TEST("flat samples a budget without bias, and a planted bias shows") {
  const Keys keys(2, 1, 400, 32, KVASIR_F16, 23);
  Random random(8);
  const std::vector<float> q = random.normals(2 * 32, 3);
  IndexContext c("threads=1");
  for (const double softcap : {0.0, 2.0}) {
    const kvasir_index index = filled(c, keys, "flat:codes=int8", 400, 0.125, softcap);
    for (int32_t row = 0; row < 2; row++) {
      std::vector<double> s = keys.logits(q.data(), row, 400);
      for (double& x : s) x = softcap > 0 ? softcap * std::tanh(x / softcap) : x;
      const double most = *std::max_element(s.begin(), s.end());
      double denominator = 0, numerator = 0;
      for (size_t i = 0; i < s.size(); i++) {
        denominator += std::exp(s[i] - most);
        numerator += std::exp(s[i] - most) * std::sin(double(i));
      }
      double sums[2] = {}, squares[2] = {};
      const int draws = 3000;
      for (int draw = 0; draw < draws; draw++) {
        const Answer a = ask(c, index, keys, q, 40, true, draw);
        EXPECT_EQ(a.report[0], double(KVASIR_CERTIFICATE_UNBIASED));
        const auto& tokens = a.tokens[static_cast<size_t>(row)];
        EXPECT_EQ(tokens.size(), size_t{40});
        double d = 0, n = 0;
        for (size_t j = 0; j < tokens.size(); j++) {
          const size_t i = static_cast<size_t>(tokens[j] - kStart);
          const double w = std::exp(s[i] - most + double(a.bias[static_cast<size_t>(row)][j]));
          d += w;
          n += w * std::sin(double(i));
        }
        for (const auto& [at, x] : {std::pair<int, double>{0, d}, {1, n}}) sums[at] += x, squares[at] += x * x;
      }
      const double wants[2] = {denominator, numerator};
      for (int i = 0; i < 2; i++) {
        const double mean = sums[i] / draws, error = std::sqrt((squares[i] / draws - mean * mean) / draws);
        EXPECT(std::fabs(mean - wants[i]) <= 4 * error);
        EXPECT(error < 0.01 * denominator);
        if (i == 0) EXPECT(std::fabs(mean * 1.05 - wants[i]) > 4 * error);  // 5 % of bias would not pass
      }
    }
  }
}
