// Packed weights through kvasir_embed, which reads rows back out of the panels: nothing is lost, whatever the order of
// writes.
#include <algorithm>

#include "weight_fixture.h"
#include "weights.h"

using namespace kvasir_test;

namespace {

// All rows by kvasir_embed.
std::vector<float> all_rows(Context& context, kvasir_tensor weight, int rows, int k) {
  std::vector<int32_t> ids;
  for (int r = 0; r < rows; ++r) ids.push_back(r);
  const kvasir_tensor out = context.make(KVASIR_F32, {rows, k});
  EXPECT_OK(kvasir_embed(context, out, weight, context.ints({rows}, ids), 1.0f));
  return context.read(out, static_cast<size_t>(rows) * static_cast<size_t>(k));
}

void expect_rows(int32_t dtype, const std::vector<float>& got, const std::vector<uint8_t>& bytes, int rows, int k) {
  std::vector<float> want(static_cast<size_t>(rows) * static_cast<size_t>(k));
  kvasir::dequantize_row(dtype, bytes.data(), want.data(), static_cast<int64_t>(want.size()));
  size_t wrong = 0;
  for (size_t i = 0; i < want.size(); ++i) wrong += std::memcmp(&got[i], &want[i], 4) != 0;
  if (wrong > 0)
    fail(__FILE__, __LINE__,
         std::string(kvasir::quant_info(dtype)->name) + ": " + std::to_string(wrong) + " values differ");
}

int columns(int32_t dtype) {
  const int block = kvasir::quant_info(dtype)->elements;
  return block == 1 ? 37 : block == 32 ? 96 : 512;  // three blocks: a last half unit
}

}  // namespace

TEST("weights keep every bit of every type") {
  Context context("threads=2");
  Random random(1);
  for (const int32_t dtype : weight_types()) {
    const int rows = 35, k = columns(dtype);
    const auto bytes = random_weight(random, dtype, rows, k, Scales::kFinite);
    expect_rows(dtype, all_rows(context, make_weight(context, dtype, rows, k, bytes), rows, k), bytes, rows, k);
  }
}

TEST("kvasir_tensor_write() of any row ranges in any order, from any address, equals one write") {
  Context context("threads=2");
  Random random(2);
  for (const int32_t dtype : weight_types()) {
    const int rows = 67, k = columns(dtype);
    const size_t stride = kvasir::quant_row_bytes(*kvasir::quant_info(dtype), k);
    const auto first = random_weight(random, dtype, rows, k, Scales::kFinite);
    const auto bytes = random_weight(random, dtype, rows, k, Scales::kFinite);
    const kvasir_tensor weight = make_weight(context, dtype, rows, k, first);  // all of it is overwritten
    std::vector<int> cuts = {0, rows};
    for (int i = 0; i < 9; ++i) cuts.push_back(static_cast<int>(random.bits() % static_cast<uint64_t>(rows)));
    std::sort(cuts.begin(), cuts.end());
    for (size_t i = cuts.size() - 1; i > 0; --i) {
      const int row = cuts[i - 1], count = cuts[i] - row;
      const auto begin = bytes.begin() + static_cast<ptrdiff_t>(stride) * row;
      std::vector<uint8_t> shifted(1, 0);  // one byte off every alignment
      shifted.insert(shifted.end(), begin, begin + static_cast<ptrdiff_t>(stride) * count);
      EXPECT_OK(kvasir_tensor_write(context, weight, shifted.data() + 1,
                                    static_cast<double>(stride * static_cast<size_t>(count)), row));
    }
    expect_rows(dtype, all_rows(context, weight, rows, k), bytes, rows, k);
  }
}

TEST("kvasir_tensor_write() refuses rows that a weight does not have") {
  Context context("threads=1");
  Random random(3);
  const auto bytes = random_weight(random, KVASIR_Q4_1, 9, 64, Scales::kUsual);
  const kvasir_tensor weight = context.make(KVASIR_Q4_1, {8, 64}, KVASIR_MODEL);
  EXPECT_FAILS(kvasir_tensor_write(context, weight, bytes.data(), 9 * 40, 0), KVASIR_ARGUMENT, "8");
  EXPECT_FAILS(kvasir_tensor_write(context, weight, bytes.data(), 40, 8), KVASIR_ARGUMENT, "8");
  EXPECT_FAILS(kvasir_tensor_write(context, weight, bytes.data(), 40, -1), KVASIR_ARGUMENT, "row");
  EXPECT_OK(kvasir_tensor_write(context, weight, bytes.data(), 40, 7));
}

TEST("packed sizes stay within six percent of the file's") {
  for (const int32_t dtype : weight_types()) {
    const kvasir::QuantInfo& info = *kvasir::quant_info(dtype);
    const int k = 1536;
    const kvasir::PanelLayout layout = kvasir::panel_layout(dtype);
    const double file = static_cast<double>(kvasir::quant_row_bytes(info, k)) * kvasir::kPanelRows;
    const int blocks = info.elements == 1 ? k : k / 32;
    const double packed =
        static_cast<double>(k / layout.unit_k) * layout.header_bytes + static_cast<double>(blocks) * layout.block_bytes;
    if (packed > 1.06 * file) fail(__FILE__, __LINE__, std::string(info.name) + " grows");
  }
}

TEST("kvasir_embed() scales rows, repeats them, and takes no token at all") {
  Context context("threads=2");
  Random random(4);
  for (const int32_t dtype : weight_types()) {
    const int rows = 19, k = columns(dtype);
    const auto bytes = random_weight(random, dtype, rows, k, Scales::kUsual);
    const kvasir_tensor weight = make_weight(context, dtype, rows, k, bytes);
    const auto values = weight_values(dtype, bytes, rows, k);
    const std::vector<int32_t> ids = {18, 0, 3, 3, 17};
    const kvasir_tensor out = context.make(KVASIR_F32, {5, k});
    EXPECT_OK(kvasir_embed(context, out, weight, context.ints({5}, ids), 2.0f));
    const auto got = context.read(out, static_cast<size_t>(5 * k));
    for (size_t i = 0; i < 5; ++i) {
      for (size_t j = 0; j < static_cast<size_t>(k); ++j) {
        EXPECT_EQ(got[i * static_cast<size_t>(k) + j],
                  static_cast<float>(2 * values[static_cast<size_t>(ids[i]) * static_cast<size_t>(k) + j]));
      }
    }
    EXPECT_OK(kvasir_embed(context, context.make(KVASIR_F32, {0, k}), weight, context.ints({0}, {}), 1.0f));
  }
}

TEST("kvasir_embed() refuses tokens outside the table") {
  Context context("threads=1");
  const kvasir_tensor weight = context.make(KVASIR_Q8_0, {5, 32}, KVASIR_MODEL);
  const kvasir_tensor out = context.make(KVASIR_F32, {1, 32});
  EXPECT_FAILS(kvasir_embed(context, out, weight, context.ints({1}, {5}), 1.0f), KVASIR_ARGUMENT, "token 5");
  EXPECT_FAILS(kvasir_embed(context, out, weight, context.ints({1}, {-1}), 1.0f), KVASIR_ARGUMENT, "token -1");
  EXPECT_FAILS(kvasir_embed(context, out, weight, context.ints({1}, {INT32_MIN}), 1.0f), KVASIR_ARGUMENT, "token");
  EXPECT_FAILS(kvasir_embed(context, out, weight, context.ints({2}, {0, 0}), 1.0f), KVASIR_ARGUMENT, "embed out");
}
