// What a graph costs and finds beside the scan, on one recorded or generated head (docs/recorded_heads.md).
//   cmake -S native -B build -DKVASIR_TESTS=ON && cmake --build build --target kvasir_graph_bench
//   build/kvasir_graph_bench FILE.kvqk [layer=0] [head=0] [samples=16384] [threads=1] [m=32] [nq=64] [grow=0|1]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <thread>

#include "graph_build.h"
#include "half.h"
#include "knn.h"
#include "partition.h"
#include "kvasir_abi.h"
#include "recorded.h"
#include "spread.h"
#include <time.h>

namespace {

using namespace kvasir;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

RunTasks on_threads(int count) {
  if (count == 1) return run_inline;
  return [count](int32_t tasks, const std::function<void(int32_t)>& body) {
    std::atomic<int32_t> next{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < count; t++) {
      threads.emplace_back([&] {
        for (int32_t i; (i = next.fetch_add(1)) < tasks;) body(i);
      });
    }
    for (std::thread& t : threads) t.join();
  };
}

// A file's arrays are not the library's to hold.
kvasir_memory* borrowed(const void* data, uint64_t bytes) {
  auto* m = new kvasir_memory{};
  m->data = const_cast<void*>(data);
  m->bytes = bytes;
  m->retain = [](kvasir_memory*) {};
  m->release = [](kvasir_memory*) {};
  return m;
}

std::map<std::string, double> numbers = {{"layer", 0}, {"head", 0}, {"samples", 16384}, {"threads", 1}, {"m", 32}, {"nq", 64},
                                         {"grow", 0},  {"k", 100},  {"entries", 4},     {"held", 128}, {"solo", 0}, {"horizon", 1024}, {"pivots", 12}, {"recall", 0.95}};

struct Head {
  const kvasir_bench::RecordedLayer& layer;
  int32_t head;
  LayerShape shape;
  std::vector<float> queries(bool decode, int32_t from, int32_t to, int32_t spread_to) const {
    std::vector<float> out;
    std::vector<int32_t> positions;
    const int32_t group = static_cast<int32_t>(layer.group()), d = static_cast<int32_t>(layer.head_dim);
    for (int32_t i = from; i < to; i++) {
      for (int32_t g = 0; g < group; g++) {
        const uint16_t* q = decode ? layer.decode_query(uint32_t(i), uint32_t(head * group + g)) : layer.prompt_query(uint32_t(i), uint32_t(head * group + g));
        for (int32_t j = 0; j < d; j++) out.push_back(half_to_float(q[j]));
        positions.push_back(decode ? 0 : layer.prompt_positions[i]);
      }
    }
    if (spread_to >= 0) spread(shape, out.data(), positions.data(), static_cast<int32_t>(positions.size()), spread_to, static_cast<int32_t>(numbers["horizon"]));
    return out;
  }
};

struct Judged {
  double recall = 0, scored = 0, nanoseconds = 0;
};

Judged judge(const IndexIsa& isa, const Graph& graph, const GraphKeys& keys, const std::vector<float>& queries, int32_t group,
             const Neighbours& truth, int32_t width) {
  GraphSearch search;
  Judged out;
  const int32_t count = truth.queries;
  double best = 1e9;
  for (int round = 0; round < 3; round++) {
    const double start = cpu_seconds();
    double scored = 0, found = 0;
    for (int32_t i = 0; i + group <= count; i += group) {
      search_graph(search, isa, graph, keys, queries.data() + static_cast<size_t>(i) * static_cast<size_t>(keys.dim()), group, width);
      scored += static_cast<double>(search.scored().size());
      if (round > 0) continue;
      for (int32_t g = 0; g < group; g++) {
        std::vector<int32_t> got;
        search.best(got, g, truth.k);
        std::sort(got.begin(), got.end());
        for (int32_t j = 0; j < truth.k; j++) found += std::binary_search(got.begin(), got.end(), truth.of(i + g)[j]);
      }
    }
    if (round == 0) out.recall = found / (double(count / group * group) * truth.k);
    else best = std::min(best, (cpu_seconds() - start) / scored * 1e9);
    out.scored = scored / (count / group);
  }
  out.nanoseconds = best;
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "graph_bench FILE.kvqk [key=value ...]\n"), 1;
  for (int i = 2; i < argc; i++) {
    const std::string a = argv[i];
    const size_t eq = a.find('=');
    if (eq == std::string::npos || numbers.count(a.substr(0, eq)) == 0) return std::fprintf(stderr, "unknown %s\n", argv[i]), 1;
    numbers[a.substr(0, eq)] = std::atof(a.c_str() + eq + 1);
  }
  kvasir_bench::Recorded file(argv[1]);
  const auto& layer = file.layers()[static_cast<size_t>(numbers["layer"])];
  const int32_t head = static_cast<int32_t>(numbers["head"]), group = static_cast<int32_t>(layer.group());
  const int32_t n = static_cast<int32_t>(layer.tokens - layer.decoded), threads = static_cast<int32_t>(numbers["threads"]);
  const int32_t desc[5] = {0, KVASIR_F16, static_cast<int32_t>(layer.kv_heads), static_cast<int32_t>(layer.tokens), static_cast<int32_t>(layer.head_dim)};
  const uint64_t bytes = 2ull * layer.kv_heads * layer.tokens * layer.head_dim;
  // Copied to large pages: 4 KiB ones cost a walk a key.
  void* copy = std::aligned_alloc(size_t{2} << 20, (bytes + (size_t{2} << 20)) >> 21 << 21);
  madvise(copy, bytes, MADV_HUGEPAGE);
  std::memcpy(copy, layer.keys, bytes);
  Rows rows;
  rows.append(std::make_shared<const Segment>(desc, borrowed(copy, bytes), borrowed(layer.values, bytes), nullptr, nullptr));
  const IndexIsa& isa = find_index_isa("auto");
  Head h{layer, head, {}};
  h.shape.head_dim = static_cast<int32_t>(layer.head_dim);
  h.shape.frequencies.assign(layer.frequencies, layer.frequencies + layer.rope_dims / 2);
  h.shape.neighbours = layer.pairing == 1;

