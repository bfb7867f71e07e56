// kvasir_matmul, kvasir_matmul_glu, kvasir_embed: checks, stream or panel kernels, and the split into tasks.
// Every output element is one task's alone and its sum's order depends on n and the shapes only: results are the same
// for any number of threads.
#include <algorithm>
#include <cstring>
#include <vector>

#include "context.h"
#include "glu.h"
#include "isa.h"
#include "kernel_checks.h"
#include "matmul.h"

using namespace kvasir;

namespace {

struct Product {
  const PackedWeight* w;
  float* out;  // [n, w->rows]
};

struct Span {
  int product;
  int panel, panels;
  int row, rows;
};

bool is_block_type(const PackedWeight& w) { return w.layout.unit_k > 1; }

int div_up(int a, int b) { return a / b + (a % b != 0); }

// Decode: one pass over the weights, about 32 KB a task, at least four tasks a thread where panels suffice; neighbours go to one thread,
// as kernels fetch what lies behind a task.
void stream_products(kvasir_context& ctx, const std::vector<Product>& products, const float* x, int n, int k,
                     bool quantize) {
  const MatmulKernels& kernels = *ctx.isa->matmul;
  StreamInput in = {x, nullptr, n, k, ctx.precision == Precision::kFast};
  if (quantize) {
    const size_t blocks = static_cast<size_t>(k / 32);
    auto* q = static_cast<StreamBlock*>(ctx.shared.get(blocks * static_cast<size_t>(n) * sizeof(StreamBlock)));
    auto one = [&](int i, int) {
      kernels.stream_quantize(q + static_cast<size_t>(i) * blocks, x + static_cast<size_t>(i) * static_cast<size_t>(k),
                              k, in.fast);
    };
    // Under some thousand values waking the others costs more than it saves.
    if (static_cast<int64_t>(n) * k < 8192) {
      for (int i = 0; i < n; ++i) one(i, 0);
    } else {
      ctx.pool->run(n, one);
    }
    in.q = q;
  }
  int total = 0;
  for (const Product& p : products) total += p.w->panels();
  const int fair = std::max(1, total / (4 * ctx.pool->threads()));
  std::vector<Span> spans;
  for (size_t i = 0; i < products.size(); ++i) {
    const PackedWeight& w = *products[i].w;
    const int by_size = static_cast<int>(std::max<size_t>(1, (size_t{32} << 10) / std::max<size_t>(1, w.panel_bytes)));
    const int step = std::min(by_size, fair);
    for (int p = 0; p < w.panels(); p += step) {
      spans.push_back({static_cast<int>(i), p, std::min(step, w.panels() - p), 0, n});
    }
  }
  ctx.pool->run_shares(static_cast<int>(spans.size()), [&](int task, int) {
    const Span& s = spans[static_cast<size_t>(task)];
    const Product& p = products[static_cast<size_t>(s.product)];
    kernels.stream(*p.w, s.panel, s.panels, in, p.out, p.w->rows);
  });
}

// Prefill: 32 rows of w times up to 512 rows of x a task; fewer where threads would idle.
void panel_products(kvasir_context& ctx, const std::vector<Product>& products, const float* x, int n, int k,
                    bool quantize) {
  const MatmulKernels& kernels = *ctx.isa->matmul;
  PanelInput in = {x, nullptr, nullptr, n, k};
  if (quantize) {
    const size_t strips = static_cast<size_t>(div_up(k, kPanelK)), rows = static_cast<size_t>(n);
    const size_t integers = strips * rows * kPanelK * sizeof(int16_t);
    auto* q = static_cast<int16_t*>(ctx.shared.get(integers + strips * rows * sizeof(float)));
    float* scales = reinterpret_cast<float*>(reinterpret_cast<uint8_t*>(q) + integers);
    constexpr int kRows = 16;
    ctx.pool->run(div_up(n, kRows), [&](int task, int) {
      const int row = task * kRows;
      kernels.panel_quantize(q, scales, x, row, std::min(kRows, n - row), n, k);
    });
    in.q = q;
    in.scales = scales;
  }
  int total = 0;
  for (const Product& p : products) total += div_up(p.w->panels(), 2);
  constexpr int kMost = 512, kLeast = 48, kTile = 12;  // rows of a task; whole tiles of the AVX-512 kernel
  const int wanted = div_up(4 * ctx.pool->threads(), std::max(1, total));
  const int blocks = std::max(div_up(n, kMost), std::min(wanted, std::max(1, n / kLeast)));
  const int step = div_up(div_up(n, blocks), kTile) * kTile;
  std::vector<Span> spans;
  // Rows outside, weights inside: one block of x stays in L2 while all weights pass over it.
  for (int row = 0; row < n; row += step) {
    for (size_t i = 0; i < products.size(); ++i) {
      for (int p = 0; p < products[i].w->panels(); p += 2) {
        spans.push_back({static_cast<int>(i), p, 2, row, std::min(step, n - row)});
      }
    }
  }
  std::vector<float*> scratch;
  for (Scratch& s : ctx.workers)
    scratch.push_back(static_cast<float*>(s.get(panel_scratch(std::min(step, n)) * sizeof(float))));
  ctx.pool->run(static_cast<int>(spans.size()), [&](int task, int worker) {
    const Span& s = spans[static_cast<size_t>(task)];
    const Product& p = products[static_cast<size_t>(s.product)];
    kernels.panel(*p.w, s.panel, in, s.row, s.rows, scratch[static_cast<size_t>(worker)], p.out, p.w->rows);
  });
}

void multiply(kvasir_context& ctx, const std::vector<Product>& products, const float* x, int n, int k) {
  if (n == 0) return;
  if (k == 0) {
    for (const Product& p : products) {
      std::fill(p.out, p.out + static_cast<size_t>(n) * static_cast<size_t>(p.w->rows), 0.0f);
    }
    return;
  }
  const bool quantize = ctx.isa->matmul->quantizes && std::any_of(products.begin(), products.end(),
                                                                  [](const Product& p) { return is_block_type(*p.w); });
  if (n <= ctx.isa->matmul->stream_rows) {
    stream_products(ctx, products, x, n, k, quantize);
  } else {
    panel_products(ctx, products, x, n, k, quantize);
  }
}

}  // namespace

