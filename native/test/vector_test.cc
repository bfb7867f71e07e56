// Norms, sums, gates and rotations against double-precision twins: every instruction set, odd sizes, misaligned and
// empty inputs, in place.
#include <algorithm>
#include <climits>
#include <cmath>

#include "fixture.h"

using namespace kvasir_test;

namespace {

const std::vector<int32_t> kWidths = {0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 97, 129, 576, 1000};

// Runs body(context) for every instruction set and thread count.
template <class F>
void everywhere(F body) {
  for (const std::string& isa : isas()) {
    for (const char* threads : {"1", "3"}) {
      Context c("isa=" + isa + ",threads=" + threads);
      body(c);
    }
  }
}

// |got - want| <= relative * |want| + absolute, for every element; reports the first that is not.
void expect_close(const std::vector<float>& got, const std::vector<double>& want, double relative, double absolute) {
  EXPECT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); i++) {
    const double allowed = relative * std::fabs(want[i]) + absolute;
    if (std::fabs(static_cast<double>(got[i]) - want[i]) <= allowed) continue;
    EXPECT_NEAR(static_cast<double>(got[i]), want[i], allowed);
    return;
  }
}

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
double silu(double x) { return x / (1 + std::exp(-x)); }

}  // namespace

TEST("rms_norm() equals its double twin, in place too") {
  everywhere([](Context& c) {
    Random random(1);
    for (int32_t n : {0, 1, 3, 40}) {
      for (int32_t width : kWidths) {
        const size_t count = static_cast<size_t>(n) * static_cast<size_t>(width);
        const std::vector<float> x = random.normals(count, 3), w = random.normals(static_cast<size_t>(width));
        std::vector<double> want(count);
        for (int32_t r = 0; r < n; r++) {
          const size_t at = static_cast<size_t>(r) * static_cast<size_t>(width);
          double sum = 0;
          for (int32_t i = 0; i < width; i++) sum += static_cast<double>(x[at + i]) * x[at + i];
          for (int32_t i = 0; i < width; i++) {
            want[at + i] = x[at + i] / std::sqrt(sum / width + static_cast<double>(1e-5f)) * w[i];
          }
        }
        for (bool misaligned : {false, true}) {
          const kvasir_tensor in = c.floats({n, width}, x, misaligned), weight = c.floats({width}, w, misaligned);
          const kvasir_tensor out = misaligned ? c.make_misaligned(KVASIR_F32, {n, width}) : in;
          EXPECT_OK(kvasir_rms_norm(c, out, in, weight, 1e-5f));
          expect_close(c.read(out, count), want, 4e-7, 1e-12);
        }
      }
    }
  });
}

TEST("add_rms_norm() is add() and rms_norm() to the bit, into fresh memory and y's") {
  everywhere([](Context& c) {
    Random random(5);
    for (int32_t n : {0, 1, 3, 40, 300}) {
      for (int32_t width : kWidths) {
        const size_t count = static_cast<size_t>(n) * static_cast<size_t>(width);
        const std::vector<float> x = random.normals(count, 3), y = random.normals(count);
        const std::vector<float> w = random.normals(static_cast<size_t>(width));
        for (bool misaligned : {false, true}) {
          const kvasir_tensor weight = c.floats({width}, w, misaligned), more = c.floats({n, width}, y, misaligned);
          const kvasir_tensor sum = c.floats({n, width}, x, misaligned), want = c.make(KVASIR_F32, {n, width});
          EXPECT_OK(kvasir_add(c, sum, sum, more));
          EXPECT_OK(kvasir_rms_norm(c, want, sum, weight, 1e-5f));
          const kvasir_tensor in = c.floats({n, width}, x, misaligned);
          const kvasir_tensor out = misaligned ? c.make_misaligned(KVASIR_F32, {n, width}) : more;
          EXPECT_OK(kvasir_add_rms_norm(c, out, in, more, weight, 1e-5f));
          EXPECT(c.read(in, count) == c.read(sum, count));
          EXPECT(c.read(out, count) == c.read(want, count));
        }
      }
    }
  });
}

