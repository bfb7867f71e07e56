// Sampled attention beside exact attention: sinks and window exact, 4-bit scan, draw, attention to what was kept, merge.
//   cmake -S native -B build && cmake --build build -j2 --target kvasir_sampled_attention_bench
//   build/kvasir_sampled_attention_bench [threads=1] [error=0.05] [codes=int4] [isa=auto] [rounds=15] [keys=32768 dim=64 group=3 kvHeads=3 | heads.kvqk] [megabytes=768] [json=32]
// Layers take turns, at least `megabytes` of cache: after exact attention to one comes sampled attention to the one that is
// farthest away in turn, so that nothing is found in a cache and both meet the same moments of a shared machine. Recorded heads are repeated until there are enough. Generated heads have logits
// of standard deviation 2, correlated within a group, and sinks and a window with about half of the mass.
// json=L: one JSON line instead, for bench/gpu.sh: what L such layers take a token, and the error over the last `queries=32` queries.
// One thread: its CPU time, as the machine may be shared. More: wall time. Medians over rounds, of ratios within a round.
#include <immintrin.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "deviation.h"
#include "draw.h"
#include "kvasir_backend.h"
#include "kvasir_index.h"
#include "read_bandwidth.h"
#include "recorded.h"
#include "sample_kernels.h"
#include "sampler.h"