  const int32_t held = static_cast<int32_t>(numbers["held"]), prompts = static_cast<int32_t>(layer.num_prompt);
  const std::vector<float> all = h.queries(false, 0, prompts, n);
  const int32_t total = static_cast<int32_t>(all.size()) / static_cast<int32_t>(layer.head_dim), d = static_cast<int32_t>(layer.head_dim);
  std::vector<float> training, held_out;
  const int32_t want = std::min(total - held, static_cast<int32_t>(numbers["samples"]));
  for (int32_t i = 0; i < total; i++) {
    const bool test = i % (total / held) == total / held / 2;
    if (!test && static_cast<int64_t>(i) * want / total == static_cast<int64_t>(i + 1) * want / total && want < total - held) continue;
    auto& to = test ? held_out : training;
    to.insert(to.end(), all.begin() + static_cast<std::ptrdiff_t>(i) * d, all.begin() + static_cast<std::ptrdiff_t>(i + 1) * d);
  }
  std::printf("%s layer %u head %d: n=%d d=%d group=%d, %zu training, %zu held out\n", file.name().c_str(), layer.layer, head, n, d, group,
              training.size() / size_t(d), held_out.size() / size_t(d));

  const std::vector<float> decode = h.queries(true, 0, static_cast<int32_t>(layer.decoded), -1);
  const int32_t decode_count = static_cast<int32_t>(decode.size()) / d;
  const RunTasks run = on_threads(threads);
  double t0 = seconds(), c0 = cpu_seconds();
  const Neighbours truth = nearest_keys(isa, run, rows, head, 0, n, decode.data(), decode_count, static_cast<int32_t>(numbers["k"]));
  t0 = seconds(), c0 = cpu_seconds();
  nearest_keys(isa, run, rows, head, 0, n, training.data(), std::min<int32_t>(want, 1920), static_cast<int32_t>(numbers["k"]));
  const double per_query = (cpu_seconds() - c0) / std::min<int32_t>(want, 1920);
  const double exact = per_query * n * group;
  std::printf("exact kNN: %.0f us a query, all prompt queries %.1f s\n", per_query * 1e6, exact);

