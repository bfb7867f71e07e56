// What sampled queries of a prompt look at: their best keys, and sums of their weights.
#pragma once
#include "attention.h"
#include "kv.h"

namespace kvasir {

// Queries whose position is a multiple of `every`; m of them.
struct PromptSink {
  int32_t every;
  int32_t topk;    // 0: no best keys
  int32_t* tokens; // written: [m, heads, topk] positions, best first; -1 behind the keys that a query sees
  float* scores;   // written: [m, heads, topk] logits, -inf there; null: not wanted
  float* sums;     // added to: [heads, stride], at positions; null: not wanted
  size_t stride;
};

// How many of n queries from `position` on.
int32_t sampled_queries(int32_t position, int32_t n, int32_t every);

// q [n, heads, headDim], the cache's last n positions; window 0 = none. Everything is checked already.
void fill_sink(kvasir_context& ctx, const AttentionShape& shape, const KvView& kv, const float* q, int32_t n, int32_t heads,
               int32_t window, const PromptSink& sink);

}  // namespace kvasir
