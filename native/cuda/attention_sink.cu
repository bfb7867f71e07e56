#include "attention_sink.cuh"

#include <algorithm>

#include "attention.h"
#include "error.h"
#include "index_select.h"
#include "launch.h"

namespace kvasir {
namespace {

// Of logits at a time.
constexpr size_t kMostBytes = size_t{64} << 20;

}  // namespace

int32_t skipped_queries(int32_t position, int32_t every) { return (every - position % every) % every; }

SinkArguments sink_arguments(const Attention& call, int32_t window, int32_t every) {
  SinkArguments args{};
  args.q = call.q, args.heads = call.heads, args.group = call.heads / call.kv_heads, args.dim = call.head_dim;
  args.scale = call.scale, args.softcap = call.softcap, args.window = window;
  args.every = every, args.position = call.end - call.n, args.start = call.start, args.keys = call.end - call.start;
  return args;
}

RowTable staged_rows(Runtime& runtime, const Attention& call) {
  const int32_t bytes = call.dtype == KVASIR_F32 ? 4 : call.dtype == KVASIR_F16 ? 2 : 1;
  return {runtime.stage(call.segments.data(), call.segments.size()), static_cast<int32_t>(call.segments.size()), call.dtype,
          call.head_dim, call.head_dim * bytes};
}

void fill_sink(DeviceScratch& work, const Attention& call, int32_t window, const PromptSink& sink) {
  Runtime& runtime = work.runtime;
  const int32_t position = call.end - call.n, m = sampled_queries(position, call.n, sink.every), keys = call.end - call.start;
  if (m == 0) return;
  const size_t shared = sink_shared_bytes(call.head_dim), listed = static_cast<size_t>(sink.topk) * 8;
  if (std::max(shared, listed) + 1024 > runtime.facts().block_shared) {
    fail(KVASIR_UNSUPPORTED, "Cannot fill prompt sink: %d keys of %d dimensions need %zu bytes of shared memory, the device has %zu",
         sink.topk, call.head_dim, std::max(shared, listed), runtime.facts().block_shared);
  }
  const size_t heads = static_cast<size_t>(call.heads), stride = (static_cast<size_t>(keys) + 63) / 64 * 64;
  const int32_t most = static_cast<int32_t>(std::clamp<size_t>(kMostBytes / (heads * stride * 4), 1, std::max<size_t>(1, 65535 / heads)));
  const int32_t batch = std::min(m, most);
  const size_t rows = static_cast<size_t>(batch) * heads;
  uint8_t* memory = static_cast<uint8_t*>(work.get(rows * (stride * 4 + sizeof(Selection) + 1024 + 4) + 1024));
  SinkArguments args = sink_arguments(call, window, sink.every);
  args.scores = reinterpret_cast<float*>(memory), args.stride = stride;
  int32_t* histograms = reinterpret_cast<int32_t*>(memory + rows * stride * 4);
  Selection* selections = reinterpret_cast<Selection*>(histograms + rows * 256);
  float* lse = reinterpret_cast<float*>(selections + rows);
  for (int32_t done = 0; done < m; done += batch) {
    args.rows = staged_rows(runtime, call);
    args.first = skipped_queries(position, sink.every) + done * sink.every, args.queries = std::min(batch, m - done);
    const dim3 every(static_cast<uint32_t>(args.queries * call.heads)), threads(kScanThreads);
    launch(runtime, "sink_scores", sink_scores,
           dim3(blocks_of(keys, kSinkKeys), blocks_of(args.queries * args.group, kSinkRows), static_cast<uint32_t>(call.kv_heads)),
           dim3(kSinkThreads), shared, args);
    const size_t at = static_cast<size_t>(done) * heads;
    if (sink.tokens != nullptr && sink.topk > 0) {
      launch(runtime, "begin_sink", begin_sink, every, dim3(256), 0, args, selections, histograms, sink.topk);
      find_thresholds(runtime, args.scores, stride, keys, args.queries * call.heads, selections, histograms);
      const size_t k = static_cast<size_t>(sink.topk);
      launch(runtime, "place_best", place_best, every, threads, listed, args, selections, sink.topk, sink.tokens + at * k,
             sink.scores == nullptr ? nullptr : sink.scores + at * k);
    }
    if (sink.sums != nullptr) {
      launch(runtime, "sink_lse", sink_lse, every, threads, 0, args, lse);
      launch(runtime, "add_weights", add_weights, dim3(blocks_of(keys, kScanThreads), static_cast<uint32_t>(call.heads)), threads, 0, args,
             lse, sink.sums, sink.stride);
    }
  }
}

}  // namespace kvasir
