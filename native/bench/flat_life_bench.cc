// What the flat index costs while tokens come, each figure beside its bar: insertion in blocks as decoding does it, memory beside
// the cache's f16 keys, and searches while another type is being built, beside the exact scan. By the library's door alone.
//   cmake -S native -B build && cmake --build build -j2 --target kvasir_flat_life_bench
//   build/kvasir_flat_life_bench [keys=131072] [kvHeads=2]
// One thread, its CPU time, medians; latency while building is also given as wall time, since a builder shares the machine.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <time.h>
#include <vector>

#include "kvasir_index.h"
#include "memory.h"

namespace {

constexpr int32_t kBlock = 64;       // tokens that leave the window at a time (attention/retrieval.ts)
constexpr int32_t kInserted = 16384;  // the last of them, block by block: whole chunks with all their centrings

double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double wall_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void expect(int32_t status) {
  if (status == KVASIR_OK) return;
  char text[512];
  kvasir_index_last_error(text, sizeof text);
  std::fprintf(stderr, "%s\n", text);
  std::exit(1);
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// Numbers from -2 to 2, with a mean of their own for every dimension.
uint32_t state = 1;
float number() {
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(static_cast<int32_t>(state)) * 0x1p-30f;
}

// Half precision of what is 0 or from 2^-14 to 2^15, cut off.
uint16_t half(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t size = bits & 0x7fffffffu;
  return static_cast<uint16_t>((bits >> 16 & 0x8000u) | (size < 0x38800000u ? 0 : (size - 0x38000000u) >> 13));
}

// One layer: rows, an index context, and what both need.
struct Layer {
  int32_t n, kv_heads, group, dim;
  kvasir_memory* keys;
  kvasir_index_context* ctx;
  kvasir_segment segment = 0;

  Layer(int32_t tokens, int32_t heads, int32_t size, const char* options) : n(tokens), kv_heads(heads), group(3), dim(size) {
    const size_t count = static_cast<size_t>(n) * static_cast<size_t>(kv_heads * dim);
    uint16_t* rows = static_cast<uint16_t*>(kvasir::aligned_allocate(count * 2));
    std::vector<float> mean(static_cast<size_t>(dim));
    for (float& x : mean) x = number();
    for (size_t i = 0; i < count; i++) rows[i] = half(mean[i % mean.size()] + number());
    keys = kvasir::share_memory(rows, count * 2);
    ctx = kvasir_index_context_create(options, nullptr);
    if (ctx == nullptr) expect(KVASIR_INTERNAL);
    const int32_t desc[KVASIR_SEGMENT_DESC] = {0, KVASIR_F16, kv_heads, n, dim};
    expect(kvasir_segment_create(ctx, &segment, desc, keys, keys, nullptr, nullptr));
  }
  ~Layer() {
    expect(kvasir_index_context_destroy(ctx));
    keys->release(keys);
  }
  kvasir_index create(const char* spec) const {
    std::vector<double> frequencies(static_cast<size_t>(dim / 2));
    for (size_t i = 0; i < frequencies.size(); i++) frequencies[i] = std::pow(1e5, -2.0 * static_cast<double>(i) / dim);
    const double shape[KVASIR_INDEX_SHAPE] = {double(kv_heads * group), double(kv_heads), double(dim), 1 / std::sqrt(double(dim)),
                                              0, double(dim), KVASIR_INDEX_HALVES, 0};
    kvasir_index id = 0;
    expect(kvasir_index_create(ctx, &id, spec, shape, frequencies.data()));
    expect(kvasir_index_append_segment(ctx, id, segment));
    return id;
  }
  std::vector<float> query() const {
    std::vector<float> q(static_cast<size_t>(kv_heads * group * dim));
    for (float& x : q) x = number();
    return q;
  }
  double stat(kvasir_index id, int which) const {
    double numbers[KVASIR_STATS];
    std::vector<char> text(1 << 16);
    expect(kvasir_index_stats(ctx, id, numbers, text.data(), static_cast<int32_t>(text.size())));
    return numbers[which];
  }
};

const char* verdict(double figure, double bar) { return figure <= bar ? "ok" : "SHORT"; }

void insertion(int32_t n, int32_t kv_heads) {
  for (const int32_t dim : {64, 128}) {
    const Layer l(n, kv_heads, dim, "threads=1");
    for (const char* spec : {"flat:codes=int8", "flat:codes=int4"}) {
      const kvasir_index id = l.create(spec);
      const int32_t bulk = n - std::min(n, kInserted);
      expect(kvasir_index_add(l.ctx, id, 0, bulk));
      expect(kvasir_index_commit(l.ctx, id));
      std::vector<double> chunks;  // of 2048 tokens: a chunk's centrings are spread over its blocks
      for (int32_t at = bulk; at + 2048 <= n; at += 2048) {
        const double start = cpu_seconds();
        for (int32_t i = 0; i < 2048; i += kBlock) {
          expect(kvasir_index_add(l.ctx, id, at + i, kBlock));
          expect(kvasir_index_commit(l.ctx, id));
        }
        chunks.push_back((cpu_seconds() - start) / 2048 / kv_heads);
      }
      const double each = median(chunks) * 1e6, share = 100 * l.stat(id, 1) / (2.0 * n * kv_heads * dim);
      const bool nibbles = std::strstr(spec, "int4") != nullptr;
      std::printf("%s d=%d n=%d: insertion %.3f us per key and KV head (bar .3): %s; memory %.1f %% of f16 keys%s\n", spec, dim, n,
                  each, verdict(each, 0.3), share, !nibbles ? "" : share <= 32 ? " (bar 32): ok" : " (bar 32): SHORT");
      expect(kvasir_index_destroy(l.ctx, id));
    }
  }
}

// Searches of the exact scan and of an index that is being built, in turns.
void building(int32_t n, int32_t kv_heads) {
  const Layer l(n, kv_heads, 64, "threads=1,builders=1");
  const kvasir_index exact = l.create("flat"), built = l.create("lists");
  std::vector<float> queries(static_cast<size_t>(1024 * kv_heads * l.group * l.dim));
  for (float& x : queries) x = number();
  for (int32_t at = 0; at < n; at += 1024) {
    const int32_t some = std::min(1024, n - at);
    for (const kvasir_index id : {exact, built}) expect(kvasir_index_observe(l.ctx, id, at, some, queries.data()));
    for (const kvasir_index id : {exact, built}) expect(kvasir_index_add(l.ctx, id, at, some));
  }
  for (const kvasir_index id : {exact, built}) expect(kvasir_index_commit(l.ctx, id));
  const int32_t heads = kv_heads * l.group, capacity = 128;
  std::vector<int32_t> tokens(static_cast<size_t>(heads * capacity)), counts(static_cast<size_t>(heads));
  std::vector<float> bias(tokens.size()), errors(counts.size()), attended(counts.size(), -INFINITY);
  double report[KVASIR_REPORT];
  const double goal[KVASIR_GOAL] = {KVASIR_GOAL_TOPK, 100, KVASIR_TAIL_NONE, 0};
  std::vector<double> cpu[2], wall[2], ratios;
  int searches = 0;
  for (; searches < 400; searches++) {
    if (l.stat(built, 2) == 0) break;
    const std::vector<float> q = l.query();
    for (int which = 0; which < 2; which++) {
      const double start = cpu_seconds(), begin = wall_seconds();
      expect(kvasir_index_search(l.ctx, which == 0 ? exact : built, tokens.data(), bias.data(), counts.data(), errors.data(), report,
                                 capacity, goal, q.data(), attended.data(), nullptr, nullptr));
      cpu[which].push_back(cpu_seconds() - start), wall[which].push_back(wall_seconds() - begin);
    }
    ratios.push_back(cpu[1].back() / cpu[0].back());
  }
  if (searches < 10) {
    std::printf("search while building: built after %d searches, take more keys\n", searches);
    return;
  }
  const double ratio = median(ratios);
  std::printf("search while building, lists n=%d: %.3f of the exact scan (bar 1.15): %s; CPU %.1f / %.1f us, wall %.1f / %.1f us, "
              "%d searches\n", n, ratio, verdict(ratio, 1.15), median(cpu[1]) * 1e6, median(cpu[0]) * 1e6, median(wall[1]) * 1e6,
              median(wall[0]) * 1e6, searches);
}

}  // namespace

int main(int argc, char** argv) {
  int32_t keys = 131072, kv_heads = 2;
  for (int i = 1; i < argc; i++) {
    const std::string arg = argv[i];
    if (arg.rfind("keys=", 0) == 0) keys = std::atoi(arg.c_str() + 5);
    else if (arg.rfind("kvHeads=", 0) == 0) kv_heads = std::atoi(arg.c_str() + 8);
    else return std::fprintf(stderr, "Cannot run: unknown argument %s, expected keys= or kvHeads=\n", argv[i]), 1;
  }
  insertion(keys, kv_heads);
  building(std::min(keys, 65536), kv_heads);
  return 0;
}
