// Caches: append and causal attention.
#include "attention_checks.h"
#include "attention_parts.h"
#include "attention_plan.h"
#include "attention_sink_plan.h"
#include "context.h"
#include "dtype.h"
#include "isa.h"
#include "kv.h"

using namespace kvasir;

namespace {

AttentionShape shape_of(const Tensor& q, const KvView& kv, float scale, float softcap) {
  check_attention(q, kv, scale, softcap);
  return {kv.dtype, kv.head_dim, scale, softcap};
}

AttentionOut part_of(const Tensor& o, const Tensor& lse, const int32_t* shape) {
  check_part(o, lse, shape);
  return {o.as<float>(), lse.as<float>()};
}

AttentionHits hits_of(const Tensor& tokens, const Tensor& counts, const Tensor* bias, const KvView& kv, int32_t heads) {
  const HitShape shape = check_hit_tensors(tokens, counts, bias, kv, heads);
  const AttentionHits hits{shape.rows, shape.capacity, tokens.as<int32_t>(), counts.as<int32_t>(),
                           bias == nullptr ? nullptr : bias->as<float>()};
  check_hits(shape, hits.tokens, hits.counts, hits.bias, kv);
  return hits;
}

// attend_causal(), checked; lse null: not wanted.
void attend_all(kvasir_context& ctx, kvasir_tensor out, const kvasir_tensor* lse, kvasir_tensor q, const int32_t* segments,
                int32_t segment_count, float scale, float softcap, int32_t window) {
  const Tensor &to = ctx.tensor(out, "attention output"), &from = ctx.tensor(q, "queries");
  check_queries(from);
  const int32_t n = from.shape[0], heads = from.shape[1], d = from.shape[2];
  expect_dtype(to, KVASIR_F32, "attention output");
  expect_shape(to, {n, heads, d}, "attention output");
  float* sums = lse == nullptr ? nullptr : part_of(to, ctx.tensor(*lse, "log-sum-exp of attention"), from.shape).lse;
  if (window < 0) fail(KVASIR_ARGUMENT, "Cannot attend: window %d is negative", window);
  const KvView kv = check_segments(*ctx.table, segments, segment_count);
  if (n > kv.end - kv.start) {
    fail(KVASIR_ARGUMENT, "Cannot attend: %d queries, the cache holds %d tokens", n, kv.end - kv.start);
  }
  if (n == 0) return;
  const AttentionShape shape = shape_of(from, kv, scale, softcap);
  if (heads == 0 || d == 0) return;
  attend_causal(ctx, shape, kv, to.as<float>(), sums, from.as<float>(), n, heads, window);
}

// Where the rows of one head go, counted in rows of all heads.
size_t first_row(const AppendCall& c, int32_t task) {
  return static_cast<size_t>(task / 2) * static_cast<size_t>(c.capacity) + static_cast<size_t>(c.row);
}

char* rows_of(const AppendCall& c, int32_t task) {
  const size_t row_bytes = static_cast<size_t>(c.head_dim) * static_cast<size_t>(kDTypes[c.dtype].bytes);
  return static_cast<char*>(task % 2 == 0 ? c.keys : c.values) + first_row(c, task) * row_bytes;
}

// Keys (even tasks) or values of head task / 2.
void store(const kvasir_context& ctx, const AppendCall& c, int32_t task) {
  const bool key = task % 2 == 0;
  const size_t head = static_cast<size_t>(task / 2), d = static_cast<size_t>(c.head_dim), at = first_row(c, task);
  void* rows = rows_of(c, task);
  float* scales = key ? c.key_scales : c.value_scales;
  ctx.isa->attention->store_rows(c.dtype, rows, scales == nullptr ? nullptr : scales + at, (key ? c.k : c.v) + head * d,
                                 static_cast<size_t>(c.heads) * d, c.n, c.head_dim);
}

void merge_all(kvasir_context& ctx, kvasir_tensor out, const kvasir_tensor* lse, const kvasir_tensor* parts, int32_t count) {
  const Tensor& to = ctx.tensor(out, "merged attention");
  expect_dtype(to, KVASIR_F32, "merged attention");
  if (to.rank != 3) {
    fail(KVASIR_ARGUMENT, "Cannot merge: shape %s, expected [n, heads, headDim]", shape_text(to.shape, to.rank).c_str());
  }
  if (count < 1 || parts == nullptr) fail(KVASIR_ARGUMENT, "Cannot merge: %d parts", count);
  float* sums = lse == nullptr ? nullptr : part_of(to, ctx.tensor(*lse, "merged log-sum-exp"), to.shape).lse;
  std::vector<AttentionOut> from(static_cast<size_t>(count));
  for (int32_t p = 0; p < count; p++) {
    from[static_cast<size_t>(p)] = part_of(ctx.tensor(parts[2 * p], "attention output to merge"),
                                              ctx.tensor(parts[2 * p + 1], "log-sum-exp to merge"), to.shape);
  }
  merge_parts({to.as<float>(), sums}, from.data(), count, static_cast<size_t>(to.shape[0]) * to.shape[1],
              static_cast<size_t>(to.shape[2]));
}

}  // namespace

