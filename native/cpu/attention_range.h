// The range core: rows of one KV head's group against runs of keys, in float arithmetic, for any head size and type.
//
// Memory decides here: keys and values are read once for all rows. A tile of keys is scored while its values are on
// their way to the cache, and its values are summed while the next keys are. Rows beyond eight, and head sizes that
// are no multiple of the vector, go through a tile widened to float in L1.
//
// Ladder. Sapphire Rapids vCPU on a shared machine, so: one thread, its CPU time, attention_bench with 8192 keys cold,
// against a plain read loop beside it (software prefetch can beat that); "hot" is 1024 keys in L2.
//   - four keys a step, values prefetched under keys and back: f16 d 64 x 3 heads 107 %, d 256 x 4 98 %; 20 GB/s hot
//   - tiles of 8 KB instead of 64 keys: d 256 109 %, d 128 104 % (from 96 %), f32 113 %
//   - AVX2: four heads by two keys instead of a widened tile: d 256 x 4 heads hot, 8.4 to 12 GB/s
//   - int8 by integer products (attention_codes.h): hot 10 to 13.5 GB/s, cold 100 % (from 83 %)
//   - ranges of 128 keys of short caches (8 x 660 keys, cold): the first tile of a range is fetched by the range before it, or
//     while queries are made ready: 9.0 to 10.3 GB/s beside reads of 11 to 13
//   - neighbouring tasks go to one thread, and the last range of each fetches the first tile of the next: 8 caches of 850 keys .87,
//     one .94 (AMD Zen 5, two threads)
//   - fetched to L1: .89 on Zen 5; on Sapphire Rapids, where few buffers hold lines on their way to L1, to L2 alone was .96
//   - sums of sixteen keys stored at once, tiles asked for by whole steps without counting: 14 % hot (Zen 5: 6.9 to 5.9 ns for a key of
//     three heads, d 64); cold as before, at 80 % of what one thread reads
//   - AVX2, Zen 3: sums of three heads over three vectors of values in place of four, and one head's query left in memory, as gcc spilled what
//     took all 16 registers: hot .86. int8 by four keys a step, scales read where they lie: .8 (three heads, d 64) to .95
//   - lost: a whole tile of keys and values ahead, no change; 128 keys a tile for int8, 4 % hot, not worth the scratch
#pragma once
#include <cstring>
#include <type_traits>

#include "attention.h"
#include "attention_codes.h"
#include "attention_elements.h"
#include "attention_floats.h"
#include "kvasir_backend.h"

namespace kvasir {
namespace {

template <class V>
class RangeCore {
  using F = typename V::F;
  static constexpr int W = V::kWidth;

 public:
  static size_t scratch_bytes(const AttentionShape& shape, int32_t rows) {
    const size_t width = padded(shape.head_dim), r = static_cast<size_t>(rows);
    return sizeof(float) * (2 * r * width + kTile * width + r * (kTile + 8) + 2 * kTile + 64) +
           sizeof(int16_t) * r * (width + kTile);
  }

  static void attend(const AttentionShape& shape, const AttentionRows& rows, const KvRun* runs, int32_t run_count,
                     void* scratch) {
    switch (shape.dtype) {
      case KVASIR_F32:
        return run<ElementF32<V>>(shape, rows, runs, run_count, scratch);
      case KVASIR_F16:
        return run<ElementF16<V>>(shape, rows, runs, run_count, scratch);
      default:
        return run<ElementI8<V>>(shape, rows, runs, run_count, scratch);
    }
  }

 protected:
  struct State {
    size_t width;           // head_dim padded to whole vectors
    float* q;               // [rows, width], scaled so that scores are logarithms to base 2
    float* o;               // [rows, width], relative to 2^max
    float* wide;            // [kTile, width], a tile as floats
    float* scores;          // [rows, kTile]
    float* max;             // [rows]
    float* sum;             // [rows]
    float* rescale;         // [rows]
    float* query_steps;     // [rows], 1 unless codes
    float* gain;            // [rows] of code_weights
    int16_t* code_q;        // [rows, width], only with codes
    int16_t* code_weights;  // [rows, kTile]
    bool codes;             // int8 by integer products
    float* key_scales;      // [kTile]
    float* value_scales;    // [kTile]
  };

  static size_t padded(int32_t head_dim) { return (static_cast<size_t>(head_dim) + W - 1) / W * W; }

