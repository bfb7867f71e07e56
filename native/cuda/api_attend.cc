// Attention and its merging.
#include <vector>

#include "attention.h"
#include "attention_checks.h"
#include "context.h"
#include "dtype.h"

using namespace kvasir;

namespace {

Attention attention_of(const KvView& kv, const Tensor& q, float scale, float softcap) {
  Attention a;
  a.dtype = kv.dtype, a.kv_heads = kv.kv_heads, a.head_dim = kv.head_dim;
  a.start = kv.start, a.end = kv.end;
  for (const KvSegmentView& s : kv.segments) {
    a.segments.push_back({reinterpret_cast<const char*>(s.keys->data), reinterpret_cast<const char*>(s.values->data),
                          s.key_scales == nullptr ? nullptr : s.key_scales->as<float>(),
                          s.value_scales == nullptr ? nullptr : s.value_scales->as<float>(), s.start, s.count, s.capacity});
  }
  a.scale = scale, a.softcap = softcap;
  a.n = q.shape[0], a.heads = q.shape[1];
  a.q = q.as<float>();
  return a;
}

// attend_causal(), checked; lse, sink null: not wanted.
void attend_all(kvasir_context& ctx, kvasir_tensor out, const kvasir_tensor* lse, kvasir_tensor q, const int32_t* segments,
                int32_t segment_count, float scale, float softcap, int32_t window, const PromptSink* sink = nullptr) {
  const Tensor &to = ctx.tensor(out, "attention output"), &from = ctx.tensor(q, "queries");
  check_queries(from);
  expect_dtype(to, KVASIR_F32, "attention output");
  expect_shape(to, {from.shape[0], from.shape[1], from.shape[2]}, "attention output");
  const Tensor* sums = lse == nullptr ? nullptr : &ctx.tensor(*lse, "log-sum-exp of attention");
  if (sums != nullptr) check_part(to, *sums, from.shape);
  if (window < 0) fail(KVASIR_ARGUMENT, "Cannot attend: window %d is negative", window);
  const KvView kv = check_segments(*ctx.table, segments, segment_count);
  if (from.shape[0] > kv.end - kv.start) {
    fail(KVASIR_ARGUMENT, "Cannot attend: %d queries, the cache holds %d tokens", from.shape[0], kv.end - kv.start);
  }
  if (from.shape[0] == 0) return;
  check_attention(from, kv, scale, softcap);
  if (from.elements() == 0) return;
  Attention call = attention_of(kv, from, scale, softcap);
  call.o = to.as<float>(), call.lse = sums == nullptr ? nullptr : sums->as<float>();
  if (sink == nullptr) attend_causal(*ctx.attention, call, window);
  else attend_causal_sink(*ctx.attention, *ctx.scratch, call, window, *sink);
}

void merge_all(kvasir_context& ctx, kvasir_tensor out, const kvasir_tensor* lse, const kvasir_tensor* parts, int32_t count) {
  const Tensor& to = ctx.tensor(out, "merged attention");
  expect_dtype(to, KVASIR_F32, "merged attention");
  if (to.rank != 3) {
    fail(KVASIR_ARGUMENT, "Cannot merge: shape %s, expected [n, heads, headDim]", shape_text(to.shape, to.rank).c_str());
  }
  if (count < 1 || parts == nullptr) fail(KVASIR_ARGUMENT, "Cannot merge: %d parts", count);
  const Tensor* sums = lse == nullptr ? nullptr : &ctx.tensor(*lse, "merged log-sum-exp");
  if (sums != nullptr) check_part(to, *sums, to.shape);
  std::vector<AttentionPart> from;
  for (int32_t p = 0; p < count; p++) {
    const Tensor &o = ctx.tensor(parts[2 * p], "attention output to merge"), &l = ctx.tensor(parts[2 * p + 1], "log-sum-exp to merge");
    check_part(o, l, to.shape);
    from.push_back({o.as<float>(), l.as<float>()});
  }
  merge_parts(*ctx.attention, {to.as<float>(), sums == nullptr ? nullptr : sums->as<float>()}, from.data(), count,
              to.shape[0] * to.shape[1], to.shape[2]);
}

// Contents of hits: what the host wrote it knows, what a kernel made it waits for.
void check_contents(kvasir_context& ctx, const HitShape& shape, const Tensor& tokens, const Tensor& counts, const Tensor* bias,
                    const KvView& kv) {
  const int32_t* known = ctx.host_ints(counts);
  const std::vector<int32_t> rows(known, known + counts.elements());
  std::vector<float> biases(bias == nullptr ? 0 : bias->elements());
  if (!biases.empty()) ctx.runtime->download(biases.data(), bias->data, bias->bytes);
  check_hits(shape, ctx.host_ints(tokens), rows.data(), bias == nullptr ? nullptr : biases.data(), kv);
}

}  // namespace

