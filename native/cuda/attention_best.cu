#include "attention_best.cuh"

#include <algorithm>
#include <numeric>

#include "attention.h"
#include "attention_settle.cuh"
#include "attention_tiles.h"
#include "attention_wgmma.h"
#include "launch.h"

namespace kvasir {
namespace {

// Of candidates at a time, in one part; so few in the emulation that tests meet more.
#ifdef KVASIR_EMULATION
constexpr size_t kMostBytes = size_t{1} << 20;
#else
constexpr size_t kMostBytes = size_t{64} << 20;
#endif

// The queries [first, first + count) of a call.
Attention queries_of(const Attention& call, int32_t first, int32_t count) {
  Attention some = call;
  const size_t row = static_cast<size_t>(call.heads), at = static_cast<size_t>(first) * row;
  some.n = count, some.end = call.end - call.n + first + count;
  some.q += at * static_cast<size_t>(call.head_dim), some.o += at * static_cast<size_t>(call.head_dim);
  if (call.lse != nullptr) some.lse += at;
  return some;
}

// Attention and best keys together; m: sampled queries, at least one. False, and nothing is done, where tiles do not do.
bool try_fused(DeviceScratch& work, DeviceScratch& found, const Attention& call, int32_t window, const PromptSink& sink, int32_t m) {
  Runtime& runtime = work.runtime;
  const int32_t parts = sampled_parts(runtime, call, window), room = best_room(call.head_dim), rows = m * call.heads;
  if (parts == 0 || sink.topk > room / 2) return false;
  const size_t slots = static_cast<size_t>(parts) * static_cast<size_t>(rows);
  SinkArguments args = sink_arguments(call, window, sink.every);
  args.first = skipped_queries(args.position, sink.every), args.queries = m;
  SampledKeys sampled{};
  const size_t bytes = slots * static_cast<size_t>(room) * sizeof(Candidate) + (slots + static_cast<size_t>(rows + call.kv_heads)) * 4;
  sampled.found = static_cast<Candidate*>(found.get(bytes));
  sampled.counts = reinterpret_cast<int32_t*>(sampled.found + slots * static_cast<size_t>(room));
  float* const slack = reinterpret_cast<float*>(sampled.counts + slots);
  uint32_t* const norms = reinterpret_cast<uint32_t*>(slack + rows);
  sampled.slack = slack, sampled.rows = rows, sampled.k = sink.topk, sampled.every = sink.every, sampled.skipped = args.first;

  const int32_t from = window == 0 ? call.start : std::max(call.start, args.position + args.first - window + 1);
  runtime.fill(norms, 0, static_cast<size_t>(call.kv_heads) * 4);
  launch(runtime, "key_norms", key_norms, dim3(blocks_of(call.end - from, kNormKeys), static_cast<uint32_t>(call.kv_heads)),
         dim3(kSettleThreads), 0, staged_rows(runtime, call), from, call.end - from, norms);
  launch(runtime, "bound_slack", bound_slack, dim3(blocks_of(rows, kSettleThreads / 32)), dim3(kSettleThreads), 0, args, norms, slack);
  attend_sampled(work, call, window, sampled);
  args.rows = staged_rows(runtime, call);
  launch(runtime, "settle_best", settle_best, dim3(static_cast<uint32_t>(rows)), dim3(kSettleThreads),
         static_cast<size_t>(call.head_dim) * sizeof(float), args, sampled, parts, sink.tokens, sink.scores);
  return true;
}

}  // namespace

void attend_causal_sink(DeviceScratch& work, DeviceScratch& found, const Attention& call, int32_t window, const PromptSink& sink) {
  if (sink.tokens == nullptr || sink.topk == 0 || sink.sums != nullptr) {
    attend_causal(work, call, window);
    fill_sink(work, call, window, sink);
    return;
  }
  const size_t row_bytes = static_cast<size_t>(best_room(call.head_dim)) * sizeof(Candidate), heads = static_cast<size_t>(call.heads);
  // Whole blocks of rows at a time, of either kind of tile, and no few rows for the end: tiles are those of the call as a whole.
  const int32_t group = call.heads / call.kv_heads, unit = kWgmmaRows / std::gcd(kWgmmaRows, group);
  const int64_t fit = static_cast<int64_t>(kMostBytes / (heads * row_bytes)) * sink.every, most = std::max<int64_t>(1, fit / unit) * unit;
  PromptSink rest = sink;
  for (int32_t first = 0; first < call.n;) {
    const int64_t left = call.n - first;
    const int32_t count = static_cast<int32_t>((left - most) * group <= kFewRows ? left : most);
    const Attention some = queries_of(call, first, count);
    const int32_t m = sampled_queries(some.end - count, count, sink.every);
    if (m == 0 || !try_fused(work, found, some, window, rest, m)) {
      attend_causal(work, some, window);
      fill_sink(work, some, window, rest);
    }
    const size_t kept = static_cast<size_t>(m) * heads * static_cast<size_t>(sink.topk);
    rest.tokens += kept;
    if (rest.scores != nullptr) rest.scores += kept;
    first += count;
  }
}

}  // namespace kvasir
