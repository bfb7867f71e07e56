#include "attention_checks.h"

#include <cmath>

#include "dtype.h"
#include "error.h"

namespace kvasir {

void check_queries(const Tensor& q) {
  expect_dtype(q, KVASIR_F32, "queries");
  if (q.rank == 3) return;
  fail(KVASIR_ARGUMENT, "Cannot use queries: shape %s, expected [n, heads, headDim]", shape_text(q.shape, q.rank).c_str());
}

void check_attention(const Tensor& q, const KvView& kv, float scale, float softcap) {
  if (!std::isfinite(scale) || !std::isfinite(softcap) || softcap < 0.0f) {
    fail(KVASIR_ARGUMENT, "Cannot attend: scale %g and softcap %g must be finite, the softcap not negative",
         static_cast<double>(scale), static_cast<double>(softcap));
  }
  if (kv.head_dim != q.shape[2] || kv.kv_heads == 0 || q.shape[1] % kv.kv_heads != 0) {
    fail(KVASIR_ARGUMENT, "Cannot attend: queries %s do not fit %d KV heads of %d dimensions",
         shape_text(q.shape, q.rank).c_str(), kv.kv_heads, kv.head_dim);
  }
}

std::vector<KvView> check_attend_each(Table& table, const Tensor& out, const Tensor& q, const int32_t* segments, const int32_t* counts,
                                      int32_t count, int32_t window) {
  check_queries(q);
  expect_dtype(out, KVASIR_F32, "attention output");
  expect_shape(out, {q.shape[0], q.shape[1], q.shape[2]}, "attention output");
  if (count != q.shape[0] || (count > 0 && counts == nullptr)) {
    fail(KVASIR_ARGUMENT, "Cannot attend: %d caches for %d queries", count, q.shape[0]);
  }
  if (window < 0) fail(KVASIR_ARGUMENT, "Cannot attend: window %d is negative", window);
  const int32_t* later = segments;
  for (int32_t i = 0; segments != nullptr && i < count && counts[i] > 0; i++) {
    fetch_segments(table, later, counts[i]);
    later += static_cast<size_t>(counts[i]) * KVASIR_SEGMENT_FIELDS;
  }
  std::vector<KvView> caches;
  caches.reserve(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; i++) {
    caches.push_back(check_segments(table, segments, counts[i]));
    if (segments != nullptr) segments += static_cast<size_t>(counts[i]) * KVASIR_SEGMENT_FIELDS;
    const KvView &kv = caches.back(), &first = caches.front();
    if (kv.end == kv.start) fail(KVASIR_ARGUMENT, "Cannot attend: cache %d is empty", i);
    if (kv.dtype != first.dtype || kv.kv_heads != first.kv_heads || kv.head_dim != first.head_dim) {
      fail(KVASIR_ARGUMENT, "Cannot attend: cache %d is %s of %d heads and %d dimensions, the first one %s of %d and %d", i,
           dtype_name(kv.dtype), kv.kv_heads, kv.head_dim, dtype_name(first.dtype), first.kv_heads, first.head_dim);
    }
  }
  return caches;
}

void check_part(const Tensor& o, const Tensor& lse, const int32_t* shape) {
  expect_dtype(o, KVASIR_F32, "attention output");
  expect_shape(o, {shape[0], shape[1], shape[2]}, "attention output");
  expect_dtype(lse, KVASIR_F32, "log-sum-exp of attention");
  expect_shape(lse, {shape[0], shape[1]}, "log-sum-exp of attention");
}

void check_spans(const KvView& kv, const int32_t* spans, int32_t count) {
  if (count < 0 || (count > 0 && spans == nullptr)) {
    fail(KVASIR_ARGUMENT, "Cannot attend: %d spans without a list", count);
  }
  int32_t end = kv.start;
  for (int32_t i = 0; i < count; i++) {
    const int32_t from = spans[2 * i], to = spans[2 * i + 1];
    if (from < end || to < from || to > kv.end) {
      fail(KVASIR_ARGUMENT, "Cannot attend: span %d is %d to %d, expected ascending positions in %d to %d", i, from, to,
           end, kv.end);
    }
    end = to;
  }
}

HitShape check_hit_tensors(const Tensor& tokens, const Tensor& counts, const Tensor* bias, const KvView& kv, int32_t heads) {
  expect_dtype(tokens, KVASIR_I32, "tokens of hits");
  if (tokens.rank != 2 || (tokens.shape[0] != heads && tokens.shape[0] != kv.kv_heads)) {
    fail(KVASIR_ARGUMENT, "Cannot use tokens of hits: shape %s, expected [%d or %d, capacity]",
         shape_text(tokens.shape, tokens.rank).c_str(), heads, kv.kv_heads);
  }
  const HitShape shape = {tokens.shape[0], tokens.shape[1]};
  expect_dtype(counts, KVASIR_I32, "counts of hits");
  expect_shape(counts, {shape.rows}, "counts of hits");
  if (bias != nullptr) {
    expect_dtype(*bias, KVASIR_F32, "bias of hits");
    expect_shape(*bias, {shape.rows, shape.capacity}, "bias of hits");
  }
  return shape;
}

void check_hits(const HitShape& shape, const int32_t* tokens, const int32_t* counts, const float* bias, const KvView& kv) {
  for (int32_t r = 0; r < shape.rows; r++) {
    const int32_t count = counts[r];
    if (count < 0 || count > shape.capacity) {
      fail(KVASIR_ARGUMENT, "Cannot attend: row %d has %d hits, its capacity is %d", r, count, shape.capacity);
    }
    const size_t first = static_cast<size_t>(r) * static_cast<size_t>(shape.capacity);
    for (int32_t i = 0; i < count; i++) {
      const int32_t token = tokens[first + static_cast<size_t>(i)];
      if (token < kv.start || token >= kv.end) {
        fail(KVASIR_ARGUMENT, "Cannot attend: hit %d of row %d is position %d, the cache holds %d to %d", i, r, token,
             kv.start, kv.end);
      }
      if (bias != nullptr && !std::isfinite(bias[first + static_cast<size_t>(i)])) {
        fail(KVASIR_ARGUMENT, "Cannot attend: the bias of hit %d of row %d is not finite", i, r);
      }
    }
  }
}

int32_t sampled_queries(int32_t position, int32_t n, int32_t every) {
  const auto before = [every](int64_t p) { return (p + every - 1) / every; };
  return static_cast<int32_t>(before(int64_t{position} + n) - before(position));
}

PromptSink check_sink(Table& table, const KvView& kv, int32_t n, int32_t heads, int32_t every, kvasir_tensor tokens,
                      kvasir_tensor scores, kvasir_tensor sums) {
  if (every < 1) fail(KVASIR_ARGUMENT, "Cannot fill prompt sink: every %d-th query, expected at least 1", every);
  if (tokens == 0 && scores != 0) fail(KVASIR_ARGUMENT, "Cannot fill prompt sink: scores of best keys without the keys");
  PromptSink sink{every, 0, nullptr, nullptr, nullptr, 0};
  if (tokens != 0) {
    const Tensor& to = table.tensor(tokens, "best keys of a prompt");
    const int32_t m = sampled_queries(kv.end - n, n, every), k = to.rank == 3 ? to.shape[2] : 0;
    expect_dtype(to, KVASIR_I32, "best keys of a prompt");
    expect_shape(to, {m, heads, k}, "best keys of a prompt");
    sink.topk = k, sink.tokens = to.as<int32_t>();
    if (scores != 0) {
      const Tensor& values = table.tensor(scores, "scores of best keys");
      expect_dtype(values, KVASIR_F32, "scores of best keys");
      expect_shape(values, {m, heads, k}, "scores of best keys");
      sink.scores = values.as<float>();
    }
  }
  if (sums != 0) {
    const Tensor& to = table.tensor(sums, "sums of attention weights");
    expect_dtype(to, KVASIR_F32, "sums of attention weights");
    if (to.rank != 2 || to.shape[0] != heads || to.shape[1] < kv.end) {
      fail(KVASIR_ARGUMENT, "Cannot use sums of attention weights: shape %s, expected [%d, at least %d]",
           shape_text(to.shape, to.rank).c_str(), heads, kv.end);
    }
    sink.sums = to.as<float>(), sink.stride = static_cast<size_t>(to.shape[1]);
  }
  return sink;
}

}  // namespace kvasir