TEST("add() adds rows and single rows, in place too") {
  everywhere([](Context& c) {
    Random random(2);
    for (int32_t width : kWidths) {
      const int32_t n = 5;
      const size_t count = static_cast<size_t>(n * width);
      const std::vector<float> x = random.normals(count), y = random.normals(count);
      std::vector<double> same(count), row(count);
      for (size_t i = 0; i < count; i++) {
        same[i] = static_cast<double>(x[i] + y[i]);
        row[i] = static_cast<double>(x[i] + y[i % static_cast<size_t>(width)]);
      }
      for (bool misaligned : {false, true}) {
        kvasir_tensor in = c.floats({n, width}, x, misaligned);
        EXPECT_OK(kvasir_add(c, in, in, c.floats({n, width}, y, misaligned)));
        expect_close(c.read(in, count), same, 0, 0);
        in = c.floats({n, width}, x, misaligned);
        const std::vector<float> first(y.begin(), y.begin() + width);
        EXPECT_OK(kvasir_add(c, in, in, c.floats({width}, first, misaligned)));
        expect_close(c.read(in, count), row, 0, 0);
      }
    }
    const std::vector<float> big = random.normals(200003);  // enough for several workers
    std::vector<double> twice(big.size());
    for (size_t i = 0; i < big.size(); i++) twice[i] = 2.0 * big[i];
    const kvasir_tensor in = c.floats({200003}, big);
    EXPECT_OK(kvasir_add(c, in, in, in));
    expect_close(c.read(in, big.size()), twice, 0, 0);
  });
}

TEST("glu() equals its double twin within 3e-7, for extreme gates too") {
  everywhere([](Context& c) {
    Random random(3);
    for (int32_t activation : {KVASIR_SILU, KVASIR_GELU}) {
      for (int32_t width : {0, 1, 3, 15, 16, 17, 97, 129, 20001}) {
        const size_t count = static_cast<size_t>(width);
        const std::vector<float> gate = random.normals(count, 4), up = random.normals(count);
        std::vector<double> want(count);
        for (size_t i = 0; i < count; i++) {
          want[i] = (activation == KVASIR_SILU ? silu(gate[i]) : gelu(gate[i])) * static_cast<double>(up[i]);
        }
        for (bool misaligned : {false, true}) {
          const kvasir_tensor g = c.floats({1, width}, gate, misaligned), u = c.floats({1, width}, up, misaligned);
          EXPECT_OK(kvasir_glu(c, u, g, u, activation));  // in the place of `up`
          // The exponent of a gelu carries the float error of its cubic: 1e-7 of an argument of up to 87.
          expect_close(c.read(u, count), want, activation == KVASIR_SILU ? 1e-6 : 1e-5, 1e-9);
        }
      }
      const std::vector<float> gate = {INFINITY, -INFINITY, 1e30f, -1e30f, 1e38f, -3e38f,
                                       0,        -0.0f,     100,   -100,   NAN,   -87.5f};
      const kvasir_tensor g = c.floats({12}, gate), u = c.floats({12}, std::vector<float>(12, 1.0f));
      EXPECT_OK(kvasir_glu(c, g, g, u, activation));
      const std::vector<float> got = c.read(g, 12);
      const double want[12] = {INFINITY, 0, 1e30, 0, 1e38, 0, 0, 0, 100, 0, NAN, 0};
      for (size_t i = 0; i < 12; i++) {
        if (i == 0) EXPECT(std::isinf(got[i]) && got[i] > 0);
        else if (i == 10) EXPECT(std::isnan(got[i]));
        else EXPECT_NEAR(static_cast<double>(got[i]), want[i], std::fabs(want[i]) * 1e-6 + 1e-30);
      }
    }
  });
}

TEST("silu's exponential is within 3e-7 over its whole range") {
  everywhere([](Context& c) {
    std::vector<float> gate;
    for (double x = -80; x < 80; x += 0.0037) gate.push_back(static_cast<float>(x));
    const int32_t n = static_cast<int32_t>(gate.size());
    const kvasir_tensor g = c.floats({n}, gate);
    EXPECT_OK(kvasir_glu(c, g, g, c.floats({n}, std::vector<float>(gate.size(), 1.0f)), KVASIR_SILU));
    const std::vector<float> got = c.read(g, gate.size());
    double worst = 0;
    for (size_t i = 0; i < gate.size(); i++) {
      const double want = silu(static_cast<double>(gate[i]));
      if (want != 0) worst = std::max(worst, std::fabs(static_cast<double>(got[i]) - want) / std::fabs(want));
    }
    EXPECT_NEAR(worst, 0.0, 3e-7);
  });
}

