// As in attention_plan.cc, tasks are (KV head, block of queries, range of keys) with borders that depend on shapes and
// counts only, and partial results are merged in order: the same call gives the same bits on any pool.
#include "attention_parts.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "context.h"
#include "cpu_features.h"
#include "isa.h"

namespace kvasir {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// o [d] from parts of one row; weights: their log-sum-exp, changed. Returns the log-sum-exp of all. o may be a part.
float merge_row(float* o, const float* const* parts, float* weights, int32_t count, size_t d) {
  float max = kNone, sum = 0;
  for (int32_t p = 0; p < count; p++) max = weights[p] <= max ? max : weights[p];  // NaN stays
  if (max == kNone) {
    std::fill(o, o + d, 0.0f);
    return kNone;
  }
  for (int32_t p = 0; p < count; p++) sum += weights[p] = std::exp(weights[p] - max);
  for (int32_t p = 0; p < count; p++) weights[p] /= sum;
  for (size_t c = 0; c < d; c += 64) {
    float to[64] = {};
    const size_t some = std::min<size_t>(64, d - c);
    for (int32_t p = 0; p < count; p++) {
      if (weights[p] == 0.0f) continue;  // what an empty part holds must not matter
      for (size_t i = 0; i < some; i++) to[i] += weights[p] * parts[p][c + i];
    }
    std::copy(to, to + some, o + c);
  }
  return max + std::log(sum);
}

// Queries that share one reading of the keys.
constexpr int32_t kBlock = 8;

// Keys of one task: long against the cost of a task and of merging it, short enough to share out evenly.
int32_t range_of(int64_t keys, int32_t rows) {
  const int64_t even = (keys * rows / 16 + 63) / 64 * 64, least = (keys + 64 * AttentionParts::kMost - 1) / (64 * AttentionParts::kMost) * 64;
  return static_cast<int32_t>(std::max(std::clamp<int64_t>(even, 128, 512), least));
}

// Where ranges of all spans' keys may be cut: at key `number`, or behind it where positions fill a tile, so that no range starts
// with a few keys of one.
int64_t cut_of(const int32_t* spans, int32_t span_count, int64_t number) {
  constexpr int64_t kTile = 64;
  int64_t before = 0;
  for (int32_t i = 0; i < span_count; i++) {
    const int64_t start = spans[2 * i], count = spans[2 * i + 1] - start, inside = number - before;
    if (inside == 0) return number;
    if (inside < count) return before + std::min(count, (start + inside + kTile - 1) / kTile * kTile - start);
    before += count;
  }
  return before;
}

// Where `rows` query rows of ranges go, and what becomes of them.
struct Parts {
  AttentionOut out;  // where rows go that have one range
  AttentionParts parts;
  size_t d;

  Parts(kvasir_context& ctx, const AttentionOut& to, int32_t ranges, size_t rows, size_t d_)
      : out(to), parts{nullptr, nullptr, ranges, rows}, d(d_) {
    if (ranges == 1) return;
    parts.o = static_cast<float*>(ctx.shared.get(static_cast<size_t>(ranges) * rows * (d + 2) * sizeof(float)));
    parts.sums = parts.o + static_cast<size_t>(ranges) * rows * d;
  }
  void place(AttentionRows& to, int32_t range, size_t row) const {
    const bool whole = parts.ranges == 1;
    const size_t at = whole ? row : static_cast<size_t>(range) * parts.rows + row;
    to.o = (whole ? out.o : parts.o) + at * d;
    to.lse = whole ? out.lse + at : nullptr;
    to.sums = whole ? nullptr : parts.sums + 2 * at;
  }
  void merge(kvasir_context& ctx) const {
    if (parts.ranges > 1) ctx.isa->attention->merge(parts, 0, static_cast<int32_t>(parts.rows), d, out.o, out.lse);
  }
};

size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Scratch of all workers, first: a task must not throw.
std::vector<char*> take_scratch(kvasir_context& ctx, size_t bytes) {
  std::vector<char*> scratch(ctx.workers.size());
  for (size_t w = 0; w < scratch.size(); w++) scratch[w] = static_cast<char*>(ctx.workers[w].get(bytes));
  return scratch;
}

// Calls body(unit, begin, end, worker) for units [0, count), neighbours [begin, end) in turn on one thread, so that what comes
// next is known. Who takes what changes no unit's result.
template <class F>
void each_in_turn(kvasir_context& ctx, int32_t count, F&& body) {
  const int32_t threads = ctx.pool->threads();
  const int32_t tasks = threads == 1 ? 1 : std::min(count, count >= 8 * threads ? 4 * threads : threads);
  const auto border = [&](int32_t task) { return static_cast<int32_t>(int64_t{count} * task / tasks); };
  ctx.pool->run(tasks, [&](int task, int worker) {
    const int32_t begin = border(task), end = border(task + 1);
    for (int32_t unit = begin; unit < end; unit++) body(unit, begin, end, worker);
  });
}

// Runs of the keys number [from, to) of all spans, of one head; returns how many.
int32_t span_runs(const KvView& kv, int32_t head, const int32_t* spans, int32_t span_count, int64_t from, int64_t to,
                  KvRun* runs) {
  int32_t n = 0;
  int64_t before = 0;  // keys of earlier spans
  for (int32_t i = 0; i < span_count && before < to; i++) {
    const int32_t start = spans[2 * i], count = spans[2 * i + 1] - start;
    const int64_t first = std::max<int64_t>(from - before, 0), last = std::min<int64_t>(to - before, count);
    if (first < last) n += kv.runs(head, static_cast<int32_t>(start + first), static_cast<int32_t>(start + last), runs + n);
    before += count;
  }
  return n;
}

}  // namespace

