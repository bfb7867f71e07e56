// kvasir_matmul of every type and instruction set against a double-precision twin. The tolerance is twice the error of
// a naive run in the same precision: floats, 16-bit x per 32 values, or both sides as 16-bit integers per 128 values.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "isa.h"
#include "matmul.h"
#include "weight_fixture.h"

using namespace kvasir_test;

namespace {

using Doubles = std::vector<double>;

// x [n, k] · w [m, k]ᵀ
Doubles product(const Doubles& x, const Doubles& w, int n, int m, int k) {
  Doubles out(static_cast<size_t>(n) * static_cast<size_t>(m));
  for (int i = 0; i < n; ++i) {
    for (int r = 0; r < m; ++r) {
      double sum = 0;
      for (int j = 0; j < k; ++j) sum += x[static_cast<size_t>(i * k + j)] * w[static_cast<size_t>(r * k + j)];
      out[static_cast<size_t>(i * m + r)] = sum;
    }
  }
  return out;
}

// Rows of k rounded to integers of `limit` per `group` values (by peak), or by norm as matmul.h tells.
Doubles rounded(Doubles values, int k, int group, double limit, bool by_norm) {
  for (size_t row = 0; row < values.size(); row += static_cast<size_t>(k)) {
    for (int g = 0; g < k; g += group) {
      double *begin = &values[row + static_cast<size_t>(g)], *end = begin + std::min(group, k - g), peak = 0,
             squares = 0;
      for (double* v = begin; v < end; ++v) {
        peak = std::max(peak, std::fabs(*v));
        squares += *v * *v;
      }
      if (peak == 0) continue;
      const double by = by_norm ? std::min(kvasir::kPanelNorm / std::sqrt(squares), limit / peak) : limit / peak;
      for (double* v = begin; v < end; ++v) *v = std::nearbyint(*v * by) / by;
    }
  }
  return values;
}

double error(const Doubles& got, const Doubles& want) {
  double sum = 0;
  for (size_t i = 0; i < want.size(); ++i) sum += (got[i] - want[i]) * (got[i] - want[i]);
  return std::sqrt(sum);
}

double norm(const Doubles& v) { return error(v, Doubles(v.size(), 0.0)); }

Doubles first_rows(const Doubles& all, int n, int m, int all_m) {
  Doubles out;
  for (int i = 0; i < n; ++i) {
    const auto row = all.begin() + static_cast<ptrdiff_t>(i) * all_m;
    out.insert(out.end(), row, row + m);
  }
  return out;
}

Doubles run(Context& context, const std::vector<float>& x, kvasir_tensor weight, int n, int m, int k) {
  const kvasir_tensor out = context.make_misaligned(KVASIR_F32, {n, m});
  const kvasir_tensor in = context.floats({n, k}, {x.begin(), x.begin() + static_cast<ptrdiff_t>(n) * k}, true);
  EXPECT_OK(kvasir_matmul(context, &out, in, &weight, 1));
  const auto got = context.read(out, static_cast<size_t>(n) * static_cast<size_t>(m));
  return {got.begin(), got.end()};
}

constexpr int kMostN = 97, kMostM = 129;

void check_type(int32_t dtype, int k, const std::string& isa, const std::string& precision) {
  Context context("threads=2,isa=" + isa + ",precision=" + precision);
  Random random(static_cast<uint64_t>(dtype * 1000 + k));
  const bool plain = kvasir::quant_info(dtype)->elements == 1;
  const kvasir::MatmulKernels& kernels = *kvasir::find_isa(isa.c_str()).matmul;
  const auto bytes = random_weight(random, dtype, kMostM, k, Scales::kUsual);
  const auto x = random.normals(static_cast<size_t>(kMostN * k));
  const Doubles w = weight_values(dtype, bytes, kMostM, k), dx(x.begin(), x.end());
  const Doubles want = product(dx, w, kMostN, kMostM, k);
  Doubles naive_stream = want, naive_panel = want;
  if (!plain && kernels.quantizes) {
    const bool bytes = precision == "fast" && kvasir::takes_bytes(dtype);
    naive_stream = product(rounded(dx, k, 32, bytes ? 127 : 32639, false), w, kMostN, kMostM, k);
    naive_panel = product(rounded(dx, k, 128, 32767, true), rounded(w, k, 128, 32767, true), kMostN, kMostM, k);
  }
  // Float sums of k terms: what a plain loop loses on average.
  const double floats = 6e-8 * std::sqrt(static_cast<double>(k)) / 2;
  for (const int m : {1, 3, 33, 129}) {
    const kvasir_tensor weight = make_weight(context, dtype, m, k, bytes);
    for (const int n : {0, 1, 2, 3, 5, 8, 13, 17, 97}) {
      const Doubles exact = first_rows(want, n, m, kMostM);
      const Doubles naive = first_rows(n <= kernels.stream_rows ? naive_stream : naive_panel, n, m, kMostM);
      const double got = error(run(context, x, weight, n, m, k), exact);
      // Few outputs scatter about their expected error: the whole product's is the least that is allowed, and up to
      // three times it for a single one.
      const double typical = error(n <= kernels.stream_rows ? naive_stream : naive_panel, want) / norm(want);
      const double scale = norm(want) * std::sqrt(static_cast<double>(exact.size()) / static_cast<double>(want.size()));
      const double scatter = 1 + 2 / std::sqrt(static_cast<double>(std::max<size_t>(1, exact.size())));
      const double allowed = 2 * scatter * (std::max(error(naive, exact), typical * scale) + floats * scale);
      if (!(got <= allowed)) {
        char text[200];
        std::snprintf(text, sizeof text, "%s %s %s n %d m %d k %d: error %.3g, allowed %.3g", isa.c_str(),
                      precision.c_str(), kvasir::quant_info(dtype)->name, n, m, k, got, allowed);
        fail(__FILE__, __LINE__, text);
      }
    }
  }
}

}  // namespace

