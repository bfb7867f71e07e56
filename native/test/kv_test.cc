#include <climits>

#include "attention_twin.h"

using namespace kvasir_test;

TEST("append() rounds to the cache's type, for any head size") {
  for (const std::string& isa : isas()) {
    for (int32_t d : {1, 20, 64, 67}) {
      Context c("threads=2,isa=" + isa);
      Random random(d);
      std::vector<float> k = random.normals(static_cast<size_t>(600) * 2 * d), v = random.normals(k.size(), 1e-3f);
      std::fill(k.begin(), k.begin() + d, 0.0f);  // a row of zeros
      for (int32_t dtype : {KVASIR_F32, KVASIR_F16, KVASIR_I8}) {
        Cache cache(c, dtype, 2, d);
        cache.fill(k, v, 600, {333});
        for (bool keys : {true, false}) {
          const std::vector<float>&from = keys ? k : v, got = cache.stored(keys);
          for (size_t row = 0; row < from.size(); row += d) {
            float top = 0;
            for (int32_t x = 0; x < d; x++) top = std::max(top, std::fabs(from[row + x]));
            for (int32_t x = 0; x < d; x++) {
              const float want = from[row + x];
              const double f16 = std::max(std::fabs(want) * 0x1p-11, 0x1p-25);
              EXPECT_NEAR(got[row + x], want,
                          dtype == KVASIR_F32   ? 0
                          : dtype == KVASIR_F16 ? f16
                                                : top * 0.50001 / 127);
            }
          }
        }
      }
    }
  }
}

TEST("append() converts to f16 as the hardware does, on every instruction set") {
  std::vector<float> edges = {0.0f,         -0.0f,        65504.0f, 65519.9f,   65520.0f,   -1e30f,
                              0x1p-14f,     0x1p-24f,     0x1p-25f, 0x1.8p-25f, 0x1.002p0f, 0x1.006p0f,
                              0x1.ffcp-15f, 0x1.ffep-15f, INFINITY, -INFINITY};
  Random random(1);
  for (int i = 0; i < 4000; i++) edges.push_back(std::ldexp(random.normal(), i % 50 - 30));
  std::vector<float> first;
  for (const std::string& isa : isas()) {
    Context c("threads=1,isa=" + isa);
    Cache cache(c, KVASIR_F16, 1, 8);
    cache.fill(edges, edges, static_cast<int32_t>(edges.size() / 8), {10000});
    const std::vector<float> got = cache.stored(true);
    if (first.empty()) first = got;
    EXPECT(got == first);
  }
  EXPECT_EQ(first[2], 65504.0f);
  EXPECT_EQ(first[3], 65504.0f);
  EXPECT_EQ(first[4], INFINITY);
  EXPECT_EQ(first[8], 0.0f);  // ties to even
  EXPECT_EQ(first[9], 0x1p-24f);
  EXPECT_EQ(first[10], 1.0f);
  EXPECT_EQ(first[11], 0x1.008p0f);
}