  GraphOptions options;
  options.m = static_cast<int32_t>(numbers["m"]);
  options.nq = static_cast<int32_t>(numbers["nq"]);
  options.pivots = static_cast<int32_t>(numbers["pivots"]);
  options.entries = static_cast<int32_t>(numbers["entries"]);
  options.recall = numbers["recall"];
  options.k = static_cast<int32_t>(numbers["k"]);
  const GraphKeys keys(isa.graph, rows, head, 0, n);
  t0 = seconds(), c0 = cpu_seconds();
  Partition homes;
  build_homes(homes, {&isa, &rows, head, d, 0, n}, run, n / 128, training.data(), static_cast<int32_t>(training.size()) / d, 8, 1);
  const double homes_cpu = cpu_seconds() - c0;
  const auto graph = build_graph(isa, keys, options, homes.homes, training, held_out, run);
  const double cpu = cpu_seconds() - c0, wall = seconds() - t0;
  double degree = 0;
  for (int32_t i = 0; i < n; i++) degree += graph->links.count(i);
  std::printf("build: homes %.2f s, all %.2f s cpu, %.2f s wall, %.3f of exact kNN; degree %.1f; %.0f bytes a key; ef %d, held-out recall %.4f\n", homes_cpu, cpu, wall,
              cpu / exact, degree / n, double(graph->bytes()) / n, graph->ef, graph->expected_recall);
  for (const int32_t width : {100, 200, 250, 300, 400, 600, graph->ef}) {
    const Judged j = judge(isa, *graph, keys, decode, numbers["solo"] > 0 ? 1 : group, truth, width);
    std::printf("  ef %4d%s recall %.4f  scored %6.0f (%.2f %%)  %.1f ns a scored key  %.0f us\n", width, width == graph->ef ? "*" : " ", j.recall,
                j.scored, 100 * j.scored / n, j.nanoseconds, j.nanoseconds * j.scored * 1e-3);
    if (j.recall > 0.985 && width != graph->ef) {
      continue;
    }
  }
  if (numbers["grow"] > 0) {
    const int32_t part = static_cast<int32_t>(n / 1.25);
    const GraphKeys before(isa.graph, rows, head, 0, part);
    auto cells = std::make_shared<Partition>();
    build_homes(*cells, {&isa, &rows, head, d, 0, part}, run, part / 128, training.data(), static_cast<int32_t>(training.size()) / d, 8, 1);
    std::shared_ptr<const Partition> grown_homes = cells;
    auto grown = build_graph(isa, before, options, cells->homes, training, held_out, run);
    c0 = cpu_seconds();
    for (int32_t at = part; at < n;) {
      at = std::min(n, at + 1024);
      grown_homes = extend(*grown_homes, {&isa, &rows, head, d, 0, at}, run);
      grown = insert_nodes(isa, *grown, GraphKeys(isa.graph, rows, head, 0, at), grown_homes->homes, run);
    }
    std::printf("insertion of 25 %%: %.1f us a key\n", (cpu_seconds() - c0) / (n - part) * 1e6);
    for (const int32_t width : {200, 400, graph->ef}) {
      const Judged a = judge(isa, *graph, keys, decode, group, truth, width);
      const Judged b = judge(isa, *grown, keys, decode, group, truth, width);
      std::printf("  ef %4d fresh %.4f (%.0f scored), grown %.4f (%.0f scored)\n", width, a.recall, a.scored, b.recall, b.scored);
    }
    std::printf("unreachable after growth: %zu\n", unreachable_nodes(*grown).size());
  }
  return 0;
}
