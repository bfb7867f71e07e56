// Tasks are (KV head, block of queries) for best keys, then (KV head, range of keys) for sums, which each task adds up alone
// and in order: the same call gives the same bits on any pool.
#include "attention_sink_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "context.h"
#include "isa.h"

namespace kvasir {
namespace {

constexpr int32_t kBlockRows = 32;  // rows that share the widening of a tile
constexpr int32_t kRange = 1024;    // keys of one task of sums
constexpr float kLn2 = 0.693147181f;
constexpr float kNone = -std::numeric_limits<float>::infinity();

// Equal scores: the earlier key.
bool better(const BestKeys::Key& a, const BestKeys::Key& b) {
  return a.score > b.score || (a.score == b.score && a.position < b.position);
}

size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

void BestKeys::clear() {
  count = 0, threshold = kNone, max = std::numeric_limits<float>::lowest(), sum = 0;
}

void BestKeys::keep(float score, int32_t position) {
  keys[count++] = {score, position};
  if (static_cast<size_t>(count) == capacity(k)) compact();
}

void BestKeys::compact() {
  if (count < k) return;
  std::nth_element(keys, keys + k - 1, keys + count, better);
  count = k;
  threshold = keys[k - 1].score;
}

void BestKeys::settle() {
  if (count > k) compact();
  std::sort(keys, keys + count, better);
}

float BestKeys::lse() const { return max + std::log2(sum); }

void fill_sink(kvasir_context& ctx, const AttentionShape& shape, const KvView& kv, const float* q, int32_t n, int32_t heads,
               int32_t window, const PromptSink& sink) {
  const int32_t position = kv.end - n, m = sampled_queries(position, n, sink.every);
  if (m == 0) return;
  const AttentionSink& core = ctx.isa->attention->sink;
  const size_t d = static_cast<size_t>(shape.head_dim), stride = static_cast<size_t>(heads) * d;
  const int32_t group = heads / kv.kv_heads, skipped = (sink.every - position % sink.every) % sink.every;
  const int32_t queries = std::max(1, kBlockRows / group), blocks = (m + queries - 1) / queries;
  const auto rows_of = [&](int32_t head, int32_t block) {
    SinkRows rows{};
    const int32_t first = block * queries, at = skipped + first * sink.every;
    rows.q = q + static_cast<size_t>(at) * stride + static_cast<size_t>(head) * group * d;
    rows.q_stride = static_cast<size_t>(sink.every) * stride;
    rows.group = group;
    rows.count = std::min(queries, m - first);
    rows.position = position + at;
    rows.every = sink.every;
    rows.window = window;
    return rows;
  };
  const auto oldest = [&](const SinkRows& rows) {
    return window > 0 ? static_cast<int32_t>(std::max<int64_t>(kv.start, int64_t{rows.position} - window + 1)) : kv.start;
  };
  const auto newest = [&](const SinkRows& rows) { return rows.position + (rows.count - 1) * sink.every; };

  // Scratch first: a task must not throw.
  const size_t block_rows = static_cast<size_t>(queries) * group, kept = BestKeys::capacity(sink.topk);
  const size_t runs_bytes = round_up((kv.segments.size() + 1) * sizeof(KvRun));
  const size_t best_bytes = round_up(block_rows * sizeof(BestKeys)), keys_bytes = round_up(block_rows * kept * sizeof(BestKeys::Key));
  const size_t core_bytes = round_up(core.scratch_bytes(shape, static_cast<int32_t>(block_rows)));
  std::vector<char*> scratch(ctx.workers.size());
  for (char*& s : scratch) {
    s = static_cast<char*>(ctx.workers[static_cast<size_t>(&s - scratch.data())].get(runs_bytes + best_bytes + keys_bytes + core_bytes));
  }
  std::vector<float> lse(static_cast<size_t>(m) * heads);  // [kv head][query][group], to base 2

  ctx.pool->run(blocks * kv.kv_heads, [&](int task, int worker) {
    const int32_t head = task % kv.kv_heads, block = blocks - 1 - task / kv.kv_heads;  // the last queries see the most keys
    const SinkRows rows = rows_of(head, block);
    char* at = scratch[static_cast<size_t>(worker)];
    KvRun* runs = reinterpret_cast<KvRun*>(at);
    BestKeys* best = reinterpret_cast<BestKeys*>(at + runs_bytes);
    BestKeys::Key* keys = reinterpret_cast<BestKeys::Key*>(at + runs_bytes + best_bytes);
    for (size_t r = 0; r < static_cast<size_t>(rows.rows()); r++) {
      best[r].keys = keys + r * kept, best[r].k = sink.topk, best[r].weighs = sink.sums != nullptr;
    }
    const int32_t count = kv.runs(head, oldest(rows), newest(rows) + 1, runs);
    core.best(shape, rows, runs, count, best, at + runs_bytes + best_bytes + keys_bytes);
    for (int32_t r = 0; r < rows.rows(); r++) {
      const size_t query = static_cast<size_t>(block) * queries + r / group;
      lse[(static_cast<size_t>(head) * m + query) * group + r % group] = best[r].lse();
      if (sink.topk == 0) continue;
      const size_t to = (query * heads + static_cast<size_t>(head) * group + r % group) * sink.topk;
      for (int32_t i = 0; i < sink.topk; i++) {
        const bool is = i < best[r].count;
        sink.tokens[to + i] = is ? best[r].keys[i].position : -1;
        if (sink.scores != nullptr) sink.scores[to + i] = is ? best[r].keys[i].score * kLn2 : kNone;
      }
    }
  });
  if (sink.sums == nullptr) return;

  const int32_t first = oldest(rows_of(0, 0)), ranges = (kv.end - first + kRange - 1) / kRange;
  ctx.pool->run(ranges * kv.kv_heads, [&](int task, int worker) {
    const int32_t head = task % kv.kv_heads, from = first + task / kv.kv_heads * kRange, to = std::min(kv.end, from + kRange);
    char* at = scratch[static_cast<size_t>(worker)];
    KvRun* runs = reinterpret_cast<KvRun*>(at);
    const int32_t count = kv.runs(head, from, to, runs);
    float* sums = sink.sums + static_cast<size_t>(head) * group * sink.stride;
    for (int32_t block = 0; block < blocks; block++) {
      const SinkRows rows = rows_of(head, block);
      if (newest(rows) < from || oldest(rows) >= to) continue;
      const float* row_lse = lse.data() + (static_cast<size_t>(head) * m + static_cast<size_t>(block) * queries) * group;
      core.sums(shape, rows, runs, count, row_lse, sums, sink.stride, at + runs_bytes + best_bytes + keys_bytes);
    }
  });
}

}  // namespace kvasir
