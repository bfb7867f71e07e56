// The prefill core: many rows of one KV head's group against runs of keys, with products of 16-bit integers.
//
// Rows lie along the vector lanes, so softmax needs no horizontal step and keys stay row-major: scores of a tile are
// [keys][rows] = K [keys, d/2 pairs] broadcast · Qᵀ [d/2 pairs][rows], outputs [d][rows] = Vᵀ broadcast · P.
//
// What rounding costs is in attention_round.h.
//
// Ladder. Share of the vpdpwssd peak (AVX2: vpmaddwd + vpaddd), f16, d 64, 3 heads a group, 512 queries to 8192 keys;
// Sapphire Rapids vCPU on a shared machine, so: one thread, its CPU time, best of several; attention_bench.
//   - 8 keys by 48 rows in registers, tiles rounded by way of floats: 42 to 45 % of 175 GMAC/s
//   - tiles rounded where they lie, the next one prefetched, blocks of whole strips (256 rows wasted an eighth), loops
//     out of line (inlined, their indexes spilled): 63 to 67 %; d 256 60 %; AVX2 64 %
//   - lost: 32-row strips (16 accumulators), 5 % slower; prefetching outputs or queries of the next strip, no change
//   - beside it: the same by the range core in float, 36 GMAC/s; f32 multiply-adds peak at 82
#pragma once
#include <cstring>
#include <type_traits>

#include "attention.h"
#include "attention_elements.h"
#include "attention_round.h"
#include "kvasir_backend.h"

namespace kvasir {
namespace {

template <class V>
class PrefillCore {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int W = V::kWidth;
  static constexpr int kVectors = V::kTileVectors;
  static constexpr int kStrip = W * kVectors;  // rows of one register tile
  using Tile = RoundedTile<V>;
  static constexpr int kKeys = Tile::kKeys;
  static constexpr float kWeight = Tile::kWeight;

 public:
  static constexpr int32_t kRowUnit = kStrip;

