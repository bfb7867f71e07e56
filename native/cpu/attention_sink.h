// The sink core: what sampled queries of a prompt look at, noted beside its attention.
//
// A pass of its own in float arithmetic, by the loops of the range core: the prefill core rounds to 16 bits, and ranks of
// keys that lie close together would be its own. `attention_bench sink` prints what it costs.
#pragma once
#include <algorithm>

#include "attention_range.h"

namespace kvasir {
namespace {

template <class V>
class SinkCore : private RangeCore<V> {
  using Base = RangeCore<V>;
  using typename Base::State;
  using F = typename V::F;
  static constexpr int W = V::kWidth;

 public:
  static size_t scratch_bytes(const AttentionShape& shape, int32_t rows) { return Base::scratch_bytes(shape, rows); }

  static void best(const AttentionShape& shape, const SinkRows& rows, const KvRun* runs, int32_t run_count, BestKeys* best,
                   void* scratch) {
    for (int32_t r = 0; r < rows.rows(); r++) best[r].clear();
    scan(shape, rows, runs, run_count, scratch, [&](int32_t r, const float* scores, int32_t position, int32_t count) {
      note(best[r], scores, position, count);
    });
    for (int32_t r = 0; r < rows.rows(); r++) best[r].settle();
  }

  static void sums(const AttentionShape& shape, const SinkRows& rows, const KvRun* runs, int32_t run_count, const float* lse,
                   float* sums, size_t stride, void* scratch) {
    scan(shape, rows, runs, run_count, scratch, [&](int32_t r, const float* scores, int32_t position, int32_t count) {
      float weights[kTile];
      const F shift = V::set(lse[r]);
      for (int32_t k = 0; k < count; k += W) V::store(weights + k, V::exp2(V::sub(V::load(scores + k), shift)));
      float* to = sums + static_cast<size_t>(r % rows.group) * stride + position;
      for (int32_t k = 0; k < count; k++) to[k] += weights[k];
    });
  }

 private:
  // visit(row, scores, position, count) of every tile and row: logarithms to base 2, -inf where a key is not seen.
  template <class Visit>
  static void scan(const AttentionShape& shape, const SinkRows& rows, const KvRun* runs, int32_t run_count, void* scratch,
                   Visit visit) {
    switch (shape.dtype) {
      case KVASIR_F32:
        return scan_type<ElementF32<V>>(shape, rows, runs, run_count, scratch, visit);
      case KVASIR_F16:
        return scan_type<ElementF16<V>>(shape, rows, runs, run_count, scratch, visit);
      default:
        return scan_type<ElementI8<V>>(shape, rows, runs, run_count, scratch, visit);
    }
  }

  template <class E, class Visit>
  static void scan_type(const AttentionShape& shape, const SinkRows& rows, const KvRun* runs, int32_t run_count, void* scratch,
                        Visit visit) {
    AttentionRows queries{};
    queries.q = rows.q, queries.q_stride = rows.q_stride, queries.group = rows.group, queries.count = rows.count;
    State s = Base::open(shape, queries, static_cast<float*>(scratch));
    s.codes = false;
    const size_t d = static_cast<size_t>(shape.head_dim);
    for (int32_t i = 0; i < run_count; i++) {
      for (int32_t at = 0; at < runs[i].count; at += kTile) {
        const int32_t count = std::min(runs[i].count - at, kTile);
        Prefetch<3> nothing{nullptr, nullptr};
        Base::template score_tile<E>(s, rows.rows(), static_cast<const typename E::T*>(runs[i].keys) + at * d, d, count, nothing);
        for (int32_t r = 0; r < rows.rows(); r++) {
          if (!finish(s.scores + r * kTile, shape, rows, r, runs[i], at, count)) continue;
          visit(r, s.scores + r * kTile, runs[i].position + at, count);
        }
      }
    }
  }

  // Scale, soft cap, sight. Returns whether row r sees any of the keys.
  static bool finish(float* score, const AttentionShape& shape, const SinkRows& rows, int32_t r, const KvRun& run, int32_t at,
                     int32_t count) {
    const int64_t position = int64_t{rows.position} + int64_t{r / rows.group} * rows.every, start = int64_t{run.position} + at;
    const int64_t end = std::min<int64_t>(position + 1 - start, count);
    const int64_t begin = rows.window > 0 ? std::max<int64_t>(position - rows.window + 1 - start, 0) : 0;
    if (begin >= end) return false;
    if (run.key_scales != nullptr) {
      for (int32_t k = 0; k < count; k++) score[k] *= run.key_scales[at + k];
    }
    if (shape.softcap != 0.0f) {
      for (int32_t k = 0; k < count; k += W) V::store(score + k, soft_cap<V>(V::load(score + k), shape.softcap * kLog2e));
    }
    std::fill(score, score + begin, -__builtin_inff());
    std::fill(score + end, score + kTile, -__builtin_inff());
    return true;
  }

  static void note(BestKeys& best, const float* scores, int32_t position, int32_t count) {
    for (int32_t k = 0; k < count && best.k > 0; k += W) {
      if (V::max_lane(V::load(scores + k)) <= best.threshold) continue;
      for (int32_t i = k; i < std::min(k + W, count); i++) {
        if (scores[i] > best.threshold) best.keep(scores[i], position + i);
      }
    }
    if (best.weighs) weigh(best, scores, count);
  }

  static void weigh(BestKeys& best, const float* scores, int32_t count) {
    F top = V::set(best.max), sum = V::zero();
    for (int32_t k = 0; k < count; k += W) top = V::max(top, V::load(scores + k));
    const float max = V::max_lane(top);
    for (int32_t k = 0; k < count; k += W) sum = V::add(sum, V::exp2(V::sub(V::load(scores + k), V::set(max))));
    float rescale[W];
    V::store(rescale, V::exp2(V::set(best.max - max)));
    best.sum = best.sum * rescale[0] + V::sum(sum);
    best.max = max;
  }
};

}  // namespace
}  // namespace kvasir
