#include "recorded_rows.h"

#include <cstdio>

#include "attention.h"
#include "device_bench.h"
#include "half.h"
#include "index_flat.h"
#include "recorded.h"

namespace kvasir {
namespace {

constexpr int32_t kSinks = 4, kWindow = 512, kQueries = 32, kDraws = 4;

// As a retrieval policy has it: the first keys and the last ones are attended to exactly, what lies between by a draw.
void measure_layer(Bench& b, const std::string& model, const kvasir_bench::RecordedLayer& of) {
  Runtime& runtime = *b.runtime;
  const int32_t tokens = static_cast<int32_t>(of.tokens), decoded = static_cast<int32_t>(of.decoded), dim = static_cast<int32_t>(of.head_dim);
  const int32_t heads = static_cast<int32_t>(of.heads), kv_heads = static_cast<int32_t>(of.kv_heads);
  const int32_t between = tokens - std::max(decoded, std::min(kWindow, tokens / 2));
  const size_t bytes = size_t{of.kv_heads} * of.tokens * of.head_dim * 2, outputs = size_t{of.heads} * of.head_dim;
  const Buffer keys(runtime, bytes), values(runtime, bytes), q(runtime, outputs * 4), whole(runtime, outputs * 4), merged(runtime, outputs * 4);
  const Buffer near(runtime, outputs * 4), near_lse(runtime, of.heads * 4), far(runtime, outputs * 4), far_lse(runtime, of.heads * 4);
  runtime.upload(keys.as<char>(), of.keys, bytes);
  runtime.upload(values.as<char>(), of.values, bytes);
  DeviceScratch search(runtime), partials(runtime);
  DeviceFlat index(search, partials,
                   {heads, kv_heads, heads / kv_heads, dim, static_cast<float>(of.scale), static_cast<float>(of.softcap)}, DeviceFlat::kInt4);
  kvasir_memory key_memory{keys.as<char>(), bytes, retain_nothing, retain_nothing};
  kvasir_memory value_memory{values.as<char>(), bytes, retain_nothing, retain_nothing};
  const int32_t desc[] = {0, KVASIR_F16, kv_heads, tokens, dim, 0};
  index.rows().append(std::make_shared<const Segment>(desc, &key_memory, &value_memory, nullptr, nullptr));
  index.add(kSinks, between - kSinks);
  index.commit();

  Attention call;
  call.dtype = KVASIR_F16, call.kv_heads = kv_heads, call.head_dim = dim, call.end = tokens;
  call.segments = {{keys.as<char>(), values.as<char>(), nullptr, nullptr, 0, tokens, tokens}};
  call.scale = static_cast<float>(of.scale), call.softcap = static_cast<float>(of.softcap);
  call.n = 1, call.heads = heads, call.q = q.as<float>();
  FlatGoal goal{true, kError, false, 7};
  FlatReport report;
  int32_t end = tokens;
  const auto exact = [&] {
    const int32_t all[] = {0, end};
    call.o = whole.as<float>(), call.lse = nullptr;
    attend_spans(partials, call, all, 1);
  };
  const auto sampled = [&](FlatReport* asked) {
    const int32_t spans[] = {0, kSinks, between, end};
    call.o = near.as<float>(), call.lse = near_lse.as<float>();
    attend_spans(partials, call, spans, 2);
    index.attend({far.as<float>(), far_lse.as<float>()}, goal, q.as<float>(), near_lse.as<float>(), asked);
    const AttentionPart parts[] = {{near.as<float>(), near_lse.as<float>()}, {far.as<float>(), far_lse.as<float>()}};
    merge_parts(partials, {merged.as<float>(), nullptr}, parts, 2, heads, dim);
  };
  const auto read = [&](const Buffer& from) {
    std::vector<float> out(outputs);
    runtime.download(out.data(), from.as<float>(), out.size() * 4);
    return out;
  };
  const int32_t queries = std::min(decoded, b.tiny ? 2 : kQueries);
  double error = 0, kept = 0;
  for (int32_t i = decoded - queries; i < decoded; i++) {
    std::vector<float> query(outputs);
    for (size_t j = 0; j < outputs; j++) query[j] = half_to_float(of.decode_query(static_cast<uint32_t>(i), 0)[j]);
    runtime.upload(q.as<float>(), query.data(), query.size() * 4);
    end = tokens - decoded + i + 1;
    exact();
    for (int32_t again = 0; again < kDraws; again++) {
      goal.draw = static_cast<uint32_t>((i - decoded + queries) * kDraws + again);
      sampled(&report);
      error += relative_error(read(merged), read(whole), dim) / (queries * kDraws);
      kept += report.keys_kept / kv_heads / (queries * kDraws);
    }
  }
  const double exact_ms = b.time(exact, b.tiny ? 1 : 20), ms = b.time([&] { sampled(nullptr); }, b.tiny ? 1 : 20);
  std::printf("{\"row\":\"sampled attention, int4 codes, recorded heads\",\"model\":\"%s\",\"layer\":%u,\"length\":%d,\"heads\":%d,\"kv_heads\":%d,"
              "\"dim\":%d,\"ms\":%.4f,\"exact_ms\":%.4f,\"times_faster\":%.2f,\"rows_per_kv_head\":%.0f,\"relative_error\":%.4f}\n",
              model.c_str(), of.layer, tokens, heads, kv_heads, dim, ms, exact_ms, exact_ms / ms, kept, error);
}

}  // namespace

void measure_recorded(Bench& b, const std::string& path) {
  const kvasir_bench::Recorded heads(path);
  for (const kvasir_bench::RecordedLayer& layer : heads.layers()) {
    if (heads.tokens() < heads.decoded() + 2 * kSinks || heads.decoded() == 0) {
      fail(KVASIR_ARGUMENT, "Cannot measure %s: %u tokens of which %u were decoded, expected some to search among", path.c_str(),
           heads.tokens(), heads.decoded());
    }
    measure_layer(b, heads.name(), layer);
  }
}

}  // namespace kvasir
