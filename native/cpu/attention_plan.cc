// Tasks are (KV head, block of queries, range of keys). Their borders depend on shapes only, never on the number of
// threads, and partial results are merged in order: the same call gives the same bits on any pool.
#include "attention_plan.h"

#include <algorithm>
#include <atomic>

#include "context.h"
#include "isa.h"

namespace kvasir {
namespace {

// Up to this many queries the range core reads the cache once for all of them; beyond, rounding a tile pays.
constexpr int32_t kDecodeQueries = 8;
// Of a call over several caches: enough for threads to end together.
constexpr int32_t kTasksPerThread = 8;

struct Plan {
  const AttentionCore* core;
  int32_t queries;  // of one block
  int32_t blocks;
  int32_t keys;    // of one range
  int32_t ranges;  // 1: blocks write to out; else partial results
};

template <class T>
T divide_up(T x, int32_t y) {
  return (x + y - 1) / y;
}

Plan make_plan(const AttentionKernels& kernels, const AttentionShape& shape, int32_t n, int32_t group, int32_t kv_heads,
               int32_t keys) {
  Plan plan{};
  if (n <= kDecodeQueries) {
    // 512 keys are 10 us: short enough to share out evenly, long against the cost of a task and of merging it.
    plan.core = &kernels.range;
    plan.queries = n;
    const int32_t even = static_cast<int32_t>(int64_t{keys} * kv_heads / 16);
    plan.keys = std::max(std::clamp(divide_up(even, 64) * 64, 128, 512), divide_up(divide_up(keys, AttentionParts::kMost), 64) * 64);
    plan.ranges = divide_up(keys, plan.keys);
  } else {
    const bool rounded = shape.dtype != KVASIR_F32 && kernels.prefill.attend != nullptr;
    plan.core = rounded ? &kernels.prefill : &kernels.range;
    // Many rows share the cost of widening or rounding a tile; their outputs should stay in L2, and no thread idle.
    const int32_t unit = rounded ? plan.core->row_unit : 8;
    const int32_t most = rounded ? (shape.head_dim <= 128 ? 384 : shape.head_dim <= 256 ? 192 : 96) : 32;
    const int64_t units = divide_up(int64_t{n} * group, unit);
    const int64_t fair = std::clamp<int64_t>(units * kv_heads / 12, 2, std::max<int64_t>(2, most / unit));
    plan.queries = static_cast<int32_t>(std::clamp<int64_t>(fair * unit / group, 1, n));
    plan.keys = keys;
    plan.ranges = 1;
  }
  plan.blocks = divide_up(n, plan.queries);
  return plan;
}

// One query of one cache among several.
struct Each {
  Plan plan;
  int32_t oldest;  // position of the first key it sees
  size_t row;      // of its first partial result: [range][head]
  int32_t task;    // its first one
  int32_t pieces;  // tasks of a KV head
};

}  // namespace

void attend_each(kvasir_context& ctx, const AttentionShape& shape, const KvView* caches, int32_t n, float* out, const float* q,
                 int32_t heads, int32_t window) {
  const size_t d = static_cast<size_t>(shape.head_dim), stride = static_cast<size_t>(heads) * d;
  const int32_t kv_heads = caches[0].kv_heads, group = heads / kv_heads;
  std::vector<Each> all(static_cast<size_t>(n));
  int64_t ranges = 0;
  size_t rows = 0, most_segments = 0;
  for (int32_t i = 0; i < n; i++) {
    const KvView& kv = caches[i];
    Each& each = all[static_cast<size_t>(i)];
    each.oldest = window > 0 ? static_cast<int32_t>(std::max<int64_t>(kv.start, int64_t{kv.end} - window)) : kv.start;
    each.plan = make_plan(*ctx.isa->attention, shape, 1, group, kv_heads, kv.end - each.oldest);
    each.row = rows;
    if (each.plan.ranges > 1) rows += static_cast<size_t>(each.plan.ranges) * static_cast<size_t>(heads);
    ranges += int64_t{each.plan.ranges} * kv_heads;
    most_segments = std::max(most_segments, kv.segments.size());
  }
  // Neighbouring ranges go to one thread, as long as all of them have enough to share: what a range holds stays as it is.
  const int32_t together = static_cast<int32_t>(std::clamp<int64_t>(ranges / (kTasksPerThread * ctx.pool->threads()), 1, 8));
  int32_t tasks = 0;
  for (Each& each : all) {
    each.task = tasks;
    each.pieces = divide_up(each.plan.ranges, together);
    tasks += each.pieces * kv_heads;
  }

  // Scratch first: a task must not throw.
  const AttentionCore& core = *all[0].plan.core;
  const size_t runs_bytes = ((most_segments + 1) * sizeof(KvRun) + 63) / 64 * 64;
  const size_t bytes = runs_bytes + core.scratch_bytes(shape, group);
  std::vector<char*> scratch(ctx.workers.size());
  for (size_t w = 0; w < scratch.size(); w++) scratch[w] = static_cast<char*>(ctx.workers[w].get(bytes));
  float* part_o = rows == 0 ? nullptr : static_cast<float*>(ctx.shared.get(rows * (d + 2) * sizeof(float)));
  float* part_sums = part_o + rows * d;
  std::vector<std::atomic<int32_t>> left(static_cast<size_t>(n) * static_cast<size_t>(kv_heads));  // pieces of a head
  for (size_t i = 0; i < left.size(); i++) left[i].store(all[i / kv_heads].pieces, std::memory_order_relaxed);

  // Which ranges of which head of which cache a task is.
  struct Piece {
    const Each& each;
    int32_t cache, head, first, end;
  };
  const auto piece_of = [&](int task) {
    const Each& each = *(std::upper_bound(all.begin(), all.end(), task, [](int t, const Each& e) { return t < e.task; }) - 1);
    const int32_t piece = (task - each.task) % each.pieces;
    return Piece{each, static_cast<int32_t>(&each - all.data()), (task - each.task) / each.pieces, each.plan.ranges * piece / each.pieces,
                 each.plan.ranges * (piece + 1) / each.pieces};
  };
  std::vector<int> fetched(scratch.size(), -1);  // by worker: the task whose first rows it has asked for
  ctx.pool->run_shares(tasks, [&](int task, int worker) {
    const auto [each, i, head, first, end] = piece_of(task);
    const KvView& kv = caches[i];
    AttentionRows to{};
    to.group = group;
    to.count = 1;
    to.position = kv.end - 1;
    to.window = window;
    to.q = q + static_cast<size_t>(i) * stride + static_cast<size_t>(head) * group * d;
    float* whole = out + static_cast<size_t>(i) * stride + static_cast<size_t>(head) * group * d;
    KvRun* runs = reinterpret_cast<KvRun*>(scratch[worker]);
    const size_t first_row = each.row + static_cast<size_t>(head) * group;
    to.fetched = fetched[worker] == task;
    for (int32_t r = first; r < end; r++, to.fetched = true) {
      const int32_t from = each.oldest + r * each.plan.keys;
      const size_t row = first_row + static_cast<size_t>(r) * heads;
      to.o = each.plan.ranges > 1 ? part_o + row * d : whole;
      to.sums = each.plan.ranges > 1 ? part_sums + 2 * row : nullptr;
      const int32_t count = kv.runs(head, from, std::min(kv.end, from + each.plan.keys), runs);
      if (r + 1 < end) {
        to.next = kv.run_from(head, from + each.plan.keys);
      } else if (task + 1 < tasks) {
        const Piece next = piece_of(task + 1);
        to.next = caches[next.cache].run_from(next.head, next.each.oldest + next.first * next.each.plan.keys);
        fetched[worker] = task + 1;
      } else {
        to.next = KvRun{};
      }
      core.attend(shape, to, runs, count, scratch[worker] + runs_bytes);
    }
    if (each.plan.ranges == 1) return;
    // Whoever is last merges what all have left, in order of the ranges.
    if (each.pieces > 1 && left[static_cast<size_t>(i) * kv_heads + head].fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const AttentionParts parts{part_o + each.row * d, part_sums + 2 * each.row, each.plan.ranges, static_cast<size_t>(heads)};
    ctx.isa->attention->merge(parts, static_cast<size_t>(head) * group, group, d, whole, nullptr);
  });
}

void attend_causal(kvasir_context& ctx, const AttentionShape& shape, const KvView& kv, float* out, float* lse, const float* q,
                   int32_t n, int32_t heads, int32_t window) {
  if (n == 1 && lse == nullptr) return attend_each(ctx, shape, &kv, 1, out, q, heads, window);
  const size_t d = static_cast<size_t>(shape.head_dim), stride = static_cast<size_t>(heads) * d;
  const int32_t group = heads / kv.kv_heads, position = kv.end - n;
  const int32_t oldest = window > 0 ? std::max<int64_t>(kv.start, int64_t{position} - window + 1) : kv.start;
  const Plan plan = make_plan(*ctx.isa->attention, shape, n, group, kv.kv_heads, kv.end - oldest);
  const int32_t tasks = plan.blocks * kv.kv_heads * plan.ranges;

  // Scratch first: a task must not throw.
  const size_t runs_bytes = ((kv.segments.size() + 1) * sizeof(KvRun) + 63) / 64 * 64;
  const size_t bytes = runs_bytes + plan.core->scratch_bytes(shape, plan.queries * group);
  std::vector<char*> scratch(ctx.workers.size());
  for (size_t w = 0; w < scratch.size(); w++) scratch[w] = static_cast<char*>(ctx.workers[w].get(bytes));
  const size_t range_rows = static_cast<size_t>(kv.kv_heads) * n * group;  // [range][kv head][query][group]
  AttentionParts parts{nullptr, nullptr, plan.ranges, range_rows};
  float* ordered_lse = nullptr;  // as range_rows
  if (plan.ranges > 1) {
    parts.o = static_cast<float*>(ctx.shared.get(plan.ranges * range_rows * (d + 2) * sizeof(float)));
    parts.sums = parts.o + plan.ranges * range_rows * d;
  } else if (lse != nullptr) {
    ordered_lse = static_cast<float*>(ctx.shared.get(range_rows * sizeof(float)));
  }

  ctx.pool->run(tasks, [&](int task, int worker) {
    // The last queries see the most keys: they go first.
    const int32_t range = task % plan.ranges, head = task / plan.ranges % kv.kv_heads;
    const int32_t block = plan.blocks - 1 - task / plan.ranges / kv.kv_heads;
    const int32_t first = block * plan.queries;
    AttentionRows rows{};
    rows.group = group;
    rows.count = std::min(plan.queries, n - first);
    rows.position = position + first;
    rows.window = window;
    rows.q = q + first * stride + head * group * d;
    rows.q_stride = stride;
    int32_t from = oldest + range * plan.keys;
    const int32_t to = std::min(rows.position + rows.count, plan.ranges > 1 ? from + plan.keys : kv.end);
    if (window > 0) from = static_cast<int32_t>(std::max<int64_t>(from, int64_t{rows.position} - window + 1));
    if (plan.ranges > 1) {
      const size_t row = range * range_rows + static_cast<size_t>(head) * n * group;
      rows.o = parts.o + row * d;
      rows.o_stride = group * d;
      rows.sums = parts.sums + 2 * row;
    } else {
      rows.o = out + first * stride + head * group * d;
      rows.o_stride = stride;
      if (lse != nullptr) rows.lse = ordered_lse + (static_cast<size_t>(head) * n + first) * group;
    }
    KvRun* runs = reinterpret_cast<KvRun*>(scratch[worker]);
    const int32_t count = kv.runs(head, from, to, runs);
    plan.core->attend(shape, rows, runs, count, scratch[worker] + runs_bytes);
  });

  if (plan.ranges == 1 && lse == nullptr) return;
  for (int32_t head = 0; head < kv.kv_heads; head++) {
    for (int32_t i = 0; i < n; i++) {
      const size_t row = (static_cast<size_t>(head) * n + i) * group;
      float* to = lse == nullptr ? nullptr : lse + static_cast<size_t>(i) * heads + static_cast<size_t>(head) * group;
      if (plan.ranges == 1) std::copy(ordered_lse + row, ordered_lse + row + group, to);
      else ctx.isa->attention->merge(parts, row, group, d, out + i * stride + head * group * d, to);
    }
  }
}

}  // namespace kvasir