TEST("append() and attend_causal() refuse what does not fit, and stay usable") {
  Context c("threads=2"), other("threads=1");
  Cache cache(c, KVASIR_F16, 2, 64);
  cache.add_segment(10);
  const kvasir_tensor k = c.make(KVASIR_F32, {3, 2, 64}), narrow = c.make(KVASIR_F32, {3, 2, 63});
  const kvasir_tensor half = c.make(KVASIR_F16, {3, 2, 64}), four = c.make(KVASIR_F32, {4, 2, 64});
  int32_t* s = cache.last();
  EXPECT_FAILS(kvasir_append(c, s, 8, k, k), KVASIR_ARGUMENT, "3 rows from row 8");
  EXPECT_FAILS(kvasir_append(c, s, -1, k, k), KVASIR_ARGUMENT, "row -1");
  EXPECT_FAILS(kvasir_append(c, s, INT_MAX, k, k), KVASIR_ARGUMENT, "capacity is 10");
  EXPECT_FAILS(kvasir_append(c, s, 0, narrow, k), KVASIR_ARGUMENT, "k to append");
  EXPECT_FAILS(kvasir_append(c, s, 0, k, half), KVASIR_ARGUMENT, "v to append");
  EXPECT_FAILS(kvasir_append(c, s, 0, k, four), KVASIR_ARGUMENT, "v to append");
  EXPECT_OK(kvasir_append(c, s, 7, k, k));
  s[1] = 10;

  const kvasir_tensor q = c.make(KVASIR_F32, {2, 4, 64}), out = c.make(KVASIR_F32, {2, 4, 64});
  const auto attend = [&](std::vector<int32_t> table, kvasir_tensor to, kvasir_tensor from, float scale = 1,
                          int32_t window = 0) {
    return kvasir_attend_causal(c, to, from, table.data(), static_cast<int32_t>(table.size() / 6), scale, 0, window);
  };
  const std::vector<int32_t> good = cache.table;
  const auto with = [&](size_t field, int32_t value) {
    std::vector<int32_t> table = good;
    table[field] = value;
    return table;
  };
  EXPECT_FAILS(attend(with(1, 11), out, q), KVASIR_ARGUMENT, "capacity is 10");
  EXPECT_FAILS(attend(with(1, -1), out, q), KVASIR_ARGUMENT, "-1 rows");
  EXPECT_FAILS(attend(with(1, 1), out, q), KVASIR_ARGUMENT, "2 queries, the cache holds 1");
  EXPECT_FAILS(attend(with(0, -5), out, q), KVASIR_ARGUMENT, "start -5");
  EXPECT_FAILS(attend(with(0, INT_MAX), out, q), KVASIR_ARGUMENT, "positions");
  EXPECT_FAILS(attend(with(2, 0), out, q), KVASIR_ARGUMENT, "keys of a segment");
  EXPECT_FAILS(attend(with(2, 0x7fffffff), out, q), KVASIR_ARGUMENT, "keys of a segment");
  EXPECT_FAILS(attend(with(3, int32_t(k)), out, q), KVASIR_ARGUMENT, "values of a segment");
  EXPECT_FAILS(attend(with(4, int32_t(k)), out, q), KVASIR_ARGUMENT, "scales");
  EXPECT_FAILS(attend(good, out, c.make(KVASIR_F32, {2, 4, 63})), KVASIR_ARGUMENT, "attention output");
  EXPECT_FAILS(attend(good, c.make(KVASIR_F32, {2, 5, 64}), c.make(KVASIR_F32, {2, 5, 64})), KVASIR_ARGUMENT,
               "KV heads");
  EXPECT_FAILS(attend(good, c.make(KVASIR_F32, {2, 4, 60}), c.make(KVASIR_F32, {2, 4, 60})), KVASIR_ARGUMENT,
               "dimensions");
  EXPECT_FAILS(attend(good, c.make(KVASIR_F32, {2, 256}), c.make(KVASIR_F32, {2, 256})), KVASIR_ARGUMENT,
               "[n, heads, headDim]");
  EXPECT_FAILS(attend(good, out, q, NAN), KVASIR_ARGUMENT, "finite");
  EXPECT_FAILS(attend(good, out, q, 1, -1), KVASIR_ARGUMENT, "window -1");
  EXPECT_FAILS(attend({}, out, q), KVASIR_ARGUMENT, "the cache holds 0");
  EXPECT_FAILS(kvasir_attend_causal(c, out, q, nullptr, 1, 1, 0, 0), KVASIR_ARGUMENT, "without a table");
  EXPECT_FAILS(kvasir_attend_causal(c, out, q, good.data(), -1, 1, 0, 0), KVASIR_ARGUMENT, "count -1");

  cache.add_segment(5);
  std::vector<int32_t> gap = cache.table;
  gap[6] = 11, gap[7] = 2;
  EXPECT_FAILS(attend(gap, out, q), KVASIR_ARGUMENT, "start 11, expected 10");
  Cache wide(c, KVASIR_F16, 2, 32), eight(c, KVASIR_I8, 2, 64);
  wide.add_segment(5), eight.add_segment(5);
  std::vector<int32_t> mixed = good;
  mixed.insert(mixed.end(), {10, 2, wide.table[2], wide.table[3], 0, 0});
  EXPECT_FAILS(attend(mixed, out, q), KVASIR_ARGUMENT, "shape");
  std::copy(eight.table.begin() + 2, eight.table.end(), mixed.begin() + 8);
  EXPECT_FAILS(attend(mixed, out, q), KVASIR_ARGUMENT, "type i8");
  EXPECT_FAILS(attend({0, 2, eight.table[2], eight.table[3], 0, 0}, out, q), KVASIR_ARGUMENT, "key scales");
  EXPECT_FAILS(attend({0, 2, eight.table[2], eight.table[3], eight.table[4], int32_t(k)}, out, q), KVASIR_ARGUMENT,
               "scales");
  EXPECT_FAILS(kvasir_attend_causal(other, out, q, good.data(), 1, 1, 0, 0), KVASIR_ARGUMENT, "attention output");

  const kvasir_tensor none = c.make(KVASIR_F32, {0, 4, 64});
  EXPECT_OK(attend(good, none, none));
  EXPECT_OK(attend(good, out, q));
}