TEST("kvasir_matmul() errs at most twice as much as a naive run of the same precision") {
  for (const std::string& isa : isas()) {
    for (const int32_t dtype : weight_types()) {
      const int block = kvasir::quant_info(dtype)->elements;
      const std::vector<int> widths = block == 1    ? std::vector<int>{1, 33, 129}
                                      : block == 32 ? std::vector<int>{32, 64, 288}
                                                    : std::vector<int>{256, 512};
      for (const int k : widths) check_type(dtype, k, isa, "exact");
    }
  }
}

TEST("kvasir_matmul() with precision=fast errs as eight-bit x does, where codes have fewer bits") {
  for (const std::string& isa : isas()) {
    for (const int32_t dtype : weight_types()) check_type(dtype, 256, isa, "fast");
  }
}

TEST("kvasir_matmul() of several weights of different types equals one call each, for any number of threads") {
  Random random(5);
  const int k = 256, n[] = {1, 2, 50};
  const auto x = random.normals(static_cast<size_t>(50 * k));
  struct Part {
    int32_t dtype;
    int m;
  };
  const Part parts[] = {{KVASIR_Q5_0, 40}, {KVASIR_Q6_K, 17}, {KVASIR_F16, 70}, {KVASIR_Q8_0, 0}, {KVASIR_Q4_1, 600}, {KVASIR_Q8_0, 33}};
  std::vector<std::vector<uint8_t>> bytes;
  for (const Part& p : parts) bytes.push_back(random_weight(random, p.dtype, p.m, k, Scales::kUsual));
  constexpr size_t kParts = std::size(parts);
  std::vector<std::string> specs;  // fast: weights that take bytes of x beside some that take words
  for (const std::string& isa : isas()) specs.push_back("isa=" + isa), specs.push_back("precision=fast,isa=" + isa);
  for (const std::string& spec : specs) {
    for (const int rows : n) {
      std::vector<std::vector<float>> results[2];
      for (const int threads : {1, 3}) {
        Context context(spec + ",threads=" + std::to_string(threads));
        std::vector<kvasir_tensor> weights, outs;
        for (size_t i = 0; i < kParts; ++i) {
          weights.push_back(make_weight(context, parts[i].dtype, parts[i].m, k, bytes[i]));
          outs.push_back(context.make(KVASIR_F32, {rows, parts[i].m}));
        }
        const kvasir_tensor in = context.floats({rows, k}, {x.begin(), x.begin() + rows * k});
        EXPECT_OK(kvasir_matmul(context, outs.data(), in, weights.data(), static_cast<int32_t>(kParts)));
        for (size_t i = 0; i < kParts; ++i) {
          const size_t count = static_cast<size_t>(rows * parts[i].m);
          results[threads / 3].push_back(context.read(outs[i], count));
          const Doubles alone = run(context, x, weights[i], rows, parts[i].m, k);
          for (size_t j = 0; j < count; ++j) EXPECT_EQ(results[threads / 3][i][j], static_cast<float>(alone[j]));
        }
      }
      EXPECT(results[0] == results[1]);
    }
  }
}

