// Attention over a layer's cache: plans launches of attention_tile.cuh and attention_plain.cuh and merges what they leave. Pointers
// are the device's; everything is checked already.
#pragma once
#include <cstdint>
#include <vector>

#include "attention_checks.h"
#include "device_scratch.h"
#include "key_segment.h"

namespace kvasir {

// A layer's cache and the queries that look at it.
struct Attention {
  int32_t dtype = 0, kv_heads = 0, head_dim = 0;
  int32_t start = 0, end = 0;          // positions
  std::vector<KeySegment> segments;    // in order, without gaps
  float scale = 1, softcap = 0;        // 0: none
  int32_t n = 0, heads = 0;
  const float* q = nullptr;            // [n, heads, head_dim]
  float* o = nullptr;                  // the same
  float* lse = nullptr;                // [n, heads], or null
};

struct HitLists {
  int32_t lists, capacity;
  const int32_t* tokens;  // [lists, capacity]
  const int32_t* counts;  // [lists]
  const float* biases;    // as tokens, or null
};

// Query i is at position end - n + i; window 0: none.
void attend_causal(DeviceScratch& work, const Attention& call, int32_t window);
// spans: ascending disjoint ranges of positions.
void attend_spans(DeviceScratch& work, const Attention& call, const int32_t* spans, int32_t count);
// n is 1, or every query has the same lists.
void attend_hits(DeviceScratch& work, const Attention& call, const HitLists& hits);

// What a prompt's sampled queries look at (attention_checks.h); its o and lse are not touched.
void fill_sink(DeviceScratch& work, const Attention& call, int32_t window, const PromptSink& sink);
// attend_causal and fill_sink: best keys without sums are noted by the tiles themselves, where there are tiles. found: beside work.
void attend_causal_sink(DeviceScratch& work, DeviceScratch& found, const Attention& call, int32_t window, const PromptSink& sink);

// The tiles' share of that (attention_best.cuh). In how many parts rows are attended to; 0 where not by tiles of many rows.
struct SampledKeys;
int32_t sampled_parts(Runtime& runtime, const Attention& call, int32_t window);
void attend_sampled(DeviceScratch& work, const Attention& call, int32_t window, const SampledKeys& sampled);

struct AttentionPart {
  float* o;
  float* lse;
};
// out.lse may be null; out may be one of the parts.
void merge_parts(DeviceScratch& work, const AttentionPart& out, const AttentionPart* parts, int32_t count, int32_t rows, int32_t d);

}  // namespace kvasir
