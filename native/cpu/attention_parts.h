// Decode attention in parts: spans of the cache, retrieved keys, and their merge by log-sum-exp.
#pragma once
#include "attention.h"
#include "kv.h"

namespace kvasir {

// A partial result: o [rows, headDim], and lse [rows], the log of the sum of exponentials behind it. Without keys o is 0
// and lse -inf.
struct AttentionOut {
  float* o;
  float* lse;
};

// Retrieved keys: `rows` lists, one per query head or one per KV head, shared by its group.
struct AttentionHits {
  int32_t rows;
  int32_t capacity;
  const int32_t* tokens;  // [rows, capacity]
  const int32_t* counts;  // [rows]
  const float* bias;      // [rows, capacity]; null: none
};

// Everything is checked already. q [n, heads, headDim]; every query sees all of the spans, [start, end) each.
void attend_window(kvasir_context& ctx, const AttentionShape& shape, const KvView& kv, const AttentionOut& out,
                   const float* q, int32_t n, int32_t heads, const int32_t* spans, int32_t span_count);

// q [heads, headDim].
void attend_topk(kvasir_context& ctx, const AttentionShape& shape, const KvView& kv, const AttentionOut& out,
                 const float* q, int32_t heads, const AttentionHits& hits);

// out [rows] from `count` parts of it, in order, by their log-sum-exp; out may be one of the parts, its lse null.
void merge_parts(const AttentionOut& out, const AttentionOut* parts, int32_t count, size_t rows, size_t d);

}  // namespace kvasir