TEST("kvasir_matmul() of rows that decode gives each what it gets alone, to the bit") {
  Random random(8);
  const int k = 512, m = 49;
  const auto x = random.normals(static_cast<size_t>(16 * k));
  for (const std::string& isa : isas()) {
    const int most = kvasir::find_isa(isa.c_str()).matmul->stream_rows;
    for (const std::string precision : {"exact", "fast"}) {
      Context context("threads=2,isa=" + isa + ",precision=" + precision);
      for (const int32_t dtype : weight_types()) {
        const kvasir_tensor weight = make_weight(context, dtype, m, k, random_weight(random, dtype, m, k, Scales::kUsual));
        Doubles alone;
        for (int i = 0; i < 16; ++i) {
          const Doubles one = run(context, {x.begin() + i * k, x.begin() + (i + 1) * k}, weight, 1, m, k);
          alone.insert(alone.end(), one.begin(), one.end());
        }
        for (const int n : {2, 3, 4, 5, 7, 8, 9, 11, 12, 15, 16}) {
          if (n <= most) EXPECT(run(context, x, weight, n, m, k) == first_rows(alone, n, m, m));
        }
      }
    }
  }
}

TEST("kvasir_matmul() confines NaN and infinity to their rows, and nothing crashes on any bytes") {
  Random random(6);
  for (const std::string& isa : isas()) {
    Context context("threads=2,isa=" + isa);
    for (const int32_t dtype : weight_types()) {
      const int k = kvasir::quant_info(dtype)->elements == 1 ? 70 : 256, m = 40;
      const auto bytes = random_weight(random, dtype, m, k, Scales::kAny);
      const Doubles w = weight_values(dtype, bytes, m, k);
      const kvasir_tensor weight = make_weight(context, dtype, m, k, bytes);
      for (const int n : {2, 20}) {
        auto x = random.normals(static_cast<size_t>(n * k));
        x[3] = std::nanf("");                        // row 0
        x[static_cast<size_t>(k + 5)] = -HUGE_VALF;  // row 1
        const Doubles got = run(context, x, weight, n, m, k);
        for (int i = 0; i < n; ++i) {
          for (int r = 0; r < m; ++r) {
            const double value = got[static_cast<size_t>(i * m + r)];
            double magnitude = 0;
            for (int j = 0; j < k; ++j) magnitude = std::max(magnitude, std::fabs(w[static_cast<size_t>(r * k + j)]));
            bool finite = i >= 2;
            for (int j = 0; j < k; ++j) finite = finite && std::isfinite(w[static_cast<size_t>(r * k + j)]);
            if (finite && magnitude < 1e30) EXPECT(std::isfinite(value));
            // Infinity times zero is not asked for: an infinite weight may meet a zero of x.
            if (i == 0) EXPECT(std::isnan(value));
            if (i == 1) EXPECT(!std::isfinite(value));
          }
        }
      }
    }
  }
}