  static size_t scratch_bytes(const AttentionShape& shape, int32_t rows) {
    Layout layout{};
    return layout.set(shape, rows, nullptr);
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

 private:
  struct Layout {
    size_t padded;  // head_dim as whole vectors and whole tiles of columns
    int32_t strips;
    int16_t* q;      // [strips][padded / 2][kStrip][2]
    float* o;        // [strips][padded][kStrip], relative to 2^max
    float* steps;    // [strips][kStrip] of q
    float* max;      // [strips][kStrip]
    float* sum;      // [strips][kStrip]
    int32_t* first;  // [strips][kStrip] visible positions, inclusive
    int32_t* last;
    Tile tile;
    float* scores;  // [kKeys][kStrip]; then weights int16 [kKeys / 2][kStrip][2] in the first half of each pair of rows

    size_t set(const AttentionShape& shape, int32_t rows, void* scratch) {
      const size_t unit = W > V::kTileKeys ? W : V::kTileKeys;
      padded = (static_cast<size_t>(shape.head_dim) + unit - 1) / unit * unit;
      strips = (rows + kStrip - 1) / kStrip;
      const size_t lanes = static_cast<size_t>(strips) * kStrip;
      size_t at = 0;
      const auto take = [&](auto*& p, size_t count) {
        p = scratch == nullptr
                ? nullptr
                : reinterpret_cast<std::remove_reference_t<decltype(p)>>(static_cast<char*>(scratch) + at);
        at += (count * sizeof(*p) + 63) / 64 * 64;
      };
      take(q, lanes * padded), take(o, lanes * padded), take(steps, lanes), take(max, lanes), take(sum, lanes);
      take(first, lanes), take(last, lanes), take(scores, kKeys * kStrip);
      at += tile.place(padded, scratch == nullptr ? nullptr : static_cast<char*>(scratch) + at);
      return at;
    }
  };

  template <class E>
  static void run(const AttentionShape& shape, const AttentionRows& rows, const KvRun* runs, int32_t run_count,
                  void* scratch) {
    Layout s{};
    s.set(shape, rows.rows(), scratch);
    open(s, shape, rows);
    const size_t d = static_cast<size_t>(shape.head_dim);
    for (int32_t i = 0; i < run_count; i++) {
      const KvRun& run = runs[i];
      for (int32_t at = 0; at < run.count; at += kKeys) {
        const int32_t count = run.count - at < kKeys ? run.count - at : kKeys;
        const int32_t start = run.position + at;
        // The next tile comes to L2 while this one is worked on.
        const bool more = at + kKeys < run.count;
        const KvRun& next = runs[more || i + 1 == run_count ? i : i + 1];
        const int32_t next_at = more ? at + kKeys : 0;
        const size_t ahead = i + 1 == run_count && !more ? 0 : tile_bytes<E>(next.count - next_at, d);
        const size_t skip = next_at * d * sizeof(typename E::T);
        Prefetch<2> keys_ahead{static_cast<const char*>(next.keys) + skip,
                               static_cast<const char*>(next.keys) + skip + ahead};
        Prefetch<2> values_ahead{static_cast<const char*>(next.values) + skip,
                                 static_cast<const char*>(next.values) + skip + ahead};
        bool loaded = false;
        for (int32_t strip = 0; strip < s.strips; strip++) {
          const Sight sight = sees(rows, strip, start, count);
          if (sight == Sight::kNothing) continue;
          if (!loaded) {
            s.tile.template load<E>(run, at, d, count);
            loaded = true;
          }
          attend_tile(s, shape, strip, start, count, sight);
          keys_ahead.advance(ahead / 3), values_ahead.advance(ahead / 3);
        }
      }
    }
    close(s, shape, rows);
  }

  template <class E>
  static size_t tile_bytes(int32_t count, size_t d) {
    return (count < kKeys ? count : kKeys) * d * sizeof(typename E::T);
  }

  enum class Sight { kNothing, kSome, kAll };

  static Sight sees(const AttentionRows& rows, int32_t strip, int32_t start, int32_t count) {
    const int32_t from = strip * kStrip / rows.group;
    const int32_t last_row = (strip + 1) * kStrip < rows.rows() ? (strip + 1) * kStrip - 1 : rows.rows() - 1;
    const int64_t low = int64_t{rows.position} + from, high = int64_t{rows.position} + last_row / rows.group;
    if (start > high || (rows.window > 0 && start + count - 1 <= low - rows.window)) return Sight::kNothing;
    const bool all = start + count - 1 <= low && (rows.window == 0 || start > high - rows.window) && count == kKeys;
    return all ? Sight::kAll : Sight::kSome;
  }

  static void open(Layout& s, const AttentionShape& shape, const AttentionRows& rows) {
    const size_t d = static_cast<size_t>(shape.head_dim), lanes = static_cast<size_t>(s.strips) * kStrip;
    std::memset(s.q, 0, lanes * s.padded * sizeof(int16_t));
    std::memset(s.o, 0, lanes * s.padded * sizeof(float));
    const float scale = shape.scale * kLog2e;
    for (size_t r = 0; r < lanes; r++) {
      s.max[r] = kNothing, s.sum[r] = 0.0f, s.steps[r] = 1.0f;
      s.first[r] = 0, s.last[r] = -1;  // padding sees nothing
      if (r >= static_cast<size_t>(rows.rows())) continue;
      const int64_t position = int64_t{rows.position} + r / rows.group;
      s.last[r] = static_cast<int32_t>(position);
      s.first[r] = rows.window > 0 && position >= rows.window ? static_cast<int32_t>(position - rows.window + 1) : 0;
      const float* q = rows.q + r / rows.group * rows.q_stride + r % rows.group * d;
      float* wide = s.tile.wide;
      for (size_t c = 0; c < s.padded; c++) wide[c] = c < d ? q[c] * scale : 0.0f;
      const float step = Tile::template step_of<ElementF32<V>>(wide, s.padded);
      s.steps[r] = step;
      int16_t rounded[W];
      int16_t* to = s.q + r / kStrip * kStrip * s.padded + r % kStrip * 2;
      const F inverse = V::set(1.0f / step);
      for (size_t c = 0; c < s.padded; c += W) {
        V::store_i16(rounded, V::round(V::mul(V::load(wide + c), inverse)));
        for (size_t j = 0; j < W; j += 2) std::memcpy(to + (c + j) * kStrip, rounded + j, 4);
      }
    }
  }

  static void attend_tile(const Layout& s, const AttentionShape& shape, int32_t strip, int32_t start, int32_t count,
                          Sight sight) {
    const size_t lane = static_cast<size_t>(strip) * kStrip;
    alignas(64) float top[kStrip], keep[kStrip], gain[kStrip];
    for (int32_t i = 0; i < kStrip; i++) top[i] = -__builtin_inff();
    const float limit = shape.softcap * kLog2e;
    for (int32_t k = 0; k < kKeys; k += V::kTileKeys) {
      if (shape.softcap != 0.0f) score<true, true>(s, lane, k, start, count, limit, top);
      else if (sight == Sight::kAll) score<false, false>(s, lane, k, start, count, limit, top);
      else score<true, false>(s, lane, k, start, count, limit, top);
    }
    weigh(s, lane, top, keep, gain);
    for (size_t c = 0; c < s.padded; c += V::kTileKeys) sum(s, lane, c, keep, gain);
  }

  // s.scores of kTileKeys keys: logarithms to base 2 of the weights times the rows' factors; top = max(top, scores).
  template <bool kMasked, bool kCapped>
  __attribute__((noinline)) static void score(const Layout& s, size_t lane, int32_t k, int32_t start, int32_t count,
                                              float limit, float* top) {
    constexpr int N = V::kTileKeys;
    const int16_t* q = s.q + lane * s.padded;
    const int16_t* keys = s.tile.keys + k * s.padded;
    I acc[N][kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) acc[i][v] = V::izero();
    for (size_t j = 0; j < s.padded; j += 2) {
      I b[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) b[v] = V::iload(q + j * kStrip + v * W * 2);
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) {
        const I a = V::pair(keys + i * s.padded + j);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) V::madd(acc[i][v], b[v], a);
      }
    }
    F best[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) best[v] = V::load(top + v * W);
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
      const F step = V::set(s.tile.key_steps[k + i]), log = V::set(s.tile.row_logs[k + i]);
      const int32_t position = k + i < count ? start + k + i : INT32_MAX;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) {
        F x = V::mul(V::to_float(acc[i][v]), step);
        if (kCapped) x = V::add(soft_cap<V>(V::mul(x, V::load(s.steps + lane + v * W)), limit), log);
        else x = V::fma(x, V::load(s.steps + lane + v * W), log);
        if (kMasked) x = V::visible(x, position, V::iload(s.first + lane + v * W), V::iload(s.last + lane + v * W));
        best[v] = V::max(best[v], x);
        V::store(s.scores + (k + i) * kStrip + v * W, x);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; v++) V::store(top + v * W, best[v]);
  }

