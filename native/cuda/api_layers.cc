// Embedding, norms, sums, gates, rotations, and rows into caches.
#include "kernels.h"

using namespace kvasir;

namespace {

void check_activation(int32_t activation, const char* what) {
  if (activation == KVASIR_SILU || activation == KVASIR_GELU) return;
  fail(KVASIR_ARGUMENT, "Cannot run %s: unknown activation %d", what, activation);
}

bool is_block_type(const PackedWeight& w) { return w.dtype > KVASIR_BF16; }

void multiply(kvasir_context& ctx, const std::vector<Product>& products, const float* x, int32_t n, int32_t k) {
  if (n == 0) return;
  std::vector<Product> blocks;
  for (const Product& p : products) {
    const size_t bytes = static_cast<size_t>(n) * static_cast<size_t>(p.weight->view.rows) * sizeof(float);
    if (bytes == 0) continue;
    if (k == 0) ctx.runtime->fill(p.out, 0, bytes);
    else if (is_block_type(*p.weight)) blocks.push_back(p);
    else launch_matmul_plain(*ctx.runtime, p, x, n, k);
  }
  if (blocks.empty()) return;
  const auto count = static_cast<int32_t>(blocks.size());
  if (n <= kMostDecoded) launch_matvec(*ctx.runtime, *ctx.scratch, blocks.data(), count, x, n, k);
  else launch_matmul_tiles(*ctx.runtime, *ctx.scratch, blocks.data(), count, x, n, k);
}

}  // namespace

extern "C" {

int32_t kvasir_embed(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor table, kvasir_tensor tokens, float scale) {
  return guard([&] {
    const EmbedCall c = check_embed(*ctx->table, out, table, tokens);
    if (c.n == 0 || c.width == 0) return;
    check_embed_tokens(c, ctx->host_ints(*c.tokens));
    launch_embed(*ctx->runtime, c, scale);
  });
}

int32_t kvasir_rms_norm(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor weight, float epsilon) {
  return guard([&] {
    const NormCall c = check_rms_norm(*ctx->table, out, x, weight, epsilon);
    if (c.rows * c.width > 0) launch_norm(*ctx->runtime, c, epsilon);
  });
}

int32_t kvasir_add_rms_norm(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor y,
                            kvasir_tensor weight, float epsilon) {
  return guard([&] {
    const NormCall c = check_add_rms_norm(*ctx->table, out, x, y, weight, epsilon);
    if (c.rows * c.width > 0) launch_norm(*ctx->runtime, c, epsilon);
  });
}

int32_t kvasir_matmul(kvasir_context* ctx, const kvasir_tensor* outs, kvasir_tensor x, const kvasir_tensor* ws,
                      int32_t count) {
  return guard([&] {
    if (count < 0 || (count > 0 && (!outs || !ws))) fail(KVASIR_ARGUMENT, "Cannot run matmul: %d weights", count);
    const MatmulInput in = check_matmul_input(*ctx->table, x);
    std::vector<Product> products;
    for (int32_t i = 0; i < count; i++) {
      const Tensor& w = check_matmul_weight(*ctx->table, ws[i], in, i);
      products.push_back({w.packed.get(), check_matmul_out(*ctx->table, outs[i], in, w, i)});
    }
    multiply(*ctx, products, in.data(), in.n, static_cast<int32_t>(in.k));
  });
}

int32_t kvasir_matmul_glu(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor gate, kvasir_tensor up,
                          int32_t activation) {
  return guard([&] {
    const MatmulInput in = check_matmul_input(*ctx->table, x);
    const Tensor &gates = check_matmul_weight(*ctx->table, gate, in, 0), &ups = check_matmul_weight(*ctx->table, up, in, 1);
    if (gates.shape[0] != ups.shape[0]) {
      fail(KVASIR_ARGUMENT, "Cannot run matmul_glu: gate has %d rows, up has %d", gates.shape[0], ups.shape[0]);
    }
    float* target = check_matmul_out(*ctx->table, out, in, gates, 0);
    check_activation(activation, "matmul_glu");
    const size_t count = static_cast<size_t>(in.n) * static_cast<size_t>(gates.shape[0]);
    if (count == 0) return;
    float* factors = ctx->operand->array<float>(count);
    multiply(*ctx, {{gates.packed.get(), target}, {ups.packed.get(), factors}}, in.data(), in.n, static_cast<int32_t>(in.k));
    launch_glu(*ctx->runtime, {target, target, factors, count}, activation);
  });
}

int32_t kvasir_add(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor y) {
  return guard([&] {
    const AddCall c = check_add(*ctx->table, out, x, y);
    if (c.rows * c.width > 0) launch_add(*ctx->runtime, c);
  });
}

int32_t kvasir_glu(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor gate, kvasir_tensor up, int32_t activation) {
  return guard([&] {
    const GluCall c = check_glu(*ctx->table, out, gate, up);
    check_activation(activation, "glu");
    if (c.count > 0) launch_glu(*ctx->runtime, c, activation);
  });
}

int32_t kvasir_rope_table(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor positions, const double* frequencies,
                          int32_t dims, float magnitude) {
  return guard([&] {
    const RopeTableCall c = check_rope_table(*ctx->table, out, positions, frequencies, dims, magnitude);
    if (c.n * c.pairs > 0) launch_rope_table(*ctx->runtime, c, ctx->runtime->stage(frequencies, c.pairs), magnitude);
  });
}

int32_t kvasir_rope(kvasir_context* ctx, const kvasir_tensor* xs, int32_t count, kvasir_tensor table,
                    int32_t pairing) {
  return guard([&] {
    if (count < 0 || (count > 0 && !xs)) fail(KVASIR_ARGUMENT, "Cannot run rope: %d tensors", count);
    for (int32_t i = 0; i < count; i++) {
      const RopeCall c = check_rope(*ctx->table, xs[i], table, pairing);
      if (c.n * c.heads * c.pairs > 0) launch_rope(*ctx->runtime, c, pairing == KVASIR_NEIGHBOURS);
    }
  });
}

int32_t kvasir_append(kvasir_context* ctx, const int32_t* segment, int32_t row, kvasir_tensor k, kvasir_tensor v) {
  return guard([&] {
    const AppendCall c = check_append(*ctx->table, segment, row, k, v);
    if (c.n > 0 && c.heads > 0 && c.head_dim > 0) launch_append(*ctx->runtime, c);
  });
}

int32_t kvasir_append_each(kvasir_context* ctx, const int32_t* segments, const int32_t* rows, int32_t count, kvasir_tensor k,
                           kvasir_tensor v) {
  return guard([&] {
    for (const AppendCall& c : check_append_each(*ctx->table, segments, rows, count, k, v)) {
      if (c.heads > 0 && c.head_dim > 0) launch_append(*ctx->runtime, c);
    }
  });
}

}  // extern "C"
