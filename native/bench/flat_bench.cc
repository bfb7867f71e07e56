// The flat index beside the limits of the machine: scans against read bandwidth, certified top-k against its scan, insertion.
//   cmake -S native -B build && cmake --build build -j2 --target kvasir_index_objects kvasir_base_objects
//   c++ -O2 -march=native -std=c++17 -I native/include -I native/base -I native/index -I native/bench native/bench/flat_bench.cc
//     $(find build/CMakeFiles/kvasir_index_objects.dir build/CMakeFiles/kvasir_base_objects.dir -name '*.o') -lpthread -o flat_bench
//   ./flat_bench smollm2-16k.kvqk [codes=int8] [k=100] [isa=auto] [rounds=3] [layers=30]
// One thread. Recorded heads (docs/recorded_heads.md). Cold: every KV head of every layer takes its turn, so that none is found in
// a cache that is smaller than all of them; warm: each head is asked again at once. Best of the rounds, each of which
// measures everything in turn. Times are CPU time of the thread, which neighbours disturb least.
#include <ctime>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "codes.h"
#include "flat_search.h"
#include "half.h"
#include "index.h"
#include "kvasir_index.h"
#include "read_bandwidth.h"
#include "recorded.h"

using namespace kvasir;

namespace {

double now() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// One KV head of a layer, with its own codes.
struct Head {
  Rows rows;
  std::unique_ptr<Codes> codes;
  std::vector<std::vector<float>> queries;  // [asked][group * dim]
  int32_t group = 0;
  float scale = 1;
};

kvasir_memory* borrow(const void* data, size_t bytes) {
  auto* memory = new kvasir_memory();
  memory->data = const_cast<void*>(data);
  memory->bytes = bytes;
  memory->retain = [](kvasir_memory*) {};
  memory->release = [](kvasir_memory*) {};
  return memory;
}

struct Times {
  double bandwidth = 0, scan = 1e9, upper = 1e9, total = 1e9, warm_scan = 1e9, warm_total = 1e9;
};

}  // namespace