  // Weights in place of s.scores; keep and gain are the factors of earlier outputs and of this tile's.
  __attribute__((noinline)) static void weigh(const Layout& s, size_t lane, const float* top, float* keep,
                                              float* gain) {
    for (int v = 0; v < kVectors; v++) {
      const size_t at = lane + v * W;
      const F tile_max = V::max(V::load(top + v * W), V::set(kNothing));
      const F old = V::load(s.max + at), max = V::max(old, tile_max);
      const F k = V::exp2(V::sub(old, max)), g = V::exp2(V::sub(tile_max, max));
      const F shift = V::sub(V::set(12.9998239f), tile_max);  // log2(8191)
      float* scores = s.scores + v * W;
      F even = V::zero(), odd = V::zero();
#pragma GCC unroll 2
      for (int32_t i = 0; i < kKeys; i += 2) {
        const F low = V::exp2_short(V::add(V::load(scores + i * kStrip), shift));
        const F high = V::exp2_short(V::add(V::load(scores + (i + 1) * kStrip), shift));
        even = V::fma(low, V::set(s.tile.row_inverse[i]), even);
        odd = V::fma(high, V::set(s.tile.row_inverse[i + 1]), odd);
        V::istore(scores + i * kStrip, V::pack_pairs(V::round(low), V::round(high)));
      }
      V::store(s.sum + at, V::fma(V::load(s.sum + at), k, V::mul(V::add(even, odd), g)));
      V::store(s.max + at, max);
      V::store(keep + v * W, k), V::store(gain + v * W, g);
    }
  }

  // o[c .. c + kTileKeys) = o · keep + gain · values · weights
  __attribute__((noinline)) static void sum(const Layout& s, size_t lane, size_t c, const float* keep,
                                            const float* gain) {
    constexpr int N = V::kTileKeys;
    const int16_t* values = s.tile.values + c * 2;
    I acc[N][kVectors];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) acc[i][v] = V::izero();
    for (int32_t k = 0; k < kKeys; k += 2, values += s.padded * 2) {
      I b[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) b[v] = V::iload(s.scores + k * kStrip + v * W);
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) {
        const I a = V::pair(values + i * 2);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) V::madd(acc[i][v], b[v], a);
      }
    }
    float* o = s.o + lane * s.padded + c * kStrip;
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
      const F step = V::set(s.tile.value_steps[c + i]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) {
        const F part = V::mul(V::mul(V::to_float(acc[i][v]), step), V::load(gain + v * W));
        float* to = o + i * kStrip + v * W;
        V::store(to, V::fma(V::load(to), V::load(keep + v * W), part));
      }
    }
  }

  static void close(const Layout& s, const AttentionShape& shape, const AttentionRows& rows) {
    const size_t d = static_cast<size_t>(shape.head_dim);
    for (int32_t r = 0; r < rows.rows(); r++) {
      float* out = rows.o + r / rows.group * rows.o_stride + r % rows.group * d;
      const float* o = s.o + r / kStrip * kStrip * s.padded + r % kStrip;
      const float inverse = s.sum[r] > 0.0f ? 1.0f / s.sum[r] : 0.0f;
      for (size_t c = 0; c < d; c++) out[c] = o[c * kStrip] * inverse;
      if (rows.lse != nullptr) {
        rows.lse[r] = s.sum[r] > 0.0f ? kLn2 * s.max[r] + __builtin_logf(s.sum[r] / kWeight) : -__builtin_inff();
      }
    }
  }
};

}  // namespace
}  // namespace kvasir
