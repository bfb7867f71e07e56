// Attention beside the limits of the machine: decode against read bandwidth, prefill against the multiply-add peak.
//   c++ -O2 -std=c++17 -I native/include native/bench/attention_bench.cc -Lbuild -lkvasir_cpu -Wl,-rpath,build -o
//   attention_bench
//   ./attention_bench [isa=avx512] [threads=2] [keys=8192] [decode | prefill | sink]
// Caches of several layers take turns, 256 MiB of them and more, so that a decode step finds none of its keys in a
// cache.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kvasir_backend.h"
#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void expect(int32_t status) {
  if (status == KVASIR_OK) return;
  char text[512];
  kvasir_last_error(text, sizeof text);
  std::fprintf(stderr, "%s\n", text);
  std::exit(1);
}

#ifdef __x86_64__
// Billions of multiply-adds a second of one thread, 16-bit products into 32 bits: what the prefill core is made of.
__attribute__((target("avx512vnni,avx512bw"))) double peak_avx512() {
  __m512i acc[12], a = _mm512_set1_epi16(1), b = _mm512_set1_epi16(2);
#pragma GCC unroll 12
  for (int j = 0; j < 12; j++) acc[j] = _mm512_setzero_si512();
  const int64_t rounds = 4000000;
  const double start = seconds();
  for (int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++) asm volatile("vpdpwssd %2, %1, %0" : "+v"(acc[j]) : "v"(a), "v"(b));
  return rounds * 12 * 32 / (seconds() - start) * 1e-9;
}
__attribute__((target("avx2"))) double peak_avx2() {
  __m256i acc[10], a = _mm256_set1_epi16(1), b = _mm256_set1_epi16(2);
#pragma GCC unroll 10
  for (int j = 0; j < 10; j++) acc[j] = _mm256_setzero_si256();
  const int64_t rounds = 4000000;
  const double start = seconds();
  for (int64_t i = 0; i < rounds; i++)
#pragma GCC unroll 10
    for (int j = 0; j < 10; j++) {
      __m256i t;
      asm volatile("vpmaddwd %2, %1, %0" : "=x"(t) : "x"(a), "x"(b));
      asm volatile("vpaddd %1, %0, %0" : "+x"(acc[j]) : "x"(t));
    }
  return rounds * 10 * 16 / (seconds() - start) * 1e-9;
}
#endif

double peak(const std::string& isa) {
#ifdef __x86_64__
  if (isa == "avx512") return peak_avx512();
  if (isa == "avx2") return peak_avx2();
#endif
  return 0;
}

struct Layer {
  int32_t segments[64 * KVASIR_SEGMENT_FIELDS];
  int32_t count;
};

struct Bench {
  kvasir_context* ctx;
  std::string isa;
  int threads;

  kvasir_tensor make(int32_t dtype, std::vector<int32_t> shape) {
    kvasir_tensor id = 0;
    expect(kvasir_tensor_create(ctx, &id, dtype, static_cast<int32_t>(shape.size()), shape.data(), KVASIR_SEQUENCE));
    return id;
  }
  kvasir_tensor random(std::vector<int32_t> shape) {
    size_t count = 1;
    for (int32_t d : shape) count *= d;
    std::vector<float> x(count);
    uint32_t state = 1;
    for (float& v : x) {
      state = state * 1664525u + 1013904223u;
      v = (static_cast<int32_t>(state) >> 8) * 0x1p-23f;
    }
    const kvasir_tensor id = make(KVASIR_F32, shape);
    expect(kvasir_tensor_write(ctx, id, x.data(), count * 4.0, 0));
    return id;
  }
  Layer layer(int32_t dtype, int32_t kv_heads, int32_t d, int32_t keys) {
    const int32_t size = std::min(keys, std::max(1024, keys / 32));
    const kvasir_tensor rows = random({size, kv_heads, d});
    Layer l{};
    for (int32_t at = 0; at < keys; at += size, l.count++) {
      int32_t* s = l.segments + l.count * KVASIR_SEGMENT_FIELDS;
      s[0] = at, s[1] = size;
      s[2] = int32_t(make(dtype, {kv_heads, size, d})), s[3] = int32_t(make(dtype, {kv_heads, size, d}));
      if (dtype == KVASIR_I8)
        s[4] = int32_t(make(KVASIR_F32, {kv_heads, size})), s[5] = int32_t(make(KVASIR_F32, {kv_heads, size}));
      expect(kvasir_append(ctx, s, 0, rows, rows));
    }
    expect(kvasir_tensor_destroy(ctx, rows));
    return l;
  }
  void free(const Layer& l) {
    for (int32_t i = 0; i < l.count * KVASIR_SEGMENT_FIELDS; i++)
      if (i % KVASIR_SEGMENT_FIELDS > 1 && l.segments[i] != 0)
        expect(kvasir_tensor_destroy(ctx, kvasir_tensor(l.segments[i])));
  }