TEST("rope_table() is exact to float at positions of a million") {
  everywhere([](Context& c) {
    const std::vector<int32_t> positions = {0, 1, 7, 8191, 999999, 1048576, -3, INT_MAX};
    for (int32_t dims : {2, 6, 64, 96}) {
      std::vector<double> frequencies;
      for (int32_t p = 0; p < dims / 2; p++) frequencies.push_back(std::pow(10000.0, -2.0 * p / dims));
      const int32_t n = static_cast<int32_t>(positions.size());
      const kvasir_tensor out = c.make(KVASIR_F32, {n, dims / 2, 2}), at = c.ints({n}, positions);
      EXPECT_OK(kvasir_rope_table(c, out, at, frequencies.data(), dims, 1.5f));
      const std::vector<float> got = c.read(out, static_cast<size_t>(n * dims));
      for (size_t i = 0; i < got.size(); i++) {
        const long double angle = static_cast<long double>(positions[i / static_cast<size_t>(dims)]) *
                                  static_cast<long double>(frequencies[i / 2 % static_cast<size_t>(dims / 2)]);
        const long double want = 1.5L * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
        EXPECT_NEAR(static_cast<double>(got[i]), static_cast<double>(want), 5e-7);
      }
    }
    const double frequency = NAN;
    const kvasir_tensor out = c.make(KVASIR_F32, {1, 1, 2}), at = c.ints({1}, {3});
    EXPECT_FAILS(kvasir_rope_table(c, out, at, &frequency, 2, 1), KVASIR_ARGUMENT, "frequency 0 is not finite");
    EXPECT_FAILS(kvasir_rope_table(c, out, at, nullptr, 2, 1), KVASIR_ARGUMENT, "missing");
    EXPECT_FAILS(kvasir_rope_table(c, out, at, &frequency, 3, 1), KVASIR_ARGUMENT, "expected even");
    EXPECT_FAILS(kvasir_rope_table(c, out, at, &frequency, 4, 1), KVASIR_ARGUMENT, "expected [1, 2, 2]");
  });
}

TEST("rope() rotates both pairings, whole and part of a head") {
  everywhere([](Context& c) {
    Random random(4);
    const int32_t sizes[][3] = {{1, 1, 2},  {3, 5, 64},  {2, 3, 97},  {1, 9, 128}, {2, 2, 7},
                                {7, 3, 33}, {1, 2, 600}, {600, 3, 64}, {0, 3, 8},  {2, 0, 8}};
    for (auto& s : sizes) {
      const int32_t n = s[0], heads = s[1], dim = s[2];
      for (int32_t pairs : {dim / 2, dim / 4, 1}) {
        const size_t count = static_cast<size_t>(n) * static_cast<size_t>(heads) * static_cast<size_t>(dim);
        const std::vector<float> x = random.normals(count);
        const std::vector<float> table = random.normals(static_cast<size_t>(n * pairs * 2));
        for (int32_t pairing : {KVASIR_HALVES, KVASIR_NEIGHBOURS}) {
          std::vector<double> want(x.begin(), x.end());
          for (int32_t row = 0; row < n * heads; row++) {
            for (int32_t p = 0; p < pairs; p++) {
              const size_t a = static_cast<size_t>(row * dim + (pairing == KVASIR_HALVES ? p : 2 * p));
              const size_t b = a + static_cast<size_t>(pairing == KVASIR_HALVES ? pairs : 1);
              const double cosine = table[static_cast<size_t>((row / heads * pairs + p) * 2)];
              const double sine = table[static_cast<size_t>((row / heads * pairs + p) * 2 + 1)];
              want[a] = x[a] * cosine - x[b] * sine;
              want[b] = x[b] * cosine + x[a] * sine;
            }
          }
          for (bool misaligned : {false, true}) {
            const kvasir_tensor in = c.floats({n, heads, dim}, x, misaligned);
            const kvasir_tensor twice[] = {in, c.floats({n, heads, dim}, x)};
            EXPECT_OK(kvasir_rope(c, twice, 2, c.floats({n, pairs, 2}, table, misaligned), pairing));
            for (kvasir_tensor t : twice) expect_close(c.read(t, count), want, 1e-6, 1e-6);
          }
        }
      }
    }
  });
}

