// Exact attention: what the instruction sets implement (AttentionKernels) and the plan that calls them (attention.cc).
#pragma once
#include <cstddef>
#include <cstdint>

#include "kv.h"

namespace kvasir {

// Queries of the heads of one group. Row r = (query r / group, head r % group) lies at
// (r / group) * stride + (r % group) * headDim in q and, with its own stride, in o.
struct AttentionRows {
  const float* q;
  size_t q_stride;  // floats between queries
  float* o;         // written: the softmax-weighted mean of the visible values
  size_t o_stride;
  float* lse;        // written: [rows] natural log of the sum of exponentials behind o; null when not wanted
  float* sums;       // written in its place, range cores only: see AttentionParts, as which o is left, too
  int32_t group;     // heads that share the KV head
  int32_t count;     // queries
  int32_t position;  // of the first query; the others follow
  int32_t window;    // query p sees keys in (p - window, p]; 0 = [0, p]
  KvRun next;        // what this thread looks at next, fetched on the way; count 0: unknown
  bool fetched;      // the first keys were the `next` of the call before
  int32_t rows() const { return count * group; }
};

// What rows have of each of several ranges of keys. o [ranges, rows, headDim]: sums of 2^(score - max) value; sums
// [ranges, rows, 2]: max, the greatest score to base 2, and the sum of 2^(score - max), 0 without keys.
struct AttentionParts {
  static constexpr int32_t kMost = 64;  // ranges

  float* o;
  float* sums;
  int32_t ranges;
  size_t rows;
};

struct AttentionShape {
  int32_t dtype;  // of keys and values: KVASIR_F32, KVASIR_F16, KVASIR_I8
  int32_t head_dim;
  float scale;    // on q·k
  float softcap;  // 0 = none
};

// One core: rows against the keys of runs, one pass, online softmax (Milakov & Gimelshein 2018; FlashAttention-2 for
// tiles). A row that sees no key gets o = 0 and lse = -inf. scratch: 64-byte aligned, of scratch_bytes.
struct AttentionCore {
  void (*attend)(const AttentionShape& shape, const AttentionRows& rows, const KvRun* runs, int32_t run_count,
                 void* scratch);
  size_t (*scratch_bytes)(const AttentionShape& shape, int32_t rows);
  int32_t row_unit;  // rows are worked on in multiples of this
};

// Single rows of one KV head, wherever they lie. segments: everything the cache holds of the head, in order, without gaps.
struct KvGather {
  const KvRun* segments;
  int32_t segment_count;
  const int32_t* tokens;  // [count] positions inside the segments
  const float* bias;      // [count], added to the logits; null: none
  int32_t count;
  bool fetched;  // it was the `next` of the call before
  bool to_l1;    // the caches of this CPU want all of it asked for to L1
};

// The range core over gathered rows; positions and window of `rows` do not matter. next: what the same thread gathers after
// this, whose rows are asked for; null: unknown.
struct AttentionGather {
  void (*attend)(const AttentionShape& shape, const AttentionRows& rows, const KvGather& gather, const KvGather* next,
                 void* scratch);
  size_t (*scratch_bytes)(const AttentionShape& shape, int32_t rows);
};

// Every `every`-th query of a prompt: rows as of AttentionRows, query i at position + i * every.
struct SinkRows {
  const float* q;
  size_t q_stride;
  int32_t group;
  int32_t count;
  int32_t position;
  int32_t every;
  int32_t window;
  int32_t rows() const { return count * group; }
};

// The k best keys of one row, and its log-sum-exp, while keys pass by in order of position. Scores are to base 2.
struct BestKeys {
  struct Key {
    float score;
    int32_t position;
  };
  static size_t capacity(int32_t k) { return k == 0 ? 0 : 2 * static_cast<size_t>(k) + 64; }

  Key* keys;  // [capacity(k)]; after settle() the first `count` are the best, best first, of equals the earlier
  int32_t k;
  int32_t count;
  float threshold;
  bool weighs;  // max and sum are wanted
  float max;
  float sum;

  void clear();
  void keep(float score, int32_t position);
  void settle();
  float lse() const;  // to base 2

 private:
  void compact();
};

// What sampled queries look at. best: rows() of them are filled. sums [group, stride] += weights 2^(score - lse) of the
// rows of a head on each position; lse [rows()], to base 2.
struct AttentionSink {
  void (*best)(const AttentionShape& shape, const SinkRows& rows, const KvRun* runs, int32_t run_count, BestKeys* best,
               void* scratch);
  void (*sums)(const AttentionShape& shape, const SinkRows& rows, const KvRun* runs, int32_t run_count, const float* lse,
               float* sums, size_t stride, void* scratch);
  size_t (*scratch_bytes)(const AttentionShape& shape, int32_t rows);
};

struct AttentionKernels {
  AttentionCore range;    // float arithmetic: decode, and prefill of f32 caches
  AttentionCore prefill;  // 16-bit integer products, for many rows of f16 and i8 caches; all null where there is none
  AttentionGather gather;  // float arithmetic, retrieved keys
  AttentionSink sink;      // float arithmetic, beside a prompt's attention
  // o [rows, headDim] of `rows` rows of parts from number `row` on, ranges in order; lse [rows], or null. o = 0, lse = -inf without keys.
  void (*merge)(const AttentionParts& parts, size_t row, int32_t rows, size_t d, float* o, float* lse);
  // Converts rows of head_dim floats, src_stride apart, to dense dst [rows, head_dim] of dtype; scales [rows] for I8.
  void (*store_rows)(int32_t dtype, void* dst, float* scales, const float* src, size_t src_stride, int32_t rows,
                     int32_t head_dim);
};

extern const AttentionKernels kAttentionAvx512, kAttentionAvx2, kAttentionPortable;

}  // namespace kvasir