namespace {

using namespace kvasir;

constexpr int32_t kSinks = 4, kWindow = 512, kDraws = 4;

int threads = 1, rounds = 15, token_layers = 0, most_queries = 32;

double seconds() {
  timespec t;
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double median(std::vector<double> values) {
  if (values.empty()) return NAN;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

void expect(int32_t status) {
  if (status == KVASIR_OK) return;
  char text[512];
  kvasir_last_error(text, sizeof text);
  std::fprintf(stderr, "%s\n", text);
  std::exit(1);
}

struct Layer {
  int32_t n, dim, group, kv_heads;
  float scale;
  int32_t segment[KVASIR_SEGMENT_FIELDS];
  kvasir_tensor q;
  std::vector<float> queries;
  std::vector<std::vector<float>> asked;  // what its error is measured over, in order; the last is the newest key's
  Rows rows;
  std::unique_ptr<Codes> codes;
  int32_t heads() const { return group * kv_heads; }
};

kvasir_tensor make(kvasir_context* ctx, int32_t dtype, std::vector<int32_t> shape) {
  kvasir_tensor id = 0;
  expect(kvasir_tensor_create(ctx, &id, dtype, static_cast<int32_t>(shape.size()), shape.data(), KVASIR_SEQUENCE));
  return id;
}

// Tensors of one layer and pointers to its rows; the keys' codes come with finish().
std::unique_ptr<Layer> make_layer(kvasir_context* ctx, int32_t n, int32_t dim, int32_t group, int32_t kv_heads, float scale) {
  auto l = std::make_unique<Layer>();
  l->n = n, l->dim = dim, l->group = group, l->kv_heads = kv_heads, l->scale = scale;
  const kvasir_tensor k = make(ctx, KVASIR_F16, {kv_heads, n, dim}), v = make(ctx, KVASIR_F16, {kv_heads, n, dim});
  const int32_t fields[] = {0, n, static_cast<int32_t>(k), static_cast<int32_t>(v), 0, 0};
  std::copy(fields, fields + KVASIR_SEGMENT_FIELDS, l->segment);
  l->q = make(ctx, KVASIR_F32, {1, l->heads(), dim});
  l->queries.resize(static_cast<size_t>(l->heads() * dim));
  const int32_t desc[KVASIR_SEGMENT_DESC] = {0, KVASIR_F16, kv_heads, n, dim};
  l->rows.append(std::make_shared<Segment>(desc, kvasir_tensor_memory(ctx, k), kvasir_tensor_memory(ctx, v), nullptr, nullptr));
  return l;
}

void finish(kvasir_context* ctx, Layer& l, const IndexIsa& isa, Codes::Kind kind, Pool& pool,
            const std::shared_ptr<ChunkMemory>& memory) {
  expect(kvasir_tensor_write(ctx, l.q, l.queries.data(), static_cast<double>(l.queries.size() * 4), 0));
  l.codes = std::make_unique<Codes>(&isa, kind, l.kv_heads, l.dim, memory);
  l.codes->append(l.rows, kSinks, l.n - kWindow - kSinks, &pool);
}

uint16_t half(float x) { return static_cast<uint16_t>(_cvtss_sh(x, 0)); }

// k = mean + s q' / |q'|^2 + noise, where q' leans to all queries of the group: logits with the wanted spread.
void generate(Layer& l, uint64_t seed) {
  static std::vector<float> table;
  uint32_t state = static_cast<uint32_t>(seed) * 747796405u + 1;
  const auto uniform = [&state] { return (lowbias32(state++) + 0.5) * 0x1p-32; };
  const auto normal = [&] { return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform()); };
  while (table.size() < 1 << 18) table.push_back(static_cast<float>(normal()));
  const size_t d = static_cast<size_t>(l.dim);
  const Segment& s = *l.rows.segments().front();
  for (int32_t h = 0; h < l.kv_heads; h++) {
    std::vector<float> common(d), mean(d);
    for (size_t i = 0; i < d; i++) common[i] = static_cast<float>(normal()), mean[i] = static_cast<float>(2 * normal());
    float* q = l.queries.data() + static_cast<size_t>(h * l.group) * d;
    double norm = 0;
    for (size_t i = 0; i < d; i++) norm += double(common[i]) * double(common[i]);
    for (int32_t g = 0; g < l.group; g++) {
      for (size_t i = 0; i < d; i++) q[static_cast<size_t>(g) * d + i] = 2.0f * common[i] + 1.2f * static_cast<float>(normal());
    }
    for (int32_t i = 0; i < l.n; i++) {
      uint16_t* key = static_cast<uint16_t*>(const_cast<void*>(s.key(h, i)));
      uint16_t* value = static_cast<uint16_t*>(const_cast<void*>(s.value(h, i)));
      const float* noise = table.data() + lowbias32(state++) % (table.size() - 2 * d);
      double logit = 1.6 * double(table[lowbias32(state++) % table.size()]);
      // What the window and the sinks gain makes them half of the mass.
      if (i >= l.n - kWindow) logit += 0.8 * std::log(double(l.n) / kWindow);
      if (i < kSinks) logit += 0.95 * std::log(double(l.n) / kSinks);
      const float along = static_cast<float>(logit / (2 * norm * double(l.scale)));
      for (size_t x = 0; x < d; x++) {
        key[x] = half(mean[x] + along * common[x] + 0.6f * noise[x]);
        value[x] = half(noise[x + d]);
      }
    }
  }
}

struct Bench {
  kvasir_context* ctx;
  const IndexIsa& isa;
  Pool pool;
  std::vector<Scratch> scratch;
  SampleMemory samples;
  Environment environment;
  Codes::Kind kind;
  double error;

  Bench(kvasir_context* context, const char* isa_name, Codes::Kind kind_, double error_)
      : ctx(context), isa(find_index_isa(isa_name)), pool(*kvasir_context_executor(context)),
        scratch(static_cast<size_t>(pool.threads())), kind(kind_), error(error_) {
    environment.isa = &isa, environment.pool = &pool, environment.scratch = &scratch;
    environment.samples = &samples;
    environment.chunks = std::make_shared<ChunkMemory>();
  }

  // The scan alone, as the sampler runs it, of all KV heads. Returns the seconds until queries were made ready.
  double scan(Layer& l, std::vector<int16_t>& logs, const float* exact) {
    const int32_t n = l.codes->size(), chunks = l.codes->chunks();
    constexpr int32_t kPiece = 256;  // keys that go through floats at a time
    constexpr size_t stride = Codes::kChunkKeys + 96;
    const size_t room = stride * static_cast<size_t>(l.group);  // a chunk's, of every thread
    logs.resize(room * static_cast<size_t>(pool.threads()));
    const int32_t ranges = (chunks + 3) / 4;
    const double begin = seconds();
    samples.prepared.resize(static_cast<size_t>(l.kv_heads));
    for (int32_t h = 0; h < l.kv_heads; h++) l.codes->fetch(h);
    pool.run(l.kv_heads, [&](int32_t h, int) {
      l.codes->prepare(samples.prepared[static_cast<size_t>(h)], h, l.queries.data() + static_cast<size_t>(h * l.group * l.dim),
                       l.group, l.scale, 1, Codes::kPlain);
    });
    const double ready = seconds() - begin;
    pool.run(l.kv_heads * ranges, [&](int32_t task, int worker) {
      const int32_t h = task / ranges;
      const PreparedQuery& p = samples.prepared[static_cast<size_t>(h)];
      float gains[8], bases[8], sums[8] = {};
      if (kind != Codes::kInt4) {
        alignas(64) float floats[8 * (kPiece + 32)];
        const int32_t end = std::min(n, (task % ranges + 1) * 4 * Codes::kChunkKeys);
        for (int32_t from = task % ranges * 4 * Codes::kChunkKeys; from < end; from += kPiece) {
          const int32_t some = std::min(kPiece, end - from);
          l.codes->score_all(p, l.rows, from, from + some, floats, kPiece + 32,
                             kind == Codes::kInt8 && h + 1 < l.kv_heads ? l.codes->blocks(h + 1, 0) : nullptr);
        }
        return;
      }
      for (int32_t c = task % ranges * 4; c < std::min(chunks, task % ranges * 4 + 4); c++) {
        for (int32_t g = 0; g < l.group; g++) {
          gains[g] = p.codes().coarse_factors[g] * kLogUnit;
          bases[g] = (p.base(c)[g] - exact[h * l.group + g]) * kLogUnit + kLogOne;
        }
        const int32_t blocks = (std::min(n - c * Codes::kChunkKeys, Codes::kChunkKeys) + 31) / 32;
        isa.sample->scan(logs.data() + static_cast<size_t>(worker) * room, stride, l.codes->kept_shape(), p.codes(), gains, bases, l.codes->blocks(h, c), blocks,
                         l.codes->ahead(h, c, h + 1 < l.kv_heads ? l.codes->blocks(h + 1, 0) : nullptr), sums);
      }
    });
    return ready;
  }

  // `distinct`: of the layers, how many are not repeated ones.
  void run(std::vector<std::unique_ptr<Layer>>& layers, size_t distinct, const char* what) {
    const Layer& f = *layers.front();
    const int32_t heads = f.heads(), capacity = std::max(4096, f.n / 16);
    const kvasir_tensor whole = make(ctx, KVASIR_F32, {1, heads, f.dim}), out = make(ctx, KVASIR_F32, {1, heads, f.dim});
    const kvasir_tensor wo = make(ctx, KVASIR_F32, {1, heads, f.dim}), wl = make(ctx, KVASIR_F32, {1, heads});
    const kvasir_tensor ho = make(ctx, KVASIR_F32, {1, heads, f.dim}), hl = make(ctx, KVASIR_F32, {1, heads});
    const kvasir_tensor tokens = make(ctx, KVASIR_I32, {f.kv_heads, capacity}), counts = make(ctx, KVASIR_I32, {f.kv_heads});
    const kvasir_tensor bias = make(ctx, KVASIR_F32, {f.kv_heads, capacity});
    const auto at = [&](kvasir_tensor t) { return kvasir_tensor_address(ctx, t); };
    const float *exact = static_cast<const float*>(at(wl)), *got = static_cast<const float*>(at(out)), *want = static_cast<const float*>(at(whole));
    const size_t output = static_cast<size_t>(heads) * static_cast<size_t>(f.dim);
    const int32_t spans[] = {0, kSinks, f.n - kWindow, f.n};
    const kvasir_tensor parts[] = {wo, wl, ho, hl};
    std::vector<float> errors(static_cast<size_t>(f.kv_heads));
    std::vector<int32_t> kv_heads(static_cast<size_t>(f.kv_heads));
    std::iota(kv_heads.begin(), kv_heads.end(), 0);
    std::vector<int16_t> logs;
    enum { kExact, kScan, kReady, kWindowPart, kSearch, kKept, kMerge, kWarmScan, kWarmSearch, kWarmKept, kTimes };
    std::vector<double> times[kTimes], totals, ratios, bandwidths, drawn, drawn_warm;
    double kept = 0, deviation = 0;
    const size_t all = layers.size();
    const double count = static_cast<double>(all);
    uint32_t draw = 1;
    const auto search_by = [&](Layer& l, uint32_t which) {
      Goal goal;
      goal.value = error, goal.draw = which;
      Report report;
      sample_by_error(environment, {l.heads(), l.kv_heads, l.dim, l.scale, 0, {}, false, 0}, *l.codes, l.rows, l.codes->size(),
                      kv_heads.data(), l.kv_heads, {l.queries.data(), exact, goal},
                      {capacity, static_cast<int32_t*>(at(tokens)), static_cast<float*>(at(bias)),
                       static_cast<int32_t*>(at(counts)), errors.data()},
                      report);
      return report.keys_kept;
    };
    const auto search = [&](Layer& l) { return search_by(l, lowbias32(draw++)); };
    for (int round = 0; round < rounds; round++) {
      bandwidths.push_back(kvasir_bench::read_bandwidth(pool, seconds) * 1e-9);
      double spent[kTimes] = {};
      kept = 0, deviation = 0;
      const double begin = seconds();
      for (size_t i = 0; i < all; i++) spent[kReady] += scan(*layers[i], logs, exact);
      spent[kScan] = seconds() - begin;
      for (size_t i = 0; i < all; i++) {
        const Layer& first = *layers[i];
        const double start = seconds();
        expect(kvasir_attend_causal(ctx, whole, first.q, first.segment, 1, first.scale, 0, 0));
        const double t0 = seconds();
        Layer& l = *layers[(i + all / 2) % all];
        expect(kvasir_attend_window(ctx, wo, wl, l.q, l.segment, 1, l.scale, 0, spans, 2));
        const double t1 = seconds();
        kept += search(l);
        const double t2 = seconds();
        expect(kvasir_attend_topk(ctx, ho, hl, l.q, l.segment, 1, l.scale, 0, tokens, counts, bias));
        const double t3 = seconds();
        expect(kvasir_merge(ctx, out, parts, 2));
        const double t4 = seconds();
        spent[kExact] += t0 - start;
        spent[kWindowPart] += t1 - t0, spent[kSearch] += t2 - t1, spent[kKept] += t3 - t2, spent[kMerge] += t4 - t3;
      }
      double sum = 0;
      for (int part : {kWindowPart, kSearch, kKept, kMerge}) sum += spent[part] / count;
      for (int part : {kExact, kScan, kReady, kWindowPart, kSearch, kKept, kMerge}) times[part].push_back(spent[part] / count);
      totals.push_back(sum);
      ratios.push_back(sum / times[kExact].back());
      drawn.push_back(spent[kSearch] / spent[kScan]);
      Layer& last = *layers[(all - 1 + all / 2) % all];
      for (int again = 0; again < 8; again++) {
        const double t0 = seconds();
        scan(last, logs, exact);
        const double t1 = seconds();
        search(last);
        const double t2 = seconds();
        times[kWarmScan].push_back(t1 - t0), times[kWarmSearch].push_back(t2 - t1);
        for (int twice = 0; twice < 2; twice++) {
          const double t3 = seconds();
          expect(kvasir_attend_topk(ctx, ho, hl, last.q, last.segment, 1, last.scale, 0, tokens, counts, bias));
          if (twice == 1) times[kWarmKept].push_back(seconds() - t3);
        }
        drawn_warm.push_back(times[kWarmSearch].back() / times[kWarmScan].back());
      }
      expect(kvasir_attend_causal(ctx, whole, last.q, last.segment, 1, last.scale, 0, 0));
      deviation = std::max(deviation, kvasir_bench::deviation(got, want, output));
    }
    const double cache = 4.0 * f.dim * f.n * f.kv_heads, row = f.rows.segments().front()->row_bytes(), scan_bytes = kind == Codes::kNone ? row : f.codes->kept_key_bytes(), codes = scan_bytes * f.codes->size() * f.kv_heads;
    const auto microseconds = [&](int part) { return median(times[part]) * 1e6; };
    const double both = f.codes->key_bytes() * f.codes->size() * f.kv_heads / median(times[kSearch]) * 1e-9;
    const double rate = cache / median(times[kExact]) * 1e-9, read = median(bandwidths);
    const double searched = codes / median(times[kScan]) * 1e-9, scanned = codes / (median(times[kScan]) - median(times[kReady])) * 1e-9;
    if (token_layers > 0) {
      // The device's bench asks the same: each query sees the keys up to its own, drawn from by the same numbers.
      double error_sum = 0, kept_sum = 0, outputs = 0;
      for (size_t i = 0; i < distinct; i++) {
        Layer& l = *layers[i];
        const int32_t queries = static_cast<int32_t>(l.asked.size());
        for (int32_t j = 0; j < queries * kDraws; j++) {
          l.queries = l.asked[static_cast<size_t>(j / kDraws)];
          expect(kvasir_tensor_write(ctx, l.q, l.queries.data(), static_cast<double>(l.queries.size() * 4), 0));
          const int32_t end = l.n - (queries - 1 - j / kDraws), every[] = {0, end}, near[] = {0, kSinks, l.n - kWindow, end};
          expect(kvasir_attend_window(ctx, whole, hl, l.q, l.segment, 1, l.scale, 0, every, 1));
          expect(kvasir_attend_window(ctx, wo, wl, l.q, l.segment, 1, l.scale, 0, near, 2));
          kept_sum += search_by(l, static_cast<uint32_t>(j)) / f.kv_heads;
          expect(kvasir_attend_topk(ctx, ho, hl, l.q, l.segment, 1, l.scale, 0, tokens, counts, bias));
          expect(kvasir_merge(ctx, out, parts, 2));
          error_sum += kvasir_bench::mean_deviation(got, want, output, static_cast<size_t>(f.dim));
          outputs++;
        }
      }
      std::printf("{\"row\":\"attention of a token, %d layers, all on host, %s heads\",\"threads\":%d,\"length\":%d,\"ms\":%.2f,\"exact_ms\":%.2f,"
                  "\"rows_per_kv_head\":%.0f,\"relative_error\":%.4f}\n",
                  token_layers, what, threads, f.n, median(totals) * 1e3 * token_layers, median(times[kExact]) * 1e3 * token_layers,
                  kept_sum / outputs, error_sum / outputs);
      return;
    }
    std::printf(
        "%-14s threads=%d n=%-7d d=%-3d group=%d kvHeads=%d layers=%zu: sampled/exact %.3f (%.1f / %.1f us)\n"
        "  exact %.1f GB/s = %.0f %% of %.1f; scan %.1f GB/s = %.0f %% (%.0f %% with making queries ready); scan + draw / scan %.3f cold, %.3f warm; "
        "scan + draw goes through whole codes at %.1f GB/s = %.0f %%\n"
        "  us: window %.1f, scan + draw %.1f (scan %.1f; warm %.1f, %.1f), kept %.1f (warm %.1f), merge %.1f; rows per KV head %.0f = %.2f %%; "
        "codes %.1f %% of keys; error of the last %.3f\n",
        what, threads, f.n, f.dim, f.group, f.kv_heads, all, median(ratios), median(totals) * 1e6, microseconds(kExact), rate,
        100 * rate / read, read, scanned, 100 * scanned / read, 100 * searched / read, median(drawn), median(drawn_warm), both, 100 * both / read, microseconds(kWindowPart),
        microseconds(kSearch), microseconds(kScan), microseconds(kWarmScan), microseconds(kWarmSearch), microseconds(kKept), microseconds(kWarmKept),
        microseconds(kMerge), kept / count / f.kv_heads, 100 * kept / count / f.kv_heads / f.n,
        100.0 * static_cast<double>(f.codes->bytes()) / (cache / 2), deviation);
    std::fflush(stdout);
  }
};

}  // namespace

int main(int argc, char** argv) {
  std::string file, isa = "auto", codes = "int4";
  int32_t keys = 32768, dim = 64, group = 3, kv_heads = 3;
  double error = 0.05, megabytes = 768;
  for (int i = 1; i < argc; i++) {
    const std::string arg = argv[i], value = arg.substr(std::min(arg.size(), arg.find('=') + 1));
    if (arg.rfind("threads=", 0) == 0) threads = std::atoi(value.c_str());
    else if (arg.rfind("json=", 0) == 0) token_layers = std::atoi(value.c_str());
    else if (arg.rfind("queries=", 0) == 0) most_queries = std::max(1, std::atoi(value.c_str()));
    else if (arg.rfind("rounds=", 0) == 0) rounds = std::max(1, std::atoi(value.c_str()));
    else if (arg.rfind("error=", 0) == 0) error = std::atof(value.c_str());
    else if (arg.rfind("codes=", 0) == 0) codes = value;
    else if (arg.rfind("isa=", 0) == 0) isa = value;
    else if (arg.rfind("keys=", 0) == 0) keys = std::atoi(value.c_str());
    else if (arg.rfind("dim=", 0) == 0) dim = std::atoi(value.c_str());
    else if (arg.rfind("group=", 0) == 0) group = std::atoi(value.c_str());
    else if (arg.rfind("kvHeads=", 0) == 0) kv_heads = std::atoi(value.c_str());
    else if (arg.rfind("megabytes=", 0) == 0) megabytes = std::atof(value.c_str());
    else file = arg;
  }
  kvasir_context* ctx = kvasir_context_create(("isa=" + isa + ",threads=" + std::to_string(threads)).c_str());
  if (ctx == nullptr) expect(KVASIR_INTERNAL);
  const Codes::Kind kind = codes == "int8" ? Codes::kInt8 : codes == "f16" ? Codes::kNone : Codes::kInt4;
  Bench bench(ctx, isa.c_str(), kind, error);
  std::vector<std::unique_ptr<Layer>> layers;
  double bytes = 0;
  if (file.empty()) {
    while (bytes < megabytes * 1e6) {
      layers.push_back(make_layer(ctx, keys, dim, group, kv_heads, 1 / std::sqrt(static_cast<float>(dim))));
      generate(*layers.back(), layers.size());
      layers.back()->asked = {layers.back()->queries};
      finish(ctx, *layers.back(), bench.isa, kind, bench.pool, bench.environment.chunks);
      bytes += 4.0 * dim * keys * kv_heads;
    }
    bench.run(layers, layers.size(), "generated");
  } else {
    const kvasir_bench::Recorded heads(file);
    for (uint32_t again = 0; bytes < megabytes * 1e6; again++) {
      for (const auto& r : heads.layers()) {
        const int32_t n = static_cast<int32_t>(r.tokens), d = static_cast<int32_t>(r.head_dim);
        layers.push_back(make_layer(ctx, n, d, static_cast<int32_t>(r.group()), static_cast<int32_t>(r.kv_heads),
                                    static_cast<float>(r.scale)));
        Layer& l = *layers.back();
        const Segment& s = *l.rows.segments().front();
        for (uint32_t h = 0; h < r.kv_heads; h++) {
          std::memcpy(const_cast<void*>(s.key(static_cast<int32_t>(h), 0)), r.key(h, 0), static_cast<size_t>(n) * r.head_dim * 2);
          std::memcpy(const_cast<void*>(s.value(static_cast<int32_t>(h), 0)), r.value(h, 0), static_cast<size_t>(n) * r.head_dim * 2);
        }
        const uint32_t asked = std::min({r.decoded, static_cast<uint32_t>(most_queries), static_cast<uint32_t>(kWindow)});
        for (uint32_t step = r.decoded - asked; step < r.decoded; step++) {
          for (size_t i = 0; i < l.queries.size(); i++) l.queries[i] = _cvtsh_ss(r.decode_query(step, 0)[i]);
          l.asked.push_back(l.queries);
        }
        l.queries = l.asked[l.asked.size() - 1 - again % l.asked.size() % 8];
        finish(ctx, l, bench.isa, kind, bench.pool, bench.environment.chunks);
        bytes += 4.0 * d * n * l.kv_heads;
      }
    }
    bench.run(layers, heads.layers().size(), "recorded");
  }
  layers.clear();
  return kvasir_context_destroy(ctx);
}