extern "C" {

int32_t kvasir_attend_causal(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor q, const int32_t* segments,
                             int32_t segment_count, float scale, float softcap, int32_t window) {
  return guard([&] { attend_all(*ctx, out, nullptr, q, segments, segment_count, scale, softcap, window); });
}

int32_t kvasir_attend_each(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor q, const int32_t* segments,
                           const int32_t* segment_counts, int32_t count, float scale, float softcap, int32_t window) {
  return guard([&] {
    const Tensor &to = ctx->tensor(out, "attention output"), &from = ctx->tensor(q, "queries");
    const std::vector<KvView> caches = check_attend_each(*ctx->table, to, from, segments, segment_counts, count, window);
    if (count == 0) return;
    check_attention(from, caches[0], scale, softcap);
    if (from.elements() == 0) return;
    const size_t stride = static_cast<size_t>(from.shape[1]) * static_cast<size_t>(from.shape[2]);
    for (int32_t i = 0; i < count; i++) {
      Attention call = attention_of(caches[static_cast<size_t>(i)], from, scale, softcap);
      call.n = 1;
      call.q += static_cast<size_t>(i) * stride;
      call.o = to.as<float>() + static_cast<size_t>(i) * stride, call.lse = nullptr;
      attend_causal(*ctx->attention, call, window);
    }
  });
}

int32_t kvasir_attend_causal_part(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, kvasir_tensor q,
                                  const int32_t* segments, int32_t segment_count, float scale, float softcap, int32_t window) {
  return guard([&] { attend_all(*ctx, o, &lse, q, segments, segment_count, scale, softcap, window); });
}

int32_t kvasir_attend_causal_sink(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor q, const int32_t* segments,
                                  int32_t segment_count, float scale, float softcap, int32_t window, int32_t every,
                                  kvasir_tensor tokens, kvasir_tensor scores, kvasir_tensor sums) {
  return guard([&] {
    const Tensor& from = ctx->tensor(q, "queries");
    check_queries(from);
    const KvView kv = check_segments(*ctx->table, segments, segment_count);
    const PromptSink sink = check_sink(*ctx->table, kv, from.shape[0], from.shape[1], every, tokens, scores, sums);
    if (tokens != 0) ctx->ints.forget(reinterpret_cast<const uint8_t*>(sink.tokens), ctx->tensor(tokens, "best keys of a prompt").bytes);
    attend_all(*ctx, out, nullptr, q, segments, segment_count, scale, softcap, window, &sink);
  });
}

int32_t kvasir_attend_window(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, kvasir_tensor q,
                             const int32_t* segments, int32_t segment_count, float scale, float softcap,
                             const int32_t* spans, int32_t span_count) {
  return guard([&] {
    const Tensor &from = ctx->tensor(q, "queries"), &to = ctx->tensor(o, "attention output");
    check_queries(from);
    const Tensor& sums = ctx->tensor(lse, "log-sum-exp of attention");
    check_part(to, sums, from.shape);
    const KvView kv = check_segments(*ctx->table, segments, segment_count);
    check_spans(kv, spans, span_count);
    check_attention(from, kv, scale, softcap);
    if (from.elements() == 0) return;
    Attention call = attention_of(kv, from, scale, softcap);
    call.o = to.as<float>(), call.lse = sums.as<float>();
    attend_spans(*ctx->attention, call, spans, span_count);
  });
}

int32_t kvasir_attend_topk(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, kvasir_tensor q,
                           const int32_t* segments, int32_t segment_count, float scale, float softcap,
                           kvasir_tensor tokens, kvasir_tensor counts, kvasir_tensor bias) {
  return guard([&] {
    const Tensor &from = ctx->tensor(q, "queries"), &to = ctx->tensor(o, "attention output");
    check_queries(from);
    if (from.shape[0] != 1) {
      fail(KVASIR_ARGUMENT, "Cannot attend to hits: %d queries, expected 1", from.shape[0]);
    }
    const Tensor& sums = ctx->tensor(lse, "log-sum-exp of attention");
    check_part(to, sums, from.shape);
    const KvView kv = check_segments(*ctx->table, segments, segment_count);
    check_attention(from, kv, scale, softcap);
    const Tensor &ids = ctx->tensor(tokens, "tokens of hits"), &rows = ctx->tensor(counts, "counts of hits");
    const Tensor* biases = bias == 0 ? nullptr : &ctx->tensor(bias, "bias of hits");
    const HitShape shape = check_hit_tensors(ids, rows, biases, kv, from.shape[1]);
    check_contents(*ctx, shape, ids, rows, biases, kv);
    if (from.elements() == 0) return;
    Attention call = attention_of(kv, from, scale, softcap);
    call.o = to.as<float>(), call.lse = sums.as<float>();
    attend_hits(*ctx->attention, call,
                {shape.rows, shape.capacity, ids.as<int32_t>(), rows.as<int32_t>(), biases == nullptr ? nullptr : biases->as<float>()});
  });
}

int32_t kvasir_merge(kvasir_context* ctx, kvasir_tensor out, const kvasir_tensor* parts, int32_t count) {
  return guard([&] { merge_all(*ctx, out, nullptr, parts, count); });
}

int32_t kvasir_merge_parts(kvasir_context* ctx, kvasir_tensor o, kvasir_tensor lse, const kvasir_tensor* parts, int32_t count) {
  return guard([&] { merge_all(*ctx, o, &lse, parts, count); });
}

}  // extern "C"