TEST("kvasir_matmul() takes zero rows, zero columns and tiny or huge x") {
  Random random(8);
  for (const std::string& isa : isas()) {
    Context context("threads=2,isa=" + isa);
    const auto bytes = random_weight(random, KVASIR_Q4_0, 20, 64, Scales::kUsual);
    const Doubles w = weight_values(KVASIR_Q4_0, bytes, 20, 64);
    const kvasir_tensor weight = make_weight(context, KVASIR_Q4_0, 20, 64, bytes);
    for (const int n : {1, 33}) {
      for (const float size : {0.0f, 1e-12f, 1e12f}) {
        const auto x = random.normals(static_cast<size_t>(n * 64), size);
        const Doubles want = product({x.begin(), x.end()}, w, n, 20, 64), got = run(context, x, weight, n, 20, 64);
        EXPECT(error(got, want) <= 3e-4 * norm(want));
      }
      const kvasir_tensor none = context.make(KVASIR_F32, {20, 0}, KVASIR_MODEL);
      for (const double v : run(context, {}, none, n, 20, 0)) EXPECT_EQ(v, 0.0);
    }
  }
}

TEST("kvasir_matmul_glu() is kvasir_matmul() and kvasir_glu() to the bit, for any number of threads") {
  Random random(9);
  const int k = 256;
  struct Pair {
    int32_t gate, up;
  };
  const Pair pairs[] = {{KVASIR_Q4_1, KVASIR_Q4_1}, {KVASIR_Q4_K, KVASIR_Q6_K}, {KVASIR_F16, KVASIR_Q8_0}};
  const auto x = random.normals(static_cast<size_t>(kMostN * k));
  for (const Pair& types : pairs) {
    for (const int m : {0, 1, 33, 700}) {
      const auto gates = random_weight(random, types.gate, m, k, Scales::kUsual);
      const auto ups = random_weight(random, types.up, m, k, Scales::kUsual);
      for (const std::string& isa : isas()) {
        for (const int n : {0, 1, 2, 17, kMostN}) {
          const size_t count = static_cast<size_t>(n) * static_cast<size_t>(m);
          std::vector<float> first;
          for (const int threads : {1, 3}) {
            Context c("isa=" + isa + ",threads=" + std::to_string(threads));
            const kvasir_tensor ws[] = {make_weight(c, types.gate, m, k, gates), make_weight(c, types.up, m, k, ups)};
            const kvasir_tensor in = c.floats({n, k}, {x.begin(), x.begin() + static_cast<ptrdiff_t>(n) * k}, true);
            const kvasir_tensor products[] = {c.make(KVASIR_F32, {n, m}), c.make(KVASIR_F32, {n, m})};
            const kvasir_tensor out = c.make_misaligned(KVASIR_F32, {n, m});
            EXPECT_OK(kvasir_matmul(c, products, in, ws, 2));
            const auto before = c.read(products[1], count);
            for (const int32_t activation : {KVASIR_SILU, KVASIR_GELU}) {
              const kvasir_tensor want = c.make(KVASIR_F32, {n, m});
              EXPECT_OK(kvasir_glu(c, want, products[0], products[1], activation));
              EXPECT_OK(kvasir_matmul_glu(c, out, in, ws[0], ws[1], activation));
              EXPECT(c.read(out, count) == c.read(want, count));
            }
            EXPECT(c.read(products[1], count) == before);
            if (threads == 1) first = c.read(out, count);
            EXPECT(c.read(out, count) == first);
          }
        }
      }
    }
  }
}

