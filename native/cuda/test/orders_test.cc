// Kernels whose values the conformance suite checks against the oracle, at odd sizes: the same bits in twenty orders of threads. Those that
// other tests here hold to sums in double have their orders there (docs/cuda.md has the list).
#include <cmath>

#include "in_orders.h"
#include "quant.h"

using namespace kvasir_test;

namespace {

void append_to(std::vector<float>& all, const std::vector<float>& more) { all.insert(all.end(), more.begin(), more.end()); }

bool all_finite(const std::vector<float>& values) {
  for (const float x : values) {
    if (!std::isfinite(x)) return false;
  }
  return !values.empty();
}

// A plain weight of [rows, cols]; halves of either kind by their bits.
kvasir_tensor plain_weight(Context& ctx, int32_t dtype, int rows, int cols, Random random) {
  const kvasir_tensor w = ctx.make(dtype, {rows, cols}, KVASIR_MODEL);
  const std::vector<float> values = random.normals(static_cast<size_t>(rows) * cols);
  if (dtype == KVASIR_F32) {
    ctx.write(w, values);
    return w;
  }
  std::vector<uint16_t> bits;
  for (const float x : values) {
    uint32_t word;
    std::memcpy(&word, &x, 4);
    const _Float16 half = static_cast<_Float16>(x);
    uint16_t out;
    std::memcpy(&out, &half, 2);
    bits.push_back(dtype == KVASIR_BF16 ? static_cast<uint16_t>(word >> 16) : out);
  }
  ctx.write(w, bits);
  return w;
}

}  // namespace

TEST("cuda orders: products with plain weights, gates and sums") {
  const std::vector<float> got = in_all_orders([](Context& ctx) {
    std::vector<float> all;
    for (const int32_t dtype : {KVASIR_F32, KVASIR_F16, KVASIR_BF16}) {
      for (const int n : {1, 3, 21}) {
        Random random(static_cast<uint64_t>(dtype * 50 + n));
        const kvasir_tensor x = ctx.floats({n, 45}, random.normals(static_cast<size_t>(n) * 45));
        const kvasir_tensor gate = plain_weight(ctx, dtype, 37, 45, random), up = plain_weight(ctx, dtype, 37, 45, Random(9));
        const kvasir_tensor out = ctx.make(KVASIR_F32, {n, 37});
        EXPECT_OK(kvasir_matmul_glu(ctx, out, x, gate, up, n % 2 == 0 ? KVASIR_SILU : KVASIR_GELU));
        append_to(all, ctx.read(out, static_cast<size_t>(n) * 37));
      }
    }
    Random random(4);
    const kvasir_tensor x = ctx.floats({3, 333}, random.normals(999)), y = ctx.floats({3, 333}, random.normals(999)), out = ctx.make(KVASIR_F32, {3, 333});
    EXPECT_OK(kvasir_add(ctx, out, x, y));
    append_to(all, ctx.read(out, 999));
    EXPECT_OK(kvasir_add_rms_norm(ctx, out, x, y, ctx.floats({333}, random.normals(333)), 1e-5f));
    append_to(all, ctx.read(out, 999));
    EXPECT_OK(kvasir_glu(ctx, out, x, y, KVASIR_SILU));
    append_to(all, ctx.read(out, 999));
    return all;
  });
  EXPECT(all_finite(got));
}

