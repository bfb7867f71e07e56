// Splits an attention call into pool tasks and merges what they return.
#pragma once
#include "attention.h"
#include "kv.h"

namespace kvasir {

// out, q [n, heads, headDim] with query i at position kv.end - n + i; window 0 = none; lse [n, heads], or null. Everything is
// checked already.
void attend_causal(kvasir_context& ctx, const AttentionShape& shape, const KvView& kv, float* out, float* lse, const float* q,
                   int32_t n, int32_t heads, int32_t window);

// The same for one query each of `n` caches of one type and shape, at least one: row i of out, q [n, heads, headDim] is the last token of
// caches[i]. As bits what attend_causal gives for each alone.
void attend_each(kvasir_context& ctx, const AttentionShape& shape, const KvView* caches, int32_t n, float* out, const float* q,
                 int32_t heads, int32_t window);

}  // namespace kvasir