  template <class E>
  static void run(const AttentionShape& shape, const AttentionRows& rows, const KvRun* runs, int32_t run_count,
                  void* scratch) {
    const size_t d = static_cast<size_t>(shape.head_dim);
    // 8 KB of keys, 8 KB of values and what comes next share L1 with the outputs (16 KB: 8 % slower).
    const size_t fit = 8192 / (d * sizeof(typename E::T));
    const int32_t tile = fit >= 64 ? 64 : fit >= 32 ? 32 : 16;
    if (run_count > 0 && !rows.fetched) {
      // Nobody has asked for the first keys yet: all at once, while queries are made ready.
      const char* first = static_cast<const char*>(runs[0].keys);
      const size_t bytes = (runs[0].count < tile ? runs[0].count : tile) * d * sizeof(typename E::T);
      for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(first + at, 0, 3);
    }
    const State s = open(shape, rows, static_cast<float*>(scratch));
    for (int32_t i = 0; i < run_count; i++) {
      const KvRun& run = runs[i];
      for (int32_t at = 0; at < run.count; at += tile) {
        const int32_t count = run.count - at < tile ? run.count - at : tile;
        const typename E::T* keys = static_cast<const typename E::T*>(run.keys) + at * d;
        const typename E::T* values = static_cast<const typename E::T*>(run.values) + at * d;
        const size_t bytes = count * d * sizeof(typename E::T);
        Prefetch<3> values_ahead{reinterpret_cast<const char*>(values), reinterpret_cast<const char*>(values) + bytes};
        Prefetch<3> keys_ahead{reinterpret_cast<const char*>(keys) + bytes,
                               reinterpret_cast<const char*>(keys) + bytes};
        if (at + tile < run.count) {
          keys_ahead.end += (run.count - at - tile < tile ? run.count - at - tile : tile) * d * sizeof(typename E::T);
        } else if (i + 1 < run_count) {
          const size_t next = runs[i + 1].count < tile ? runs[i + 1].count : tile;
          keys_ahead.next = static_cast<const char*>(runs[i + 1].keys);
          keys_ahead.end = keys_ahead.next + next * d * sizeof(typename E::T);
        } else if (rows.next.count > 0) {
          const size_t next = rows.next.count < tile ? rows.next.count : tile;
          keys_ahead.next = static_cast<const char*>(rows.next.keys);
          keys_ahead.end = keys_ahead.next + next * d * sizeof(typename E::T);
        }
        score_tile<E>(s, rows.rows(), keys, d, count, values_ahead);
        weigh(s, shape, rows, run, at, count, nullptr);
        sum_tile<E>(s, rows.rows(), values, d, count, keys_ahead);
        keys_ahead.finish();
      }
    }
    close(s, shape, rows);
  }

  // Widening a tile costs more than converting it twice.
  template <class E>
  static bool direct(int32_t n, size_t d) {
    return d % W == 0 && (n <= 8 || std::is_same_v<typename E::T, float>);
  }

  template <class E, class Ahead>
  static void score_tile(const State& s, int32_t n, const typename E::T* keys, size_t d, int32_t count,
                         Ahead& ahead) {
    if constexpr (V::kIntegers && sizeof(typename E::T) == 1) {
      if (s.codes) return score_rows<E, true>(s, n, keys, count, ahead);
    }
    if (direct<E>(n, d)) return score_rows<E, false>(s, n, keys, count, ahead);
    widen<E>(s, keys, d, count, ahead);
    score_rows<ElementF32<V>, false>(s, n, s.wide, count, ahead);
  }

  template <class E, class Ahead>
  static void sum_tile(const State& s, int32_t n, const typename E::T* values, size_t d, int32_t count,
                       Ahead& ahead) {
    if constexpr (V::kIntegers && sizeof(typename E::T) == 1) {
      if (s.codes) return sum_rows<E, true>(s, n, values, count, ahead);
    }
    if (direct<E>(n, d)) return sum_rows<E, false>(s, n, values, count, ahead);
    widen<E>(s, values, d, count, ahead);
    sum_rows<ElementF32<V>, false>(s, n, s.wide, count, ahead);
  }