TEST("cuda orders: rows of tables, rotations, rows of every cache") {
  const std::vector<float> got = in_all_orders([](Context& ctx) {
    std::vector<float> all;
    Random random(5);
    const kvasir_tensor ids = ctx.ints({5}, {0, 6, 2, 2, 5});
    const kvasir_tensor out = ctx.make(KVASIR_F32, {5, 64});
    EXPECT_OK(kvasir_embed(ctx, out, plain_weight(ctx, KVASIR_F16, 7, 64, random), ids, 1.5f));
    append_to(all, ctx.read(out, 320));
    const kvasir::QuantInfo& info = *kvasir::quant_info(KVASIR_Q8_0);
    std::vector<uint8_t> bytes(static_cast<size_t>(7 * 64 / info.elements * info.bytes), 3);
    const kvasir_tensor table = ctx.make(KVASIR_Q8_0, {7, 64}, KVASIR_MODEL);
    ctx.write(table, bytes);
    EXPECT_OK(kvasir_embed(ctx, out, table, ids, 1.0f));
    append_to(all, ctx.read(out, 320));
    const double frequencies[] = {1, 0.3, 0.01};
    const kvasir_tensor angles = ctx.make(KVASIR_F32, {5, 3, 2}), q = ctx.floats({5, 3, 7}, random.normals(105));
    EXPECT_OK(kvasir_rope_table(ctx, angles, ctx.ints({5}, {0, 1, 7, 100, 100000}), frequencies, 6, 1.0f));
    for (const int32_t pairing : {0, 1}) EXPECT_OK(kvasir_rope(ctx, &q, 1, angles, pairing));
    append_to(all, ctx.read(angles, 30));
    append_to(all, ctx.read(q, 105));
    for (const int32_t dtype : {KVASIR_F16, KVASIR_I8}) {
      const kvasir_tensor keys = ctx.make(dtype, {3, 4, 33}), values = ctx.make(dtype, {3, 4, 33});
      const kvasir_tensor key_scales = ctx.floats({3, 4}, std::vector<float>(12, 0)), value_scales = ctx.floats({3, 4}, std::vector<float>(12, 0));
      const bool scaled = dtype == KVASIR_I8;
      const int32_t segment[KVASIR_SEGMENT_FIELDS] = {0, 0, static_cast<int32_t>(keys), static_cast<int32_t>(values),
                                                      scaled ? static_cast<int32_t>(key_scales) : 0, scaled ? static_cast<int32_t>(value_scales) : 0};
      EXPECT_OK(kvasir_append(ctx, segment, 0, ctx.floats({4, 3, 33}, random.normals(396)), ctx.floats({4, 3, 33}, random.normals(396))));
      for (const kvasir_tensor rows : {keys, values}) {
        if (!scaled) append_to(all, ctx.read(rows, 396));
        else for (const int32_t code : ctx.read<int32_t>(rows, 396)) all.push_back(static_cast<float>(code));
      }
      append_to(all, ctx.read(key_scales, 12));
    }
    return all;
  });
  EXPECT(all_finite(got));
}

TEST("cuda orders: work over a whole vocabulary") {
  const std::vector<float> got = in_all_orders([](Context& ctx) {
    Random random(6);
    constexpr int kVocab = 1237;
    const kvasir_tensor logits = ctx.floats({2, kVocab}, random.normals(2 * kVocab, 3)), base = ctx.floats({2, kVocab}, random.normals(2 * kVocab, 3));
    const int32_t ids[] = {0, 7, 1236}, counts[] = {1, 2, 3};
    const float added[] = {1, -2, 0.5f};
    EXPECT_OK(kvasir_add_logits(ctx, logits, 1, ids, added, 3));
    EXPECT_OK(kvasir_penalize(ctx, logits, 0, ids, counts, 3, 1.3f, 0.1f, 0.2f));
    std::vector<float> all = ctx.read(logits, 2 * kVocab);
    const kvasir_tensor out = ctx.make(KVASIR_F32, {2}), top = ctx.make(KVASIR_I32, {2, 9}), of_top = ctx.make(KVASIR_F32, {2, 9});
    EXPECT_OK(kvasir_token_logprobs(ctx, out, logits, ctx.ints({2}, {5, 1000})));
    append_to(all, ctx.read(out, 2));
    EXPECT_OK(kvasir_kl_divergence(ctx, out, base, logits));
    append_to(all, ctx.read(out, 2));
    EXPECT_OK(kvasir_top_logprobs(ctx, top, of_top, logits));
    append_to(all, ctx.read(of_top, 18));
    for (const int32_t id : ctx.read<int32_t>(top, 18)) all.push_back(static_cast<float>(id));
    return all;
  });
  EXPECT(all_finite(got));
}
