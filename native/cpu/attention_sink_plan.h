// What sampled queries of a prompt look at: their best keys, and sums of their weights.
#pragma once
#include "attention.h"
#include "attention_checks.h"
#include "kv.h"

namespace kvasir {

// q [n, heads, headDim], the cache's last n positions; window 0 = none. Everything is checked already.
void fill_sink(kvasir_context& ctx, const AttentionShape& shape, const KvView& kv, const float* q, int32_t n, int32_t heads,
               int32_t window, const PromptSink& sink);

}  // namespace kvasir
