#include "flat_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "draw.h"
#include "kvasir_index.h"
#include "select.h"

namespace kvasir {

void FlatSearch::run(const FlatScope& scope, const Query& query, const Hits& hits, Report& report) {
  all_.resize(static_cast<size_t>(scope.shape->kv_heads));
  for (int32_t head = 0; head < scope.shape->kv_heads; head++) all_[static_cast<size_t>(head)] = head;
  run(scope, all_.data(), scope.shape->kv_heads, query, hits, report);
}

void FlatSearch::run(const FlatScope& scope, const int32_t* kv_heads, int32_t count, const Query& query, const Hits& hits,
                     Report& report) {
  if (count == 0) return;
  if (query.goal.kind == Goal::kError) {
    sample_by_error(*scope.environment, *scope.shape, *scope.codes, *scope.rows, scope.keys, kv_heads, count, query, hits, report);
    return;
  }
  s_ = scope;
  prepared_.resize(std::max(prepared_.size(), static_cast<size_t>(count)));
  reports_.resize(std::max(reports_.size(), static_cast<size_t>(count * scope.shape->group())));
  const int32_t group = s_.shape->group(), threads = s_.environment->pool->threads();
  const bool certified = !query.goal.sample_tail, priority = !certified;
  const size_t stride = static_cast<size_t>(s_.keys + kBlockKeys - 1) / kBlockKeys * kBlockKeys;
  // Scores of all heads, noise by KV head, then each worker's selection.
  const size_t scores_floats = stride * static_cast<size_t>(count * group);
  const size_t noise_floats = priority ? stride * static_cast<size_t>(count) : 0;
  const size_t work_floats = SelectWork::floats(s_.keys) + (priority ? stride : 0);
  float* const scores = static_cast<float*>((*s_.environment->scratch)[0].get(
      sizeof(float) * (scores_floats + noise_floats + work_floats * static_cast<size_t>(threads) + 16)));
  float* const noise = scores + scores_floats;
  float* const work = noise + noise_floats;

  for (int32_t i = 0; i < count; i++) {
    const int32_t head = kv_heads[i];
    const float* q = query.q + static_cast<size_t>(head * group) * static_cast<size_t>(s_.shape->head_dim);
    s_.codes->prepare(prepared_[static_cast<size_t>(i)], head, q, group, s_.shape->scale, certified ? 2 : 1,
                   certified ? Codes::kUpper : Codes::kPlain);
  }
  // Ranges of whole chunks, a few for each worker.
  const int32_t chunks = s_.codes->chunks(), wanted = threads == 1 ? 1 : (4 * threads + count - 1) / count;
  const int32_t pieces = std::max(1, std::min(chunks, wanted));
  s_.environment->pool->run(count * pieces, [&](int32_t task, int) {
    const int32_t i = task / pieces, piece = task % pieces;
    const int32_t from = std::min(s_.keys, chunks * piece / pieces * Codes::kChunkKeys);
    const int32_t to = std::min(s_.keys, chunks * (piece + 1) / pieces * Codes::kChunkKeys);
    float* out = scores + static_cast<size_t>(i * group) * stride + from;
    s_.codes->score_all(prepared_[static_cast<size_t>(i)], *s_.rows, from, to, out, stride);
    if (s_.shape->softcap > 0 && !certified) soften(out, to - from, stride);
    if (priority) {
      const uint32_t key = draw_key(query.goal.draw, kv_heads[i]);
      s_.environment->isa->select->draw_noise(noise + static_cast<size_t>(i) * stride + from, key, s_.codes->begin() + from,
                                           (to - from + kBlockKeys - 1) / kBlockKeys * kBlockKeys);
    }
  });
  s_.environment->pool->run(count * group, [&](int32_t task, int worker) {
    const int32_t i = task / group, row = kv_heads[i] * group + task % group;
    float* const own = work + static_cast<size_t>(worker) * work_floats;
    const float* s = scores + static_cast<size_t>(task) * stride;
    Report& done = reports_[static_cast<size_t>(task)] = Report();
    if (certified) top(query, hits, row, s, own, done);
    else draw_best(query, hits, row, s, noise + static_cast<size_t>(i) * stride, own, stride, done);
  });
  double read_whole = 0;
  if (certified) read_whole = scan_undecided(kv_heads, count, query, hits, scores, stride, work, work_floats);
  for (int32_t row = 0; row < count * group; row++) {
    report.keys_kept += reports_[static_cast<size_t>(row)].keys_kept;
    report.bytes_read += reports_[static_cast<size_t>(row)].bytes_read;
  }
  const double keys = static_cast<double>(s_.keys) * count;
  report.keys_scored += keys + read_whole;
  report.bytes_read += read_whole * row_bytes();
  report.bytes_read += keys * (s_.codes->kind() == Codes::kNone ? row_bytes() : s_.codes->key_bytes() + (certified ? 2 : 0));
}

// Heads whose bounds decide too little (4-bit codes of wide heads) are answered from their rows, the group in one pass.
double FlatSearch::scan_undecided(const int32_t* kv_heads, int32_t count, const Query& query, const Hits& hits, float* scores,
                                  size_t stride, float* work, size_t work_floats) {
  const int32_t group = s_.shape->group();
  undecided_.clear();
  for (int32_t i = 0; i < count; i++) {
    bool any = false;
    for (int32_t g = 0; g < group; g++) any = any || reports_[static_cast<size_t>(i * group + g)].keys_kept < 0;
    if (any) undecided_.push_back(i);
  }
  if (undecided_.empty()) return 0;
  const int32_t heads = static_cast<int32_t>(undecided_.size());
  const int32_t pieces = (s_.keys + Codes::kChunkKeys - 1) / Codes::kChunkKeys;
  s_.environment->pool->run(heads * pieces, [&](int32_t task, int) {
    const int32_t i = undecided_[static_cast<size_t>(task / pieces)], from = task % pieces * Codes::kChunkKeys;
    s_.codes->score_exact(prepared_[static_cast<size_t>(i)], *s_.rows, from, std::min(s_.keys, from + Codes::kChunkKeys),
                          scores + static_cast<size_t>(i * group) * stride + from, stride);
  });
  s_.environment->pool->run(heads * group, [&](int32_t task, int worker) {
    const int32_t i = undecided_[static_cast<size_t>(task / group)], g = task % group;
    Report& done = reports_[static_cast<size_t>(i * group + g)];
    if (done.keys_kept >= 0) return;
    const SelectWork own(work + static_cast<size_t>(worker) * work_floats, s_.keys);
    const int32_t k = select_best(*s_.environment->isa->select, scores + static_cast<size_t>(i * group + g) * stride, s_.keys,
                                  static_cast<int32_t>(query.goal.value), own);
    give(hits, kv_heads[i] * group + g, own.ids, k, done);
  });
  return static_cast<double>(heads) * s_.keys;
}

void FlatSearch::give(const Hits& hits, int32_t row, const int32_t* ids, int32_t k, Report& report) const {
  for (int32_t i = 0; i < std::min(k, hits.capacity); i++) put(hits, row, i, ids[i], 0);
  hits.counts[row] = k;
  hits.errors[row] = std::numeric_limits<float>::quiet_NaN();
  report.keys_kept = k;
}

double FlatSearch::row_bytes() const {
  return s_.rows->segments().empty() ? 0 : static_cast<double>(s_.rows->segments().front()->row_bytes());
}

void FlatSearch::soften(float* scores, int32_t count, size_t stride) const {
  for (int32_t g = 0; g < s_.shape->group(); g++) {
    float* s = scores + static_cast<size_t>(g) * stride;
    for (int32_t i = 0; i < count; i++) s[i] = s_.shape->softcap * std::tanh(s[i] / s_.shape->softcap);
  }
}

// The best `value` keys; among equals those of lower position.
void FlatSearch::top(const Query& query, const Hits& hits, int32_t row, const float* scores, float* memory, Report& report) const {
  const SelectKernels& kernels = *s_.environment->isa->select;
  const SelectWork work(memory, s_.keys);
  const int32_t wanted = static_cast<int32_t>(query.goal.value), head = row / s_.shape->group();
  const float* q = query.q + static_cast<size_t>(row) * static_cast<size_t>(s_.shape->head_dim);
  int32_t rescored = 0, k;
  if (s_.codes->kind() == Codes::kNone) {
    k = select_best(kernels, scores, s_.keys, wanted, work);
  } else {
    k = select_certified(kernels, scores, s_.keys, wanted, work,
                         [&](float* out, const int32_t* ids, int32_t count) { rescore(out, q, head, ids, count); },
                         &rescored, std::max(1024, s_.keys / 4));
  }
  report.bytes_read = rescored * row_bytes();
  if (k < 0) report.keys_kept = -1;
  else give(hits, row, work.ids, k, report);
}

// Exact scores of keys `ids`, ascending.
void FlatSearch::rescore(float* out, const float* q, int32_t head, const int32_t* ids, int32_t count) const {
  for (int32_t i = 0; i < count;) {
    const Segment& s = s_.rows->find(s_.codes->begin() + ids[i]);
    const int32_t end = s.start() + s.capacity() - s_.codes->begin(), offset = s_.codes->begin() - s.start();
    const int32_t n = static_cast<int32_t>(std::lower_bound(ids + i, ids + count, end) - (ids + i));
    s_.environment->isa->select->rescore(out + i, q, s.key(head, 0), s.dtype(), s_.shape->head_dim, offset, ids + i, n);
    for (int32_t j = i; j < i + n; j++) {
      out[j] = out[j] * s_.shape->scale * s.key_scale(head, ids[j] + offset);
      if (!std::isfinite(out[j])) out[j] = s_.rows->logit(head, s_.codes->begin() + ids[j], q, s_.shape->scale);
    }
    i += n;
  }
}

// Priority sampling (Duffield, Lund, Thorup 2007): the K best s - ln u, weights relative to the next one.
void FlatSearch::draw_best(const Query& query, const Hits& hits, int32_t row, const float* scores, const float* noise, float* memory,
                 size_t stride, Report& report) const {
  const SelectKernels& kernels = *s_.environment->isa->select;
  const int32_t k = std::min(s_.keys, static_cast<int32_t>(query.goal.value));
  float* const priorities = memory;
  const SelectWork work(memory + stride, s_.keys);
  kernels.add(priorities, scores, noise, static_cast<int32_t>(stride));
  const int32_t found = select_best(kernels, priorities, s_.keys, k + 1, work);
  int32_t next = -1;  // the K + 1st: the least, the highest position of equals
  if (found > k) {
    next = 0;
    for (int32_t i = 1; i < found; i++) {
      if (priorities[work.ids[i]] <= priorities[work.ids[next]]) next = i;
    }
  }
  int32_t kept = 0;
  for (int32_t i = 0; i < found; i++) {
    if (i == next) continue;
    const int32_t at = work.ids[i];
    put(hits, row, kept++, at, next < 0 ? 0 : std::max(0.0f, priorities[work.ids[next]] - scores[at]));
  }
  hits.counts[row] = kept;
  hits.errors[row] = std::numeric_limits<float>::quiet_NaN();
  report.keys_kept = kept;
}

void FlatSearch::put(const Hits& hits, int32_t row, int32_t at, int32_t i, float bias) const {
  if (at >= hits.capacity) return;
  const size_t to = static_cast<size_t>(row) * static_cast<size_t>(hits.capacity) + static_cast<size_t>(at);
  hits.tokens[to] = s_.codes->begin() + i;
  hits.bias[to] = bias;
}

}  // namespace kvasir