void merge_parts(const AttentionOut& out, const AttentionOut* parts, int32_t count, size_t rows, size_t d) {
  std::vector<const float*> from(static_cast<size_t>(count));
  std::vector<float> weights(static_cast<size_t>(count));
  for (size_t r = 0; r < rows; r++) {
    for (int32_t p = 0; p < count; p++) {
      from[static_cast<size_t>(p)] = parts[p].o + r * d;
      weights[static_cast<size_t>(p)] = parts[p].lse[r];
    }
    const float lse = merge_row(out.o + r * d, from.data(), weights.data(), count, d);
    if (out.lse != nullptr) out.lse[r] = lse;
  }
}

void attend_window(kvasir_context& ctx, const AttentionShape& shape, const KvView& kv, const AttentionOut& out,
                   const float* q, int32_t n, int32_t heads, const int32_t* spans, int32_t span_count) {
  const size_t d = static_cast<size_t>(shape.head_dim), stride = static_cast<size_t>(heads) * d;
  const int32_t group = heads / kv.kv_heads, blocks = (n + kBlock - 1) / kBlock;
  int64_t keys = 0;
  for (int32_t i = 0; i < span_count; i++) keys += spans[2 * i + 1] - spans[2 * i];
  const int32_t range = range_of(keys, kv.kv_heads);
  const auto cut = [&](int32_t number) { return cut_of(spans, span_count, int64_t{number} * range); };
  int32_t ranges = static_cast<int32_t>(std::max<int64_t>(1, (keys + range - 1) / range));
  while (ranges > 1 && cut(ranges - 1) == keys) ranges--;

  const AttentionCore& core = ctx.isa->attention->range;
  const size_t most_runs = 2 * (kv.segments.size() + 2 * static_cast<size_t>(span_count));
  const size_t runs_bytes = round_up(most_runs * sizeof(KvRun));
  const std::vector<char*> scratch =
      take_scratch(ctx, runs_bytes + core.scratch_bytes(shape, std::min(n, kBlock) * group));
  // A block's rows are [query][group] of one KV head, so that parts are [KV head][query][group]; one block of one query
  // is laid out as out is.
  const bool direct = ranges == 1 && n == 1;
  float* o = out.o;
  float* lse = out.lse;
  const size_t rows = static_cast<size_t>(n) * heads;
  std::vector<float> ordered;
  if (!direct) {
    ordered.resize(rows * (d + 1));
    o = ordered.data(), lse = o + rows * d;
  }
  const Parts parts(ctx, {o, lse}, ranges, rows, d);
  each_in_turn(ctx, blocks * kv.kv_heads * ranges, [&](int unit, int begin, int end, int worker) {
    const int32_t piece = unit % ranges, head = unit / ranges % kv.kv_heads, block = unit / ranges / kv.kv_heads;
    AttentionRows to{};
    to.group = group;
    to.count = std::min(kBlock, n - block * kBlock);
    to.position = INT32_MAX / 2;  // spans say what is seen
    to.q = q + static_cast<size_t>(block) * kBlock * stride + static_cast<size_t>(head) * group * d;
    to.q_stride = stride;
    to.o_stride = static_cast<size_t>(group) * d;
    parts.place(to, piece, (static_cast<size_t>(head) * n + static_cast<size_t>(block) * kBlock) * group);
    KvRun* runs = reinterpret_cast<KvRun*>(scratch[worker]);
    const auto runs_of = [&](int32_t of, int32_t range_number, KvRun* out_runs) {
      return span_runs(kv, of, spans, span_count, cut(range_number), cut(range_number + 1), out_runs);
    };
    const int32_t count = runs_of(head, piece, runs);
    KvRun* const next = runs + count;
    if (unit + 1 < end && runs_of((unit + 1) / ranges % kv.kv_heads, (unit + 1) % ranges, next) > 0) to.next = *next;
    to.fetched = unit > begin;
    core.attend(shape, to, runs, count, scratch[worker] + runs_bytes);
  });
  parts.merge(ctx);
  if (direct) return;
  for (int32_t head = 0; head < kv.kv_heads; head++) {
    for (int32_t i = 0; i < n; i++) {
      const size_t from = (static_cast<size_t>(head) * n + i) * group;
      const size_t to = static_cast<size_t>(i) * heads + static_cast<size_t>(head) * group;
      std::copy(o + from * d, o + (from + group) * d, out.o + to * d);
      std::copy(lse + from, lse + from + group, out.lse + to);
    }
  }
}

