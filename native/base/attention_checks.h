// The checks of every attention entry, for every backend. They throw Error{KVASIR_ARGUMENT}.
#pragma once
#include <cstdint>

#include "kv.h"
#include "tensor.h"

namespace kvasir {

// F32 [n, heads, headDim].
void check_queries(const Tensor& q);
// Queries fit the cache; scale and softcap are numbers.
void check_attention(const Tensor& q, const KvView& kv, float scale, float softcap);
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

}  // namespace kvasir