  void decode(int32_t dtype, int32_t kv_heads, int32_t group, int32_t d, int32_t keys) {
    const int32_t bytes = dtype == KVASIR_F32 ? 4 : dtype == KVASIR_F16 ? 2 : 1;
    const double size = 2.0 * kv_heads * keys * (d * bytes + (dtype == KVASIR_I8 ? 4 : 0));
    std::vector<Layer> layers;
    for (double total = 0; total < 512e6 || layers.size() < 2; total += size)
      layers.push_back(layer(dtype, kv_heads, d, keys));
    const kvasir_tensor q = random({1, kv_heads * group, d}), out = make(KVASIR_F32, {1, kv_heads * group, d});
    double best = 1e9, bandwidth = 0;
    for (int round = 0; round < 5; round++) {
      double measured = 0;
      expect(kvasir_context_bandwidth(ctx, &measured, 512));
      bandwidth = std::max(bandwidth, measured);
      const double start = seconds();
      for (const Layer& l : layers) expect(kvasir_attend_causal(ctx, out, q, l.segments, l.count, 0.1f, 0, 0));
      best = std::min(best, (seconds() - start) / layers.size());
    }
    std::printf(
        "decode  %-8s threads=%d %s d=%-3d group=%d kvHeads=%d keys=%-6d %8.1f us  %5.1f GB/s of %5.1f: %.0f %%\n",
        isa.c_str(), threads,
        bytes == 4   ? "f32"
        : bytes == 2 ? "f16"
                     : "i8 ",
        d, group, kv_heads, keys, best * 1e6, size / best * 1e-9, bandwidth, size / best * 1e-7 / bandwidth);
    for (const Layer& l : layers) free(l);
  }

  void prefill(int32_t dtype, int32_t kv_heads, int32_t group, int32_t d, int32_t keys, int32_t n) {
    const Layer l = layer(dtype, kv_heads, d, keys);
    const kvasir_tensor q = random({n, kv_heads * group, d}), out = make(KVASIR_F32, {n, kv_heads * group, d});
    const double pairs = static_cast<double>(n) * (keys - n) + n * (n + 1.0) / 2;
    const double work = pairs * kv_heads * group * d * 2;
    double best = 1e9, top = 0;
    for (int round = 0; round < 3; round++) {
      top = std::max(top, peak(isa) * threads);
      const double start = seconds();
      expect(kvasir_attend_causal(ctx, out, q, l.segments, l.count, 0.1f, 0, 0));
      best = std::min(best, seconds() - start);
    }
    std::printf(
        "prefill %-8s threads=%d %s d=%-3d group=%d kvHeads=%d n=%-4d keys=%-6d %8.2f ms  %6.1f GMAC/s of %6.1f: %.0f "
        "%%\n",
        isa.c_str(), threads,
        dtype == KVASIR_F32   ? "f32"
        : dtype == KVASIR_F16 ? "f16"
                              : "i8 ",
        d, group, kv_heads, n, keys, best * 1e3, work / best * 1e-9, top, top > 0 ? work / best * 1e-7 / top : 0);
    free(l);
  }