void attend_topk(kvasir_context& ctx, const AttentionShape& shape, const KvView& kv, const AttentionOut& out,
                 const float* q, int32_t heads, const AttentionHits& hits) {
  const size_t d = static_cast<size_t>(shape.head_dim);
  const int32_t most = *std::max_element(hits.counts, hits.counts + hits.rows);
  const int32_t range = range_of(most, hits.rows), ranges = std::max(1, (most + range - 1) / range);
  const int32_t shared = heads / hits.rows;  // query heads of a list

  const AttentionGather& core = ctx.isa->attention->gather;
  const size_t most_runs = kv.segments.size() + 1, runs_bytes = round_up(2 * most_runs * sizeof(KvRun));
  const std::vector<char*> scratch = take_scratch(ctx, runs_bytes + core.scratch_bytes(shape, shared));
  const Parts parts(ctx, out, ranges, static_cast<size_t>(heads), d);
  static const bool to_l1 = is_amd();
  const auto gather_of = [&](int32_t unit, KvRun* runs) {
    const int32_t piece = unit % ranges, row = unit / ranges;
    const size_t first = static_cast<size_t>(row) * hits.capacity + static_cast<size_t>(piece) * range;
    KvGather gather{};
    gather.to_l1 = to_l1;
    gather.count = std::clamp(hits.counts[row] - piece * range, 0, range);
    if (gather.count == 0) return gather;  // no positions, no segments to look for
    gather.segments = runs;
    gather.segment_count = kv.runs(row * kv.kv_heads / hits.rows, kv.start, kv.end, runs);
    gather.tokens = hits.tokens + first;
    gather.bias = hits.bias == nullptr ? nullptr : hits.bias + first;
    return gather;
  };
  each_in_turn(ctx, hits.rows * ranges, [&](int unit, int begin, int end, int worker) {
    const int32_t row = unit / ranges;
    KvRun* const runs = reinterpret_cast<KvRun*>(scratch[worker]);
    AttentionRows to{};
    to.group = shared;
    to.count = 1;
    to.q = q + static_cast<size_t>(row) * shared * d;
    parts.place(to, unit % ranges, static_cast<size_t>(row) * shared);
    KvGather gather = gather_of(unit, runs);
    gather.fetched = unit > begin;
    const KvGather next = unit + 1 < end ? gather_of(unit + 1, runs + most_runs) : KvGather{};
    core.attend(shape, to, gather, &next, scratch[worker] + runs_bytes);
  });
  parts.merge(ctx);
}

}  // namespace kvasir