extern "C" {

int32_t kvasir_matmul(kvasir_context* ctx, const kvasir_tensor* outs, kvasir_tensor x, const kvasir_tensor* ws,
                      int32_t count) {
  return guard([&] {
    if (count < 0 || (count > 0 && (!outs || !ws))) fail(KVASIR_ARGUMENT, "Cannot run matmul: %d weights", count);
    const MatmulInput in = check_matmul_input(*ctx->table, x);
    std::vector<Product> products;
    for (int32_t i = 0; i < count; ++i) {
      const Tensor& w = check_matmul_weight(*ctx->table, ws[i], in, i);
      products.push_back({w.packed.get(), check_matmul_out(*ctx->table, outs[i], in, w, i)});
    }
    if (count > 0) multiply(*ctx, products, in.data(), in.n, static_cast<int>(in.k));
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
    const GluKernel kernel = glu_kernel(*ctx, activation, "matmul_glu");
    const size_t count = static_cast<size_t>(in.n) * static_cast<size_t>(gates.shape[0]);
    if (count == 0) return;
    float* factors = static_cast<float*>(ctx->operand.get(count * sizeof(float)));
    multiply(*ctx, {{gates.packed.get(), target}, {ups.packed.get(), factors}}, in.data(), in.n, static_cast<int>(in.k));
    run_glu(*ctx, kernel, target, target, factors, count);
  });
}

int32_t kvasir_embed(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor table, kvasir_tensor tokens, float scale) {
  return guard([&] {
    const EmbedCall c = check_embed(*ctx->table, out, table, tokens);
    if (c.n == 0 || c.width == 0) return;
    const int32_t* id = c.tokens->as<int32_t>();
    check_embed_tokens(c, id);
    auto one = [&](int i, int) {
      float* row = c.out + static_cast<size_t>(i) * static_cast<size_t>(c.width);
      if (c.table->packed != nullptr) {
        weight_read_row(*c.table->packed, id[i], row);
      } else {
        const size_t at = static_cast<size_t>(id[i]) * c.table->row_bytes();
        dequantize_row(c.table->dtype, c.table->data + at, row, c.width);
      }
      for (int32_t j = 0; j < c.width; ++j) row[j] *= scale;
    };
    if (c.n < 4) {
      for (int32_t i = 0; i < c.n; ++i) one(i, 0);
    } else {
      ctx->pool->run(c.n, one);
    }
  });
}

}  // extern "C"