TEST("layer kernels say which argument is wrong") {
  Context c("threads=1");
  const kvasir_tensor x = c.floats({2, 4}, std::vector<float>(8, 1.0f)), w = c.floats({4}, {1, 1, 1, 1});
  const kvasir_tensor three = c.floats({3}, {1, 1, 1}), cube = c.floats({1, 2, 4}, std::vector<float>(8, 1.0f));
  const kvasir_tensor ints = c.ints({2, 4}, std::vector<int32_t>(8, 1));
  EXPECT_FAILS(kvasir_rms_norm(c, x, x, three, 1e-5f), KVASIR_ARGUMENT,
               "Cannot use rms_norm weight: shape [3], expected [4]");
  EXPECT_FAILS(kvasir_rms_norm(c, w, x, w, 1e-5f), KVASIR_ARGUMENT, "rms_norm out: shape [4], expected [2, 4]");
  EXPECT_FAILS(kvasir_rms_norm(c, x, ints, w, 1e-5f), KVASIR_ARGUMENT, "rms_norm x: type i32, expected f32");
  EXPECT_FAILS(kvasir_rms_norm(c, x, x, 77, 1e-5f), KVASIR_ARGUMENT, "rms_norm weight: tensor id 77 is stale");
  EXPECT_FAILS(kvasir_rms_norm(c, x, x, w, NAN), KVASIR_ARGUMENT, "epsilon");
  EXPECT_FAILS(kvasir_add(c, x, x, three), KVASIR_ARGUMENT, "add y: shape [3], expected [4]");
  EXPECT_FAILS(kvasir_add(c, x, x, cube), KVASIR_ARGUMENT, "add y: shape [1, 2, 4], expected [2, 4]");
  EXPECT_FAILS(kvasir_add(c, three, x, x), KVASIR_ARGUMENT, "add out");
  EXPECT_FAILS(kvasir_glu(c, x, x, w, 0), KVASIR_ARGUMENT, "glu up");
  EXPECT_FAILS(kvasir_glu(c, x, x, x, 2), KVASIR_ARGUMENT, "unknown activation 2");
  const kvasir_tensor y = c.floats({2, 4}, std::vector<float>(8, 1.0f));
  EXPECT_FAILS(kvasir_add_rms_norm(c, x, x, y, w, 1e-5f), KVASIR_ARGUMENT, "Cannot run add_rms_norm: out is x");
  EXPECT_FAILS(kvasir_add_rms_norm(c, w, x, y, w, 1e-5f), KVASIR_ARGUMENT,
               "add_rms_norm out: shape [4], expected [2, 4]");
  EXPECT_FAILS(kvasir_add_rms_norm(c, y, x, w, w, 1e-5f), KVASIR_ARGUMENT,
               "add_rms_norm y: shape [4], expected [2, 4]");
  EXPECT_FAILS(kvasir_add_rms_norm(c, y, x, y, three, 1e-5f), KVASIR_ARGUMENT,
               "add_rms_norm weight: shape [3], expected [4]");
  EXPECT_FAILS(kvasir_add_rms_norm(c, y, ints, y, w, 1e-5f), KVASIR_ARGUMENT,
               "add_rms_norm x: type i32, expected f32");
  EXPECT_FAILS(kvasir_add_rms_norm(c, y, x, y, 77, 1e-5f), KVASIR_ARGUMENT,
               "add_rms_norm weight: tensor id 77 is stale");
  EXPECT_FAILS(kvasir_add_rms_norm(c, y, x, y, w, -1), KVASIR_ARGUMENT, "add_rms_norm: epsilon is -1");
  const kvasir_tensor heads[] = {cube, x};
  const kvasir_tensor angles = c.floats({1, 2, 2}, std::vector<float>(4, 1.0f));
  EXPECT_OK(kvasir_rope(c, nullptr, 0, angles, 0));
  EXPECT_FAILS(kvasir_rope(c, nullptr, 1, angles, 0), KVASIR_ARGUMENT, "Cannot run rope: 1 tensors");
  EXPECT_FAILS(kvasir_rope(c, heads, -1, angles, 0), KVASIR_ARGUMENT, "Cannot run rope: -1 tensors");
  EXPECT_FAILS(kvasir_rope(c, heads, 2, angles, 0), KVASIR_ARGUMENT, "rope x: rank 2, expected 3");
  EXPECT_FAILS(kvasir_rope(c, heads, 1, x, 0), KVASIR_ARGUMENT, "rope table: rank 2, expected 3");
  const kvasir_tensor wide = c.floats({1, 3, 2}, std::vector<float>(6, 1.0f));
  EXPECT_FAILS(kvasir_rope(c, heads, 1, wide, 0), KVASIR_ARGUMENT, "3 pairs in a head of 4");
  EXPECT_FAILS(kvasir_rope(c, heads, 1, angles, 2), KVASIR_ARGUMENT, "unknown pairing 2");
}