  static State open(const AttentionShape& shape, const AttentionRows& rows, float* at) {
    const size_t n = static_cast<size_t>(rows.rows()), d = static_cast<size_t>(shape.head_dim),
                 width = padded(shape.head_dim);
    State s{};
    s.width = width;
    const auto take = [&at](size_t count) {
      float* p = at;
      at += count;
      return p;
    };
    s.q = take(n * width), s.o = take(n * width), s.wide = take(kTile * width), s.scores = take(n * kTile);
    s.key_scales = take(kTile), s.value_scales = take(kTile);
    s.max = take(n), s.sum = take(n), s.rescale = take(n), s.query_steps = take(n), s.gain = take(n);
    s.code_q = reinterpret_cast<int16_t*>(at), s.code_weights = s.code_q + n * width;
    s.codes = V::kIntegers && shape.dtype == KVASIR_I8 && d % (2 * W) == 0;
    const float scale = shape.scale * kLog2e;
    for (size_t r = 0; r < n; r++) {
      const float* q = rows.q + r / rows.group * rows.q_stride + r % rows.group * d;
      for (size_t c = 0; c < width; c++) s.q[r * width + c] = c < d ? q[c] * scale : 0.0f;
      s.max[r] = kNothing, s.sum[r] = 0.0f, s.query_steps[r] = 1.0f;
      if constexpr (V::kIntegers) {
        if (s.codes) s.query_steps[r] = CodeLoops<V>::round_query(s.code_q + r * width, s.q + r * width, width);
      }
    }
    std::memset(s.o, 0, n * width * sizeof(float));
    return s;
  }

  static void close(const State& s, const AttentionShape& shape, const AttentionRows& rows) {
    const size_t d = static_cast<size_t>(shape.head_dim);
    for (int32_t r = 0; r < rows.rows(); r++) {
      float* out = rows.o + r / rows.group * rows.o_stride + r % rows.group * d;
      const float* o = s.o + r * s.width;
      if (rows.sums != nullptr) {
        std::memcpy(out, o, d * sizeof(float));
        rows.sums[2 * r] = s.max[r], rows.sums[2 * r + 1] = s.sum[r];
        continue;
      }
      const float inverse = s.sum[r] > 0.0f ? 1.0f / s.sum[r] : s.sum[r] == 0.0f ? 0.0f : s.sum[r];
      for (size_t c = 0; c < d; c++) out[c] = o[c] * inverse;
      if (rows.lse != nullptr) {
        rows.lse[r] = s.sum[r] == 0.0f ? -__builtin_inff() : kLn2 * s.max[r] + __builtin_logf(s.sum[r]);
      }
    }
  }

  // [count, d] of any type → s.wide [count, width], zeros behind d.
  template <class E, class Ahead>
  static void widen(const State& s, const typename E::T* from, size_t d, int32_t count, Ahead& ahead) {
    for (int32_t k = 0; k < count; k++) {
      widen_row<V, E>(s.wide + k * s.width, from + k * d, d, s.width);
      ahead.advance(d * sizeof(typename E::T));
    }
  }

  template <class E, bool kCodes, class Keys, class Ahead>
  static void score_rows(const State& s, int32_t n, Keys keys, int32_t count, Ahead& ahead) {
    int32_t r = 0;
    for (; n - r >= 4; r += 4) score<E, kCodes, 4>(s, r, keys, count, ahead);
    if (n - r == 3) score<E, kCodes, 3>(s, r, keys, count, ahead);
    if (n - r == 2) score<E, kCodes, 2>(s, r, keys, count, ahead);
    if (n - r == 1) score<E, kCodes, 1>(s, r, keys, count, ahead);
  }

  // scores[r..r+R, 0..count) = q · k.
  template <class E, bool kCodes, int R, class Keys, class Ahead>
  static void score(const State& s, int32_t r, Keys keys, int32_t count, Ahead& ahead) {
    if constexpr (kCodes) {
      CodeLoops<V>::template score<R>(s.scores + r * kTile, s.code_q + r * s.width, keys, s.width, count, ahead);
    } else {
      FloatLoops<V>::template score<E, R>(s.scores + r * kTile, s.q + r * s.width, keys, s.width, count, ahead);
    }
  }

