// kvasir_matmul, kvasir_matmul_glu, kvasir_embed: checks, stream or panel kernels, and the split into tasks.
// Every output element is one task's alone and its sum's order depends on n and the shapes only: results are the same
// for any number of threads.
#include <algorithm>
#include <cstring>
#include <vector>

#include "context.h"
#include "glu.h"
#include "isa.h"
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

// Decode: one pass over the weights, about 32 KB a task, at least four tasks a thread where panels suffice.
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
  ctx.pool->run(static_cast<int>(spans.size()), [&](int task, int) {
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

// Elements behind one index of the first dimension of a tensor of rank 2 or 3.
int64_t row_elements(const Tensor& t) { return static_cast<int64_t>(t.shape[1]) * (t.rank == 3 ? t.shape[2] : 1); }

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

// x of a product: [n, k], or [n, heads, k / heads].
struct Input {
  const Tensor& x;
  int32_t n;
  int64_t k;
};

Input expect_input(kvasir_context& ctx, kvasir_tensor id) {
  const Tensor& x = ctx.tensor(id, "matmul x");
  expect_dtype(x, KVASIR_F32, "matmul x");
  if (x.rank != 2 && x.rank != 3) {
    fail(KVASIR_ARGUMENT, "Cannot run matmul: x has rank %d, expected 2 or 3", x.rank);
  }
  return {x, x.shape[0], row_elements(x)};
}

const PackedWeight& expect_weight(kvasir_context& ctx, kvasir_tensor id, const Input& in, int32_t i) {
  const Tensor& weight = ctx.tensor(id, "matmul weight");
  if (!weight.packed) {
    fail(KVASIR_ARGUMENT, "Cannot run matmul: weight %d is no model tensor of rank 2, create it with that lifetime", i);
  }
  if (weight.packed->cols != in.k) {
    fail(KVASIR_ARGUMENT, "Cannot run matmul: weight %d has %d columns, x has %lld", i, weight.packed->cols,
         static_cast<long long>(in.k));
  }
  return *weight.packed;
}

float* expect_out(kvasir_context& ctx, kvasir_tensor id, const Input& in, const PackedWeight& w, int32_t i) {
  const Tensor& out = ctx.tensor(id, "matmul out");
  expect_dtype(out, KVASIR_F32, "matmul out");
  const bool split = out.rank == 3 && out.shape[0] == in.n && row_elements(out) == w.rows;
  if (!split) expect_shape(out, {in.n, w.rows}, "matmul out");
  if (out.data && in.x.data && out.data < in.x.data + in.x.bytes && in.x.data < out.data + out.bytes) {
    fail(KVASIR_ARGUMENT, "Cannot run matmul: out %d overlaps x", i);
  }
  return out.as<float>();
}

}  // namespace

extern "C" {

int32_t kvasir_matmul(kvasir_context* ctx, const kvasir_tensor* outs, kvasir_tensor x, const kvasir_tensor* ws,
                      int32_t count) {
  return guard([&] {
    if (count < 0 || (count > 0 && (!outs || !ws))) fail(KVASIR_ARGUMENT, "Cannot run matmul: %d weights", count);
    const Input in = expect_input(*ctx, x);
    std::vector<Product> products;
    for (int32_t i = 0; i < count; ++i) {
      const PackedWeight& w = expect_weight(*ctx, ws[i], in, i);
      products.push_back({&w, expect_out(*ctx, outs[i], in, w, i)});
    }
    if (count > 0) multiply(*ctx, products, in.x.as<float>(), in.n, static_cast<int>(in.k));
  });
}

int32_t kvasir_matmul_glu(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor gate, kvasir_tensor up,
                          int32_t activation) {
  return guard([&] {
    const Input in = expect_input(*ctx, x);
    const PackedWeight &gates = expect_weight(*ctx, gate, in, 0), &ups = expect_weight(*ctx, up, in, 1);
    if (gates.rows != ups.rows) {
      fail(KVASIR_ARGUMENT, "Cannot run matmul_glu: gate has %d rows, up has %d", gates.rows, ups.rows);
    }
    float* target = expect_out(*ctx, out, in, gates, 0);
    const GluKernel kernel = glu_kernel(*ctx, activation, "matmul_glu");
    const size_t count = static_cast<size_t>(in.n) * static_cast<size_t>(gates.rows);
    if (count == 0) return;
    float* factors = static_cast<float*>(ctx->operand.get(count * sizeof(float)));
    multiply(*ctx, {{&gates, target}, {&ups, factors}}, in.x.as<float>(), in.n, static_cast<int>(in.k));
    run_glu(*ctx, kernel, target, target, factors, count);
  });
}

int32_t kvasir_embed(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor table, kvasir_tensor tokens, float scale) {
  return guard([&] {
    const Tensor& rows = ctx->tensor(table, "embed table");
    const Tensor& ids = ctx->tensor(tokens, "embed tokens");
    const Tensor& to = ctx->tensor(out, "embed out");
    if (rows.rank != 2) fail(KVASIR_ARGUMENT, "Cannot run embed: table has rank %d, expected 2", rows.rank);
    const QuantInfo* info = quant_info(rows.dtype);
    if (!info) fail(KVASIR_ARGUMENT, "Cannot run embed: table of type %d", rows.dtype);
    expect_dtype(ids, KVASIR_I32, "embed tokens");
    if (ids.rank != 1) fail(KVASIR_ARGUMENT, "Cannot run embed: tokens have rank %d, expected 1", ids.rank);
    const int32_t n = ids.shape[0], vocab = rows.shape[0], width = rows.shape[1];
    expect_dtype(to, KVASIR_F32, "embed out");
    expect_shape(to, {n, width}, "embed out");
    if (n == 0 || width == 0) return;
    const int32_t* id = ids.as<int32_t>();
    for (int32_t i = 0; i < n; ++i) {
      if (id[i] < 0 || id[i] >= vocab) {
        fail(KVASIR_ARGUMENT, "Cannot run embed: token %d at %d is outside the table's %d rows", id[i], i, vocab);
      }
    }
    auto one = [&](int i, int) {
      float* row = to.as<float>() + static_cast<size_t>(i) * static_cast<size_t>(width);
      if (rows.packed) {
        weight_read_row(*rows.packed, id[i], row);
      } else {
        const size_t at = static_cast<size_t>(id[i]) * quant_row_bytes(*info, width);
        dequantize_row(rows.dtype, rows.data + at, row, width);
      }
      for (int32_t j = 0; j < width; ++j) row[j] *= scale;
    };
    if (n < 4) {
      for (int32_t i = 0; i < n; ++i) one(i, 0);
    } else {
      ctx->pool->run(n, one);
    }
  });
}

}  // extern "C"
