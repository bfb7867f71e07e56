// Kernels beside attention, at odd sizes: against sums in double, and the same bits in twenty orders of threads.
#include <array>
#include <cmath>

#include "in_orders.h"
#include "quant.h"

using namespace kvasir_test;

namespace {

// Rows of random blocks: any bytes are codes, and scales are small f16.
std::vector<uint8_t> random_rows(Random& random, int32_t dtype, int rows, int cols) {
  const kvasir::QuantInfo& info = *kvasir::quant_info(dtype);
  const size_t blocks = static_cast<size_t>(rows) * static_cast<size_t>(cols / info.elements);
  std::vector<uint8_t> bytes(blocks * static_cast<size_t>(info.bytes));
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.bits());
  for (size_t b = 0; b < blocks; b++) {
    uint8_t* block = bytes.data() + b * static_cast<size_t>(info.bytes);
    const size_t d = dtype == KVASIR_Q3_K ? 108 : dtype == KVASIR_Q6_K ? 208 : 0;
    block[d + 1] = 0x20;  // some thousandths
    if (info.has_min) block[d + 3] = 0x1c;
  }
  return bytes;
}

}  // namespace

TEST("cuda layers: products of every quantized type, few tokens and many") {
  for (int32_t dtype = KVASIR_Q4_0; dtype <= KVASIR_IQ4_NL; dtype++) {
    const int block = kvasir::quant_info(dtype)->elements;
    for (const auto& [n, m, k] : {std::array<int, 3>{1, 37, block * 3}, {3, 5, block}, {21, 131, block * 2}}) {
      Random random(static_cast<uint64_t>(dtype * 100 + n));
      const std::vector<uint8_t> rows = random_rows(random, dtype, m, k);
      const std::vector<float> x = random.normals(static_cast<size_t>(n) * k);
      const auto run = [&, n = n, m = m, k = k](Context& ctx) {
        const kvasir_tensor w = ctx.make(dtype, {m, k}, KVASIR_MODEL), out = ctx.make(KVASIR_F32, {n, m});
        ctx.write(w, rows);
        EXPECT_OK(kvasir_matmul(ctx, &out, ctx.floats({n, k}, x), &w, 1));
        return ctx.read(out, static_cast<size_t>(n) * m);
      };
      // One type in all orders, the others in one: the code around the type is the same.
      Context one(in_order(5));
      const std::vector<float> got = dtype == KVASIR_Q4_K ? in_all_orders(run) : run(one);
      std::vector<float> row(static_cast<size_t>(k));
      for (int r = 0; r < m; r++) {
        kvasir::dequantize_row(dtype, rows.data() + rows.size() / m * r, row.data(), k);
        for (int t = 0; t < n; t++) {
          double want = 0, size = 0;
          for (int i = 0; i < k; i++) {
            const double product = static_cast<double>(row[i]) * x[static_cast<size_t>(t) * k + i];
            want += product, size += std::fabs(product);
          }
          EXPECT_NEAR(got[static_cast<size_t>(t) * m + r], want, size * 0x1p-10);
        }
      }
    }
  }
}

TEST("cuda layers: norms") {
  for (int width : {1, 33, 576, 9001}) {
    Random random(static_cast<uint64_t>(width));
    const std::vector<float> x = random.normals(2 * static_cast<size_t>(width)), w = random.normals(static_cast<size_t>(width));
    const std::vector<float> got = in_all_orders([&](Context& ctx) {
      const kvasir_tensor out = ctx.make(KVASIR_F32, {2, width});
      EXPECT_OK(kvasir_rms_norm(ctx, out, ctx.floats({2, width}, x), ctx.floats({width}, w), 1e-5f));
      return ctx.read(out, 2 * static_cast<size_t>(width));
    });
    for (int r = 0; r < 2; r++) {
      double squares = 0;
      for (int i = 0; i < width; i++) squares += static_cast<double>(x[r * width + i]) * x[r * width + i];
      const double factor = 1 / std::sqrt(squares / width + 1e-5);
      for (int i = 0; i < width; i++) EXPECT_NEAR(got[r * width + i], x[r * width + i] * factor * w[i], 1e-5);
    }
  }
}

TEST("cuda layers: rows go where they belong in a cache") {
  Random random(3);
  const std::vector<float> k = random.normals(2 * 3 * 5), v = random.normals(2 * 3 * 5);
  const std::vector<float> got = in_all_orders([&](Context& ctx) {
    const kvasir_tensor keys = ctx.floats({3, 4, 5}, std::vector<float>(60, -1.0f)), values = ctx.floats({3, 4, 5}, std::vector<float>(60, -1.0f));
    const int32_t segment[KVASIR_SEGMENT_FIELDS] = {0, 0, static_cast<int32_t>(keys), static_cast<int32_t>(values), 0, 0};
    EXPECT_OK(kvasir_append(ctx, segment, 1, ctx.floats({2, 3, 5}, k), ctx.floats({2, 3, 5}, v)));
    std::vector<float> both = ctx.read(keys, 60);
    for (float x : ctx.read(values, 60)) both.push_back(x);
    return both;
  });
  for (int head = 0; head < 3; head++) {
    for (int row = 0; row < 4; row++) {
      for (int i = 0; i < 5; i++) {
        const bool written = row == 1 || row == 2;
        const size_t from = static_cast<size_t>((row - 1) * 15 + head * 5 + i), at = static_cast<size_t>(head * 20 + row * 5 + i);
        EXPECT_EQ(got[at], written ? k[from] : -1.0f);
        EXPECT_EQ(got[60 + at], written ? v[from] : -1.0f);
      }
    }
  }
}

TEST("cuda layers: of equal logits the lowest id is drawn, by every rule in its turn") {
  const std::vector<float> got = in_all_orders([&](Context& ctx) {
    std::vector<float> logits(4 * 300, 0.0f);
    logits[7] = logits[250] = 3;
    const double params[4 * KVASIR_SAMPLE_FIELDS] = {0, 0, 1, 1, 0, 0,      1, 0, 1, 1, 0, 0.5,    // the best; the middle of all
                                                     1, 10, 1, 1, 0, 0.95,  1, 0, 1, 0.1, 0, 0.99};  // of the first 10; of the first 30
    const kvasir_tensor out = ctx.make(KVASIR_I32, {4});
    EXPECT_OK(kvasir_sample(ctx, out, ctx.floats({4, 300}, logits), params));
    std::vector<float> ids;
    for (int32_t id : ctx.read<int32_t>(out, 4)) ids.push_back(static_cast<float>(id));
    return ids;
  });
  EXPECT(got == std::vector<float>({7, 150, 9, 29}));
}