  // Time of a prompt's attention with a sink over that without, in turns.
  void sink(int32_t dtype, int32_t kv_heads, int32_t group, int32_t d, int32_t keys, int32_t n, int32_t every, int32_t topk) {
    const Layer l = layer(dtype, kv_heads, d, keys);
    const int32_t heads = kv_heads * group, m = (keys + every - 1) / every - (keys - n + every - 1) / every;
    const kvasir_tensor q = random({n, heads, d}), out = make(KVASIR_F32, {n, heads, d});
    const kvasir_tensor tokens = make(KVASIR_I32, {m, heads, topk}), sums = random({heads, keys});
    double plain = 1e9, best = 1e9, both = 1e9;
    const auto timed = [&](double& least, auto run) {
      const double start = seconds();
      expect(run());
      least = std::min(least, seconds() - start);
    };
    for (int round = 0; round < 5; round++) {
      timed(plain, [&] { return kvasir_attend_causal(ctx, out, q, l.segments, l.count, 0.1f, 0, 0); });
      timed(best, [&] {
        return kvasir_attend_causal_sink(ctx, out, q, l.segments, l.count, 0.1f, 0, 0, every, tokens, 0, 0);
      });
      timed(both, [&] {
        return kvasir_attend_causal_sink(ctx, out, q, l.segments, l.count, 0.1f, 0, 0, every, tokens, 0, sums);
      });
    }
    std::printf("sink    %-8s threads=%d d=%-3d group=%d kvHeads=%d n=%-4d keys=%-6d every=%-2d best %d: %.2fx, and sums %.2fx\n",
                isa.c_str(), threads, d, group, kv_heads, n, keys, every, topk, best / plain, both / plain);
    free(l);
  }
};

}  // namespace

int main(int argc, char** argv) {
  std::string isa = "avx512", mode;
  int threads = 2, keys = 8192;
  for (int i = 1; i < argc; i++) {
    if (std::strncmp(argv[i], "isa=", 4) == 0) isa = argv[i] + 4;
    else if (std::strncmp(argv[i], "threads=", 8) == 0) threads = std::atoi(argv[i] + 8);
    else if (std::strncmp(argv[i], "keys=", 5) == 0) keys = std::atoi(argv[i] + 5);
    else mode = argv[i];
  }
  Bench b{kvasir_context_create(("isa=" + isa + ",threads=" + std::to_string(threads)).c_str()), isa, threads};
  if (b.ctx == nullptr) expect(KVASIR_INTERNAL);
  if (mode != "prefill") {
    b.decode(KVASIR_F16, 3, 3, 64, keys);
    b.decode(KVASIR_I8, 3, 3, 64, keys);
    b.decode(KVASIR_F32, 3, 3, 64, keys);
    b.decode(KVASIR_F16, 1, 4, 256, keys);
    b.decode(KVASIR_I8, 1, 4, 256, keys);
    b.decode(KVASIR_F16, 8, 4, 128, keys);
  }
  if (mode == "sink") {
    for (int every : {1, 8, 16}) b.sink(KVASIR_F16, 3, 3, 64, keys, std::min(keys, 512), every, 100);
    b.sink(KVASIR_F16, 8, 4, 128, keys, std::min(keys, 512), 8, 100);
    return kvasir_context_destroy(b.ctx);
  }
  if (mode != "decode") {
    const int n = std::min(keys, 512);
    b.prefill(KVASIR_F16, 3, 3, 64, 512, 512);
    b.prefill(KVASIR_F16, 3, 3, 64, keys, n);
    b.prefill(KVASIR_I8, 3, 3, 64, keys, n);
    b.prefill(KVASIR_F16, 1, 4, 256, keys, n);
    b.prefill(KVASIR_F16, 8, 4, 128, keys, n);
    b.prefill(KVASIR_F32, 3, 3, 64, keys, n);
  }
  return kvasir_context_destroy(b.ctx);
}
