// What attention costs on a device, of the shapes of an 8B model (32 / 8 heads of 128, f16): decode over the whole cache against
// copy bandwidth, prompts, the flat index's sampled attention against exact attention, and where keys and values may lie. A JSON
// line a row. `--tiny` runs all of it over a few hundred keys, to prove that it runs: the emulation does that in a test.
//
//   kvasir_cuda_attention_bench [--tiny] [--length 131072]... [--heads FILE.kvqk]...
// With recorded heads (docs/recorded_heads.md) these alone.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "attention.h"
#include "device_bench.h"
#include "error.h"
#include "index_flat.h"
#include "recorded_rows.h"
#include "rows_made.h"

using namespace kvasir;

namespace {

constexpr int32_t kHeads = 32, kKvHeads = 8, kDim = 128, kLayers = 32, kTopics = 64;
constexpr float kSharp = 1.5f, kSpread = 0.6f;

// One layer's cache, on the device or in pinned memory of the host, and what attends to it.
struct Layer {
  Bench& bench;
  int32_t length;
  size_t bytes;  // of keys, or values
  Buffer keys, values, q, o, lse, exact;
  DeviceScratch search, partials;

  Layer(Bench& b, int32_t length_, int32_t n = 1, bool on_host = false)
      : bench(b), length(length_), bytes(static_cast<size_t>(kKvHeads) * static_cast<size_t>(length_) * kDim * 2),
        keys(*b.runtime, bytes, on_host), values(*b.runtime, bytes, on_host),
        q(*b.runtime, static_cast<size_t>(n) * kHeads * kDim * 4), o(*b.runtime, static_cast<size_t>(n) * kHeads * kDim * 4),
        lse(*b.runtime, static_cast<size_t>(n) * kHeads * 4), exact(*b.runtime, kHeads * 4), search(*b.runtime), partials(*b.runtime) {
    fill_rows(*b.runtime, keys.as<uint16_t>(), kKvHeads, length, kDim, kTopics, kSpread, 1);
    fill_rows(*b.runtime, values.as<uint16_t>(), kKvHeads, length, kDim, 0, 1.0f, 2);
    fill_queries(*b.runtime, q.as<float>(), n, kHeads, kHeads / kKvHeads, kDim, kTopics, kSharp, 3);
  }