int main(int argc, char** argv) {
  std::string path, codes_name = "int8", isa_name = "auto";
  int32_t k = 100, rounds = 3, most_layers = 1000;
  for (int i = 1; i < argc; i++) {
    const std::string a = argv[i];
    if (a.rfind("codes=", 0) == 0) codes_name = a.substr(6);
    else if (a.rfind("k=", 0) == 0) k = std::atoi(a.c_str() + 2);
    else if (a.rfind("isa=", 0) == 0) isa_name = a.substr(4);
    else if (a.rfind("rounds=", 0) == 0) rounds = std::atoi(a.c_str() + 7);
    else if (a.rfind("layers=", 0) == 0) most_layers = std::atoi(a.c_str() + 7);
    else path = a;
  }
  if (path.empty()) return std::fprintf(stderr, "Cannot run: name a file of recorded heads\n"), 1;
  const kvasir_bench::Recorded recorded(path);
  const IndexIsa& isa = find_index_isa(isa_name.c_str());
  const Codes::Kind kind = codes_name == "int4" ? Codes::kInt4 : codes_name == "f16" ? Codes::kNone : Codes::kInt8;
  const int32_t n = static_cast<int32_t>(recorded.tokens()), asked = 4;
  std::vector<Head> heads;
  double insert = 0, insert_one = 0;
  for (const auto& layer : recorded.layers()) {
    if (most_layers-- <= 0) break;
    for (uint32_t h = 0; h < layer.kv_heads; h++) {
      Head head;
      const int32_t dim = static_cast<int32_t>(layer.head_dim);
      const size_t bytes = static_cast<size_t>(n) * static_cast<size_t>(dim) * 2;
      const int32_t desc[KVASIR_SEGMENT_DESC] = {0, KVASIR_F16, 1, n, dim};
      head.rows.append(std::make_shared<Segment>(desc, borrow(layer.key(h, 0), bytes), borrow(layer.value(h, 0), bytes), nullptr,
                                                 nullptr));
      head.codes = std::make_unique<Codes>(&isa, kind, 1, dim);
      // The last chunk one by one: all its re-centrings are in the figure.
      const int32_t bulk = (n - 1) / Codes::kChunkKeys * Codes::kChunkKeys;
      const double start = now();
      head.codes->append(head.rows, 0, bulk, nullptr);
      const double middle = now();
      for (int32_t i = bulk; i < n; i++) head.codes->append(head.rows, i, 1, nullptr);
      insert += (middle - start) / bulk;
      insert_one += (now() - middle) / (n - bulk);
      head.group = static_cast<int32_t>(layer.group());
      head.scale = static_cast<float>(layer.scale);
      for (int32_t a = 0; a < asked; a++) {
        std::vector<float> q;
        for (uint32_t g = 0; g < layer.group(); g++) {
          const uint16_t* from = layer.decode_query(layer.decoded - 1 - static_cast<uint32_t>(a) * 7, h * layer.group() + g);
          for (int32_t i = 0; i < dim; i++) q.push_back(half_to_float(from[i]));
        }
        head.queries.push_back(q);
      }
      heads.push_back(std::move(head));
    }
  }
  const double count = static_cast<double>(heads.size());
  const Head& first = heads[0];
  const int32_t dim = static_cast<int32_t>(first.queries[0].size()) / first.group;
  const double key_bytes = kind == Codes::kNone ? dim * 2.0 : first.codes->key_bytes();
  const size_t stride = static_cast<size_t>(n + 31) / 32 * 32;
  std::vector<float> scores(stride * static_cast<size_t>(first.group));
  PreparedQuery prepared;
  double rescored_sum = 0, asked_sum = 0;
  const auto scan = [&](const Head& head, int a, Codes::Scores scores_kind, int planes) {
    head.codes->prepare(prepared, 0, head.queries[static_cast<size_t>(a)].data(), head.group, head.scale, planes, scores_kind);
    head.codes->score_all(prepared, head.rows, 0, n, scores.data(), stride);
  };
  // Search as the index does it, at the same place in the same scratch.
  Pool pool(1);
  std::vector<Scratch> scratch(1);
  SampleMemory samples;
  Environment environment;
  environment.isa = &isa;
  environment.pool = &pool;
  environment.scratch = &scratch;
  environment.samples = &samples;
  FlatSearch search;
  std::vector<int32_t> tokens(static_cast<size_t>(first.group) * static_cast<size_t>(k)), counts(static_cast<size_t>(first.group));
  std::vector<float> bias(tokens.size()), errors(counts.size());
  Query query{};
  query.goal.kind = Goal::kTopk;
  query.goal.value = k;
  LayerShape shape;
  shape.heads = first.group;
  shape.head_dim = dim;
  const auto find = [&](const Head& head, int a) {
    query.q = head.queries[static_cast<size_t>(a)].data();
    shape.scale = head.scale;
    Report report;
    search.run({&environment, &shape, &head.rows, head.codes.get(), n}, query,
               {k, tokens.data(), bias.data(), counts.data(), errors.data()}, report);
    rescored_sum += (report.bytes_read - n * (kind == Codes::kNone ? dim * 2.0 : head.codes->key_bytes() + 2)) / (dim * 2.0);
    asked_sum += head.group;
  };
  Times best;
  for (int32_t round = 0; round < rounds; round++) {
    best.bandwidth = std::max(best.bandwidth, kvasir_bench::read_bandwidth(pool, now));
    const int a = round % asked;
    // Head by head in turn: what is timed alone and what is timed whole meet the same neighbours.
    const auto turn = [&](bool whole, Codes::Scores kind_of_scores, int planes) {
      const double start = now();
      for (const Head& head : heads) {
        if (whole) find(head, a);
        else scan(head, a, kind_of_scores, planes);
      }
      return (now() - start) / count;
    };
    best.scan = std::min(best.scan, turn(false, Codes::kPlain, 1));
    best.upper = std::min(best.upper, turn(false, Codes::kUpper, 2));
    best.total = std::min(best.total, turn(true, Codes::kUpper, 2));
    double warm_scan = 0, warm_total = 0;
    for (const Head& head : heads) {
      scan(head, a, Codes::kUpper, 2);
      const double t0 = now();
      scan(head, a, Codes::kUpper, 2);
      const double t1 = now();
      find(head, a);
      warm_scan += t1 - t0;
      warm_total += now() - t1;
    }
    best.warm_scan = std::min(best.warm_scan, warm_scan / count);
    best.warm_total = std::min(best.warm_total, warm_total / count);
  }
  const double least = n * key_bytes / best.bandwidth;
  std::printf("%s: %zu KV heads, n=%d d=%d group=%d codes=%s isa=%s k=%d, us per KV head\n", recorded.name().c_str(), heads.size(),
              n, dim, first.group, codes_name.c_str(), isa.name, k);
  std::printf("  read bandwidth %.1f GB/s; codes alone %.1f us\n", best.bandwidth * 1e-9, least * 1e6);
  std::printf("  cold: scan %.1f us, %.0f %% of bandwidth; scan of bounds (two planes) %.1f us, %.0f %%; top-k %.1f us = %.2f x its scan\n",
              best.scan * 1e6, 100 * least / best.scan, best.upper * 1e6, 100 * least / best.upper, best.total * 1e6,
              best.total / best.upper);
  std::printf("  warm: scan of bounds %.1f us; top-k %.1f us = %.2f x\n", best.warm_scan * 1e6, best.warm_total * 1e6,
              best.warm_total / best.warm_scan);
  std::printf("  rows read per query head %.0f; insertion per key %.3f us in bulk, %.3f us one by one\n", rescored_sum / asked_sum,
              insert / count * 1e6, insert_one / count * 1e6);
}