  // Scores become weights 2^(score - max); the maximum, the sum and the factor for what was summed before move along.
  // bias [count] is added to the logits; may be null.
  static void weigh(const State& s, const AttentionShape& shape, const AttentionRows& rows, const KvRun& run,
                    int32_t at, int32_t count, const float* bias) {
    const int32_t whole = (count + W - 1) / W * W;
    const bool scaled = run.key_scales != nullptr;
    const float* key_scales = scaled ? run.key_scales + at : nullptr;
    const float* value_scales = scaled ? run.value_scales + at : nullptr;
    if (scaled && count < whole) {
      std::memset(s.key_scales + count, 0, sizeof(float) * (whole - count));
      std::memset(s.value_scales + count, 0, sizeof(float) * (whole - count));
      key_scales = static_cast<const float*>(std::memcpy(s.key_scales, key_scales, sizeof(float) * count));
      value_scales = static_cast<const float*>(std::memcpy(s.value_scales, value_scales, sizeof(float) * count));
    }
    const int32_t start = run.position + at;
    for (int32_t r = 0; r < rows.rows(); r++) {
      float* score = s.scores + r * kTile;
      if (scaled) {
        for (int32_t k = 0; k < whole; k += W) {
          V::store(score + k, V::mul(V::mul(V::load(score + k), V::set(s.query_steps[r])), V::load(key_scales + k)));
        }
      }
      if (shape.softcap != 0.0f) {
        for (int32_t k = 0; k < whole; k += W)
          V::store(score + k, soft_cap<V>(V::load(score + k), shape.softcap * kLog2e));
      }
      for (int32_t k = 0; bias != nullptr && k < count; k++) score[k] += bias[k] * kLog2e;
      const int64_t position = static_cast<int64_t>(rows.position) + r / rows.group;
      const int64_t above = position + 1 - start;  // first hidden key of the tile
      const int64_t below = rows.window > 0 ? position - rows.window + 1 - start : 0;
      const int32_t end = above < count ? above < 0 ? 0 : static_cast<int32_t>(above) : count;
      const int32_t begin = below < 0 ? 0 : below < whole ? static_cast<int32_t>(below) : whole;
      for (int32_t k = 0; k < begin; k++) score[k] = -__builtin_inff();
      for (int32_t k = end; k < whole; k++) score[k] = -__builtin_inff();
      F top = V::set(s.max[r]);
      for (int32_t k = 0; k < whole; k += W) top = V::max(top, V::load(score + k));
      const float max = V::max_lane(top);
      const F shift = V::set(max);
      F sum = V::zero();
      for (int32_t k = 0; k < whole; k += W) {
        const F p = V::exp2(V::sub(V::load(score + k), shift));
        sum = V::add(sum, p);
        V::store(score + k, scaled ? V::mul(p, V::load(value_scales + k)) : p);
      }
      if constexpr (V::kIntegers) {
        if (s.codes) s.gain[r] = CodeLoops<V>::round_weights(s.code_weights + r * kTile, score, whole);
      }
      float factor[W];
      V::store(factor, V::exp2(V::set(s.max[r] - max)));
      s.rescale[r] = factor[0];
      s.sum[r] = s.sum[r] * factor[0] + V::sum(sum);
      s.max[r] = max;
    }
  }

  template <class E, bool kCodes, class Values, class Ahead>
  static void sum_rows(const State& s, int32_t n, Values values, int32_t count, Ahead& ahead) {
    int32_t r = 0;
    for (; n - r >= 4; r += 4) sum<E, kCodes, 4>(s, r, values, count, ahead);
    if (n - r == 3) sum<E, kCodes, 3>(s, r, values, count, ahead);
    if (n - r == 2) sum<E, kCodes, 2>(s, r, values, count, ahead);
    if (n - r == 1) sum<E, kCodes, 1>(s, r, values, count, ahead);
  }

  // o[r..r+R] = o · rescale + weights · values, up to four vectors of columns at a time.
  template <class E, bool kCodes, int R, class Values, class Ahead>
  static void sum(const State& s, int32_t r, Values values, int32_t count, Ahead& ahead) {
    if constexpr (kCodes) {
      CodeLoops<V>::template sum<R>(s.o + r * s.width, s.code_weights + r * kTile, s.rescale + r, s.gain + r, values,
                                    s.width, count, ahead);
    } else {
      FloatLoops<V>::template sum<E, R>(s.o + r * s.width, s.scores + r * kTile, s.rescale + r, values, s.width, count, ahead);
    }
  }
};

}  // namespace
}  // namespace kvasir