  Attention call(int32_t n) const {
    Attention a;
    a.dtype = KVASIR_F16, a.kv_heads = kKvHeads, a.head_dim = kDim, a.end = length;
    a.segments = {{keys.as<char>(), values.as<char>(), nullptr, nullptr, 0, length, length}};
    a.scale = 1 / std::sqrt(static_cast<float>(kDim));
    a.n = n, a.heads = kHeads;
    a.q = q.as<float>(), a.o = o.as<float>(), a.lse = lse.as<float>();
    return a;
  }
  std::vector<float> output() const {
    std::vector<float> out(kHeads * kDim);
    bench.runtime->download(out.data(), o.as<float>(), out.size() * 4);
    return out;
  }
};

void measure_copy(Bench& b) {
  const size_t bytes = size_t{b.tiny ? 1u : 512u} << 20;
  const Buffer from(*b.runtime, bytes), to(*b.runtime, bytes);
  b.copy_rate = 2.0 * static_cast<double>(bytes) / (b.time([&] { b.runtime->copy(to.as<char>(), from.as<char>(), bytes); }, 5) * 1e6);
  std::printf("{\"row\":\"copy bandwidth\",\"device\":\"%s\",\"gb_per_s\":%.1f}\n", b.runtime->facts().name.c_str(), b.copy_rate);
}

// Returns milliseconds.
double decode(Bench& b, int32_t length) {
  Layer layer(b, length);
  const int32_t span[] = {0, length};
  const double ms = b.time([&] { attend_spans(layer.partials, layer.call(1), span, 1); }, b.tiny ? 1 : 20);
  const double rate = 2.0 * static_cast<double>(layer.bytes) / (ms * 1e6);
  std::printf("{\"row\":\"decode attention\",\"length\":%d,\"ms\":%.4f,\"gb_per_s\":%.1f,\"share_of_copy\":%.3f}\n", length, ms, rate,
              rate / b.copy_rate);
  return ms;
}

const char* prompts_by(const DeviceFacts& facts) { return !facts.wgmma ? "mma.sync" : facts.tma ? "wgmma by TMA" : "wgmma"; }

// Prompts, and beside them what it costs to keep the best keys of every 8th query.
void prompt(Bench& b, int32_t length) {
  constexpr int32_t kBest = 100, kEvery = 8;
  Layer layer(b, length, length);
  const double ms = b.time([&] { attend_causal(layer.partials, layer.call(length), 0); }, 1);
  const double flops = 2.0 * length * static_cast<double>(length) * kDim * kHeads;  // of the half that is seen
  std::printf("{\"row\":\"prompt attention, %s\",\"length\":%d,\"ms\":%.3f,\"tflop_per_s\":%.1f}\n",
              prompts_by(b.runtime->facts()), length, ms, flops / (ms * 1e9));
  const size_t kept = static_cast<size_t>(sampled_queries(0, length, kEvery)) * kHeads * kBest;
  const Buffer tokens(*b.runtime, kept * 4), scores(*b.runtime, kept * 4);
  PromptSink sink{};
  sink.every = kEvery, sink.topk = kBest, sink.tokens = tokens.as<int32_t>(), sink.scores = scores.as<float>();
  const double fused = b.time([&] { attend_causal_sink(layer.partials, layer.search, layer.call(length), 0, sink); }, 1);
  const double own = ms + b.time([&] { fill_sink(layer.partials, layer.call(length), 0, sink); }, 1);
  std::printf("{\"row\":\"prompt attention with the best %d of every %dth query, %s\",\"length\":%d,\"ms\":%.3f,\"times_plain\":%.3f,"
              "\"own_pass_ms\":%.3f,\"own_pass_times_plain\":%.3f}\n",
              kBest, kEvery, prompts_by(b.runtime->facts()), length, fused, fused / ms, own, own / ms);
}

// The flat index's sampled attention over the same cache: time against exact attention, and the output's error.
double sampled(Bench& b, int32_t length, bool on_host, double exact_ms) {
  Layer layer(b, length, 1, on_host);
  kvasir_memory keys{layer.keys.as<char>(), layer.bytes, retain_nothing, retain_nothing};
  kvasir_memory values{layer.values.as<char>(), layer.bytes, retain_nothing, retain_nothing};
  const int32_t desc[] = {0, KVASIR_F16, kKvHeads, length, kDim, 0};
  DeviceFlat index(layer.search, layer.partials, {kHeads, kKvHeads, kHeads / kKvHeads, kDim, 1 / std::sqrt(static_cast<float>(kDim)), 0},
                   DeviceFlat::kInt4);
  index.rows().append(std::make_shared<const Segment>(desc, &keys, &values, nullptr, nullptr));
  b.runtime->mark();
  index.add(0, length);
  b.runtime->mark();
  const double build = b.runtime->elapsed();
  index.commit();
  const int32_t all[] = {0, length}, window[] = {std::max(0, length - 512), length};
  attend_spans(layer.partials, layer.call(1), all, 1);
  const std::vector<float> exact = layer.output();
  // What a window attends to anyway is known first.
  attend_spans(layer.partials, layer.call(1), window, 1);
  b.runtime->copy(layer.exact.as<float>(), layer.lse.as<float>(), kHeads * 4);
  const FlatGoal goal{true, kError, false, 7};
  const AttentionPart out{layer.o.as<float>(), layer.lse.as<float>()};
  FlatReport report;
  index.attend(out, goal, layer.q.as<float>(), layer.exact.as<float>(), &report);
  const std::vector<float> got = layer.output();
  const double off = relative_error(got, exact, kDim);
  const double ms = b.time([&] { index.attend(out, goal, layer.q.as<float>(), layer.exact.as<float>(), nullptr); }, b.tiny ? 1 : 20);
  std::printf("{\"row\":\"sampled attention, int4 codes, rows on the %s\",\"length\":%d,\"ms\":%.4f,\"exact_ms\":%.4f,\"times_faster\":%.2f,"
              "\"rows_per_kv_head\":%.0f,\"relative_error\":%.4f,\"build_ms\":%.2f,\"codes_share_of_cache\":%.3f}\n",
              on_host ? "host" : "device", length, ms, exact_ms, exact_ms / ms, report.keys_kept / kKvHeads, off, build,
              index.bytes() / (2.0 * static_cast<double>(layer.bytes)));
  return ms;
}

// One layer's attention, times the layers of the model: where the cache lies decides.
void placements(Bench& b, int32_t length, double on_device, double by_codes) {
  Layer layer(b, length, 1, true);
  const int32_t span[] = {0, length};
  const double host = b.time([&] { attend_spans(layer.partials, layer.call(1), span, 1); }, 1);
  std::printf("{\"row\":\"attention of a token, %d layers\",\"length\":%d,\"full_on_device_ms\":%.2f,\"exact_host_rows_ms\":%.2f,"
              "\"codes_on_device_ms\":%.2f}\n",
              kLayers, length, kLayers * on_device, kLayers * host, kLayers * by_codes);
}

}  // namespace

int main(int argc, char** argv) {
  Bench* opened = nullptr;
  const int32_t status = guard([&] {
    static Bench b;
    opened = &b;
    std::vector<int32_t> lengths;
    std::vector<std::string> recorded;
    for (int i = 1; i < argc; i++) {
      if (std::strcmp(argv[i], "--tiny") == 0) b.tiny = true;
      else if (std::strcmp(argv[i], "--length") == 0 && i + 1 < argc) lengths.push_back(std::atoi(argv[++i]));
      else if (std::strcmp(argv[i], "--heads") == 0 && i + 1 < argc) recorded.push_back(argv[++i]);
      else fail(KVASIR_ARGUMENT, "unknown argument %s, expected --tiny, --length N or --heads FILE", argv[i]);
    }
    for (const std::string& path : recorded) measure_recorded(b, path);
    if (!recorded.empty()) return;
    if (lengths.empty()) lengths = b.tiny ? std::vector<int32_t>{600} : std::vector<int32_t>{32768, 131072, 1048576};
    measure_copy(b);
    // Each way that the device has, the one that is used last.
    for (const bool wgmma : {false, true}) {
      Bench other(wgmma, false);
      if (other.runtime->facts().wgmma != wgmma || (wgmma && !b.runtime->facts().tma)) continue;
      other.tiny = b.tiny;
      prompt(other, b.tiny ? 70 : 32768);
    }
    if (b.runtime->facts().wgmma) prompt(b, b.tiny ? 70 : 32768);
    for (const int32_t length : lengths) {
      const double exact = decode(b, length);
      sampled(b, length, false, exact);
      if (length > 200000) continue;  // pinned memory is not that large everywhere
      placements(b, length, exact, sampled(b, length, true, exact));
    }
  });
  if (status != KVASIR_OK) std::fprintf(stderr, "%s\n", last_error_text());
  return opened == nullptr || status != KVASIR_OK ? 1 : 0;
}
