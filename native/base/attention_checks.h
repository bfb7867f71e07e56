// The checks of every attention entry, for every backend. They throw Error{KVASIR_ARGUMENT}.
#pragma once
#include <cstdint>
#include <vector>

#include "kv.h"
#include "tensor.h"

namespace kvasir {

// F32 [n, heads, headDim].
void check_queries(const Tensor& q);
// Queries fit the cache; scale and softcap are numbers.
void check_attention(const Tensor& q, const KvView& kv, float scale, float softcap);
// One query each of `count` caches of one type and shape, none of them empty: counts [count] segments of each, side by side in `segments`.
std::vector<KvView> check_attend_each(Table& table, const Tensor& out, const Tensor& q, const int32_t* segments, const int32_t* counts,
                                      int32_t count, int32_t window);
// o F32 [n, heads, headDim] and lse F32 [n, heads], shape [3].
void check_part(const Tensor& o, const Tensor& lse, const int32_t* shape);
// Ascending disjoint ranges inside the cache.
void check_spans(const KvView& kv, const int32_t* spans, int32_t count);

// Lists of hits: their tensors' shapes, and what is in them.
struct HitShape {
  int32_t rows, capacity;
};
HitShape check_hit_tensors(const Tensor& tokens, const Tensor& counts, const Tensor* bias, const KvView& kv, int32_t heads);
void check_hits(const HitShape& shape, const int32_t* tokens, const int32_t* counts, const float* bias, const KvView& kv);

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
PromptSink check_sink(Table& table, const KvView& kv, int32_t n, int32_t heads, int32_t every, kvasir_tensor tokens,
                      kvasir_tensor scores, kvasir_tensor sums);

}  // namespace kvasir
