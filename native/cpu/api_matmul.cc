// kvasir_matmul, kvasir_matmul_glu, kvasir_embed: checks, stream or panel kernels, and the split into tasks.
// Every output element is one task's alone and its sum's order depends on n and the shapes only: results are the same
// for any number of threads.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <thread>
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

// Rows of x are rounded inside the products' job: every worker rounds its share of them first, then those of workers that have not come
// yet, and waits for the rest. A job of its own, or one thread for all, costs more. What workers tell each other lies on lines of their
// own: between cores that share no cache, each costs a fifth of a microsecond whenever it changes hands.
class SharedQuantize {
 public:
  SharedQuantize(kvasir_context& ctx, StreamBlock* words, StreamBlock* bytes, const StreamInput& in)
      : marks_(ctx.quantized.data()), kernels_(*ctx.isa->matmul), words_(words), bytes_(bytes), in_(in),
        shares_(std::min(in.n, ctx.pool->threads())), number_(++ctx.quantize_number) {
    if (shares_ == 1) round(0);
  }

  void finish(int worker) {
    if (shares_ == 1) return;
    for (int i = 0; i < shares_; i++) {
      const int share = (worker + i) % shares_;
      Mark& mark = marks_[share];
      if (mark.done.load(std::memory_order_acquire) == number_ || mark.taken.exchange(number_, std::memory_order_relaxed) == number_) continue;
      round(share);
      mark.done.store(number_, std::memory_order_release);
    }
    for (int share = 0; share < shares_; share++) {
      for (int spins = 0; marks_[share].done.load(std::memory_order_acquire) != number_; ++spins) {
        if (spins > 1000) std::this_thread::yield();  // who has the last row may have lost its CPU
      }
    }
  }

 private:
  using Mark = kvasir_context::QuantizeMark;

  void round(int share) const {
    const size_t k = static_cast<size_t>(in_.k), n = static_cast<size_t>(in_.n), shares = static_cast<size_t>(shares_);
    for (size_t i = n * static_cast<size_t>(share) / shares; i < n * (static_cast<size_t>(share) + 1) / shares; i++) {
      if (words_ != nullptr) kernels_.stream_quantize(words_ + i * (k / 32), in_.x + i * k, in_.k, false);
      if (bytes_ != nullptr) kernels_.stream_quantize(bytes_ + i * (k / 32), in_.x + i * k, in_.k, true);
    }
  }

  Mark* const marks_;
  const MatmulKernels& kernels_;
  StreamBlock *const words_, *const bytes_;
  const StreamInput in_;
  const int shares_;
  const uint64_t number_;
};

// Decode: one pass over the weights, about 64 KB a task, at least four tasks a thread where panels suffice, of equal size and equally
// many for all; neighbours go to one thread, as kernels fetch what lies behind a task. after(first, count) follows the products of
// these panels, those of all `paired` products together.
template <class After>
void stream_products(kvasir_context& ctx, const std::vector<Product>& products, const float* x, int n, int k,
                     bool quantize, bool paired, After&& after) {
  const MatmulKernels& kernels = *ctx.isa->matmul;
  StreamInput in = {x, nullptr, nullptr, n, k};
  std::optional<SharedQuantize> quantized;
  if (quantize) {
    bool asks[2] = {false, false};  // for words, for bytes
    for (const Product& p : products) {
      if (is_block_type(*p.w)) asks[ctx.precision == Precision::kFast && takes_bytes(p.w->dtype)] = true;
    }
    const size_t blocks = static_cast<size_t>(k / 32) * static_cast<size_t>(n);
    auto* q = static_cast<StreamBlock*>(ctx.shared.get(blocks * sizeof(StreamBlock) * (asks[0] && asks[1] ? 2 : 1)));
    StreamBlock *words = asks[0] ? q : nullptr, *bytes = !asks[1] ? nullptr : asks[0] ? q + blocks : q;
    in.words = words;
    in.bytes = bytes;
    quantized.emplace(ctx, words, bytes, in);
  }
  int64_t total = 0;
  size_t bytes = 0;
  for (const Product& p : products) {
    if (!paired || total == 0) total += p.w->panels();
    bytes += static_cast<size_t>(p.w->panels()) * p.w->panel_bytes;
  }
  const int threads = ctx.pool->threads();
  const int64_t by_size = static_cast<int64_t>(bytes >> 16), wanted = std::max<int64_t>(by_size, 4 * threads);
  const int64_t tasks = std::min(total, (wanted + threads - 1) / threads * threads);
  ctx.pool->run_shares(static_cast<int>(tasks), [&](int task, int worker) {
    if (quantize) quantized->finish(worker);
    const int first = static_cast<int>(total * task / tasks), end = static_cast<int>(total * (task + 1) / tasks);
    int before = 0;  // panels of earlier products
    for (const Product& p : products) {
      const int from = std::max(first - before, 0), to = std::min(end - before, p.w->panels());
      if (from < to) kernels.stream(*p.w, from, to - from, in, p.out, p.w->rows);
      if (!paired) before += p.w->panels();
    }
    after(first, end - first);
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

// False: there is nothing to sum, and outputs are zeros.
bool has_products(const std::vector<Product>& products, int n, int k) {
  if (n == 0) return false;
  if (k > 0) return true;
  for (const Product& p : products) {
    std::fill(p.out, p.out + static_cast<size_t>(n) * static_cast<size_t>(p.w->rows), 0.0f);
  }
  return false;
}

bool quantizes(const kvasir_context& ctx, const std::vector<Product>& products) {
  return ctx.isa->matmul->quantizes &&
         std::any_of(products.begin(), products.end(), [](const Product& p) { return is_block_type(*p.w); });
}

void multiply(kvasir_context& ctx, const std::vector<Product>& products, const float* x, int n, int k) {
  if (!has_products(products, n, k)) return;
  const bool quantize = quantizes(ctx, products);
  if (n > ctx.isa->matmul->stream_rows) return panel_products(ctx, products, x, n, k, quantize);
  stream_products(ctx, products, x, n, k, quantize, false, [](int, int) {});
}

// gates = activation(x gatesᵀ) * (x factorsᵀ); both have as many rows. Decode: each piece as soon as its products are there.
void multiply_gated(kvasir_context& ctx, GluKernel kernel, const Product& gates, const Product& factors, const float* x, int n, int k) {
  const std::vector<Product> products = {gates, factors};
  const size_t rows = static_cast<size_t>(gates.w->rows);
  if (n > ctx.isa->matmul->stream_rows || k == 0) {
    multiply(ctx, products, x, n, k);
    run_glu(ctx, kernel, gates.out, gates.out, factors.out, static_cast<size_t>(n) * rows);
    return;
  }
  stream_products(ctx, products, x, n, k, quantizes(ctx, products), true, [&](int panel, int panels) {
    const size_t first = static_cast<size_t>(panel) * kPanelRows;
    const size_t count = std::min(static_cast<size_t>(panels) * kPanelRows, rows - first);
    for (size_t at = first; at < first + static_cast<size_t>(n) * rows; at += rows) {
      kernel(gates.out + at, gates.out + at, factors.out + at, count);
    }
  });
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
    multiply_gated(*ctx, kernel, {gates.packed.get(), target}, {ups.packed.get(), factors}, in.data(), in.n, static_cast<int>(in.k));
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