TEST("kvasir_matmul_glu() refuses what does not fit, and writes nothing then") {
  Context c("threads=1");
  const kvasir_tensor gate = c.make(KVASIR_Q8_0, {4, 64}, KVASIR_MODEL);
  const kvasir_tensor up = c.make(KVASIR_F16, {4, 64}, KVASIR_MODEL);
  const kvasir_tensor fewer = c.make(KVASIR_F16, {3, 64}, KVASIR_MODEL);
  const kvasir_tensor thin = c.make(KVASIR_F16, {4, 32}, KVASIR_MODEL);
  const kvasir_tensor x = c.make(KVASIR_F32, {2, 64}), plain = c.make(KVASIR_F32, {4, 64});
  const kvasir_tensor out = c.floats({2, 4}, std::vector<float>(8, 7.0f)), wide = c.make(KVASIR_F32, {2, 5});
  EXPECT_FAILS(kvasir_matmul_glu(c, out, x, gate, up, 2), KVASIR_ARGUMENT, "Cannot run matmul_glu: unknown activation 2");
  EXPECT_FAILS(kvasir_matmul_glu(c, out, x, gate, fewer, KVASIR_SILU), KVASIR_ARGUMENT,
               "Cannot run matmul_glu: gate has 4 rows, up has 3");
  EXPECT_FAILS(kvasir_matmul_glu(c, out, x, gate, thin, KVASIR_SILU), KVASIR_ARGUMENT,
               "weight 1 has 32 columns, x has 64");
  EXPECT_FAILS(kvasir_matmul_glu(c, out, x, plain, up, KVASIR_SILU), KVASIR_ARGUMENT, "weight 0 is no model tensor");
  EXPECT_FAILS(kvasir_matmul_glu(c, wide, x, gate, up, KVASIR_SILU), KVASIR_ARGUMENT,
               "matmul out: shape [2, 5], expected [2, 4]");
  EXPECT_FAILS(kvasir_matmul_glu(c, out, x, 77, up, KVASIR_SILU), KVASIR_ARGUMENT,
               "matmul weight: tensor id 77 is stale");
  const kvasir_tensor square = c.make(KVASIR_F32, {64, 64}, KVASIR_MODEL);
  EXPECT_FAILS(kvasir_matmul_glu(c, x, x, square, square, KVASIR_SILU), KVASIR_ARGUMENT, "overlaps x");
  EXPECT(c.read(out, 8) == std::vector<float>(8, 7.0f));
}

TEST("kvasir_matmul() refuses what does not fit") {
  Context context("threads=1");
  const kvasir_tensor weight = context.make(KVASIR_Q8_0, {4, 64}, KVASIR_MODEL),
                      plain = context.make(KVASIR_F32, {4, 64});
  const kvasir_tensor x = context.make(KVASIR_F32, {2, 64}), out = context.make(KVASIR_F32, {2, 4});
  const kvasir_tensor narrow = context.make(KVASIR_F32, {2, 32}), wide = context.make(KVASIR_F32, {2, 5});
  EXPECT_OK(kvasir_matmul(context, &out, x, &weight, 1));
  EXPECT_OK(kvasir_matmul(context, nullptr, x, nullptr, 0));
  EXPECT_FAILS(kvasir_matmul(context, &out, narrow, &weight, 1), KVASIR_ARGUMENT, "64 columns");
  EXPECT_FAILS(kvasir_matmul(context, &wide, x, &weight, 1), KVASIR_ARGUMENT, "matmul out");
  const kvasir_tensor heads = context.make(KVASIR_F32, {2, 2, 2}), split = context.make(KVASIR_F32, {2, 4, 16});
  EXPECT_OK(kvasir_matmul(context, &heads, split, &weight, 1));
  const kvasir_tensor odd = context.make(KVASIR_F32, {2, 2, 3}), row = context.make(KVASIR_F32, {64});
  EXPECT_FAILS(kvasir_matmul(context, &odd, x, &weight, 1), KVASIR_ARGUMENT,
               "matmul out: shape [2, 2, 3], expected [2, 4]");
  EXPECT_FAILS(kvasir_matmul(context, &out, odd, &weight, 1), KVASIR_ARGUMENT, "64 columns, x has 6");
  EXPECT_FAILS(kvasir_matmul(context, &out, row, &weight, 1), KVASIR_ARGUMENT, "rank 1, expected 2 or 3");
  EXPECT_FAILS(kvasir_matmul(context, &out, x, &plain, 1), KVASIR_ARGUMENT, "lifetime");
  EXPECT_FAILS(kvasir_matmul(context, &out, x, &weight, -1), KVASIR_ARGUMENT, "-1");
  EXPECT_FAILS(kvasir_matmul(context, nullptr, x, &weight, 1), KVASIR_ARGUMENT, "matmul");
  EXPECT_FAILS(kvasir_matmul(context, &out, weight, &weight, 1), KVASIR_ARGUMENT, "matmul x");
}