extern "C" {

int32_t kvasir_append(kvasir_context* ctx, const int32_t* segment, int32_t row, kvasir_tensor k, kvasir_tensor v) {
  return guard([&] {
    const AppendCall c = check_append(*ctx->table, segment, row, k, v);
    if (c.n == 0 || c.heads == 0 || c.head_dim == 0) return;
    // Waking the pool costs about as much as converting 16,000 numbers.
    if (static_cast<int64_t>(c.n) * c.heads * c.head_dim > 16384) {
      ctx->pool->run(2 * c.heads, [&](int task, int) { store(*ctx, c, task); });
    } else {
      for (int32_t task = 0; task < 2 * c.heads; task++) store(*ctx, c, task);
    }
  });
}

int32_t kvasir_append_each(kvasir_context* ctx, const int32_t* segments, const int32_t* rows, int32_t count, kvasir_tensor k,
                           kvasir_tensor v) {
  return guard([&] {
    const std::vector<AppendCall> calls = check_append_each(*ctx->table, segments, rows, count, k, v);
    // A row a cache and head, each where nothing has been looked at since the last step: all are asked for before the first is written.
    for (const AppendCall& c : calls) {
      for (int32_t task = 0; c.head_dim > 0 && task < 2 * c.heads; task++) {
        const char* const row = rows_of(c, task);
        for (int32_t at = 0; at < c.head_dim * kDTypes[c.dtype].bytes; at += 64) __builtin_prefetch(row + at, 1);
      }
    }
    for (const AppendCall& c : calls) {
      for (int32_t task = 0; c.head_dim > 0 && task < 2 * c.heads; task++) store(*ctx, c, task);
    }
  });
}

int32_t kvasir_attend_each(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor q, const int32_t* segments,
                           const int32_t* segment_counts, int32_t count, float scale, float softcap, int32_t window) {
  return guard([&] {
    const Tensor &to = ctx->tensor(out, "attention output"), &from = ctx->tensor(q, "queries");
    const std::vector<KvView> caches = check_attend_each(*ctx->table, to, from, segments, segment_counts, count, window);
    if (count == 0) return;
    const AttentionShape shape = shape_of(from, caches[0], scale, softcap);
    if (from.elements() == 0) return;
    attend_each(*ctx, shape, caches.data(), count, to.as<float>(), from.as<float>(), from.shape[1], window);
  });
}

int32_t kvasir_attend_causal(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor q, const int32_t* segments,
                             int32_t segment_count, float scale, float softcap, int32_t window) {
  return guard([&] { attend_all(*ctx, out, nullptr, q, segments, segment_count, scale, softcap, window); });
}

int32_t kvasir_attend_causal_part(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, kvasir_tensor q,
                                  const int32_t* segments, int32_t segment_count, float scale, float softcap, int32_t window) {
  return guard([&] { attend_all(*ctx, o, &lse, q, segments, segment_count, scale, softcap, window); });
}

int32_t kvasir_attend_causal_sink(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor q, const int32_t* segments,
                                  int32_t segment_count, float scale, float softcap, int32_t window, int32_t every,
                                  kvasir_tensor tokens, kvasir_tensor scores, kvasir_tensor sums) {
  return guard([&] {
    attend_all(*ctx, out, nullptr, q, segments, segment_count, scale, softcap, window);
    const KvView kv = check_segments(*ctx->table, segments, segment_count);
    const Tensor& from = ctx->tensor(q, "queries");
    const int32_t n = from.shape[0], heads = from.shape[1];
    const PromptSink sink = check_sink(*ctx->table, kv, n, heads, every, tokens, scores, sums);
    if (from.elements() == 0 || (sink.topk == 0 && sink.sums == nullptr)) return;
    fill_sink(*ctx, shape_of(from, kv, scale, softcap), kv, from.as<float>(), n, heads, window, sink);
  });
}

int32_t kvasir_attend_window(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, kvasir_tensor q,
                             const int32_t* segments, int32_t segment_count, float scale, float softcap,
                             const int32_t* spans, int32_t span_count) {
  return guard([&] {
    const Tensor& from = ctx->tensor(q, "queries");
    check_queries(from);
    const AttentionOut out = part_of(ctx->tensor(o, "attention output"), ctx->tensor(lse, "log-sum-exp of attention"),
                                        from.shape);
    const KvView kv = check_segments(*ctx->table, segments, segment_count);
    check_spans(kv, spans, span_count);
    const AttentionShape shape = shape_of(from, kv, scale, softcap);
    if (from.elements() == 0) return;
    attend_window(*ctx, shape, kv, out, from.as<float>(), from.shape[0], from.shape[1], spans, span_count);
  });
}

int32_t kvasir_attend_topk(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, kvasir_tensor q,
                           const int32_t* segments, int32_t segment_count, float scale, float softcap,
                           kvasir_tensor tokens, kvasir_tensor counts, kvasir_tensor bias) {
  return guard([&] {
    const Tensor& from = ctx->tensor(q, "queries");
    check_queries(from);
    if (from.shape[0] != 1) {
      fail(KVASIR_ARGUMENT, "Cannot attend to hits: %d queries, expected 1", from.shape[0]);
    }
    const AttentionOut out = part_of(ctx->tensor(o, "attention output"), ctx->tensor(lse, "log-sum-exp of attention"),
                                        from.shape);
    const KvView kv = check_segments(*ctx->table, segments, segment_count);
    const AttentionShape shape = shape_of(from, kv, scale, softcap);
    const AttentionHits hits = hits_of(ctx->tensor(tokens, "tokens of hits"), ctx->tensor(counts, "counts of hits"),
                                          bias == 0 ? nullptr : &ctx->tensor(bias, "bias of hits"), kv, from.shape[1]);
    if (from.elements() == 0) return;
    attend_topk(*ctx, shape, kv, out, from.as<float>(), from.shape[1], hits);
  });
}

int32_t kvasir_merge(kvasir_context* ctx, kvasir_tensor out, const kvasir_tensor* parts, int32_t count) {
  return guard([&] { merge_all(*ctx, out, nullptr, parts, count); });
}

int32_t kvasir_merge_parts(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, const kvasir_tensor* parts, int32_t count) {
  return guard([&] { merge_all(*ctx, o, &lse, parts, count); });
}

}  // extern "C"
