// What a graph costs and finds beside the scan, on one recorded or generated head (docs/recorded_heads.md).
//   cmake -S native -B build -DKVASIR_TESTS=ON && cmake --build build --target kvasir_graph_bench
//   build/kvasir_graph_bench FILE.kvqk [layer=0] [head=0] [samples=32768] …   recall, keys scored, time, build, memory
//   build/kvasir_graph_bench FILE.kvqk speed=1      build on two threads by its tasks' CPU time; speed=2: on the clock too, on an idle machine
//   build/kvasir_graph_bench FILE.kvqk insert=1     25 % of the keys inserted, beside a fresh build
//   build/kvasir_graph_bench FILE.kvqk growth=13    13-fold growth, extended and built anew as the index does
//   build/kvasir_graph_bench FILE.kvqk bias=1       held-out queries by quarter of the prompt beside decode queries
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

// Tasks one after another, timed by the thread's clock and given to whichever of two threads is free first: *saved gets the seconds
// that two threads would save, whatever else runs on the machine.
RunTasks on_two_imagined(double* saved) {
  return [saved](int32_t tasks, const std::function<void(int32_t)>& body) {
    double busy[2] = {0, 0};
    for (int32_t i = 0; i < tasks; i++) {
      const double start = cpu_seconds();
      body(i);
      (busy[0] <= busy[1] ? busy[0] : busy[1]) += cpu_seconds() - start;
    }
    *saved += std::min(busy[0], busy[1]);
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

std::map<std::string, double> numbers = {
    {"layer", 0},   {"head", 0},    {"samples", 32768}, {"threads", 1}, {"m", 32},        {"nq", 64},      {"k", 100},      {"entries", 4},
    {"held", 256},  {"solo", 1},    {"horizon", 1024},  {"pivots", 12}, {"recall", 0.95}, {"speed", 0},    {"insert", 0},   {"growth", 0},
    {"bias", 0},    {"rounds", 4},  {"extend", 0},   {"ahead", 512},  {"same", 1},
};
int32_t number(const char* name) { return static_cast<int32_t>(numbers[name]); }

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
             const Neighbours& truth, int32_t width, int rounds) {
  GraphSearch search;
  Judged out;
  const int32_t count = truth.queries;
  double best = 1e9;
  std::vector<int32_t> got;
  for (int round = 0; round <= rounds; round++) {
    const double start = cpu_seconds();
    double scored = 0, found = 0;
    for (int32_t i = 0; i + group <= count; i += group) {
      search_graph(search, isa, graph, keys, queries.data() + static_cast<size_t>(i) * static_cast<size_t>(keys.dim()), group, width);
      scored += static_cast<double>(search.scored().size());
      if (round > 0) continue;
      for (int32_t g = 0; g < group; g++) {
        search.best(got, g, truth.k);
        std::sort(got.begin(), got.end());
        for (int32_t j = 0; j < truth.k; j++) found += std::binary_search(got.begin(), got.end(), truth.of(i + g)[j] - keys.begin());
      }
    }
    if (round == 0) out.recall = found / (double(count / group * group) * truth.k);
    else best = std::min(best, (cpu_seconds() - start) / scored * 1e9);
    out.scored = scored / (count / group);
  }
  out.nanoseconds = best;
  return out;
}

constexpr int32_t kSinks = 4;  // attended exactly, as is the window ahead of the last key

const char* verdict(bool good) { return good ? "met" : "MISSED"; }

// Graphs over a head's first keys, built as the index builds them.
struct Bench {
  const IndexIsa& isa;
  Rows rows;
  const Head& head;
  int32_t d, group;
  
  GraphOptions options() const {
    GraphOptions o;
    o.m = number("m"), o.nq = number("nq"), o.pivots = number("pivots"), o.entries = number("entries"), o.k = number("k");
    o.recall = numbers["recall"];
    return o;
  }
  struct Made {
    std::shared_ptr<const Partition> homes;
    std::shared_ptr<const Graph> graph;
    double homes_cpu, cpu, wall;
  };
  GraphKeys keys(int32_t end) const { return {isa.graph, rows, head.head, kSinks, end - kSinks}; }
  PartitionSource source(int32_t end) const { return {&isa, &rows, head.head, d, kSinks, end - kSinks}; }
  // Of prompt positions below `end`, moved behind it: every 16th is held out, the others are thinned to `samples` queries.
  void split(int32_t end, std::vector<float>& training, std::vector<float>& held_out) const {
    const int32_t prompts = static_cast<int32_t>(head.layer.num_prompt);
    const std::vector<float> all = head.queries(false, 0, prompts, end + number("ahead"));
    std::vector<int32_t> of_training, of_held;
    for (int32_t i = 0; i < prompts && head.layer.prompt_positions[i] < end; i++) {
      for (int32_t g = 0; g < group; g++) (i % 16 == 7 ? of_held : of_training).push_back(i * group + g);
    }
    const auto take = [&](std::vector<float>& to, const std::vector<int32_t>& from, size_t most) {
      const size_t kept = std::min(from.size(), most);
      for (size_t i = 0; i < kept; i++) {
        const float* q = all.data() + static_cast<size_t>(from[i * from.size() / kept]) * static_cast<size_t>(d);
        to.insert(to.end(), q, q + d);
      }
    };
    take(training, of_training, static_cast<size_t>(numbers["samples"]));
    take(held_out, of_held, static_cast<size_t>(numbers["held"]));
  }
  Made build(int32_t n, const std::vector<float>& training, const std::vector<float>& held_out, const RunTasks& run) const {
    const double t0 = seconds(), c0 = cpu_seconds();
    auto homes = std::make_shared<Partition>();
    build_homes(*homes, source(n), run, n / 128, training.data(), static_cast<int32_t>(training.size()) / d, 8, 1);
    const double homes_cpu = cpu_seconds() - c0;
    auto graph = build_graph(isa, keys(n), options(), homes->homes, training, held_out, run);
    return {homes, graph, homes_cpu, cpu_seconds() - c0, seconds() - t0};
  }
  // Keys that an extension takes, as the index does.
  int32_t step(int32_t keys) const { return number("extend") > 0 ? number("extend") : std::clamp(keys / 32, 1024, 4096); }
  void grow(Made& made, int32_t to, const RunTasks& run) const {
    made.homes = extend(*made.homes, source(to), run);
    made.graph = insert_nodes(isa, *made.graph, keys(to), made.homes->homes, run);
  }
};

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
  const int32_t head = number("head"), group = static_cast<int32_t>(layer.group()), d = static_cast<int32_t>(layer.head_dim);
  const int32_t n = static_cast<int32_t>(layer.tokens - layer.decoded) - number("ahead"), k = number("k");
  const int32_t desc[5] = {0, KVASIR_F16, static_cast<int32_t>(layer.kv_heads), static_cast<int32_t>(layer.tokens), d};
  const uint64_t bytes = 2ull * layer.kv_heads * layer.tokens * layer.head_dim;
  // Copied to large pages: 4 KiB ones cost a walk a key.
  void* copy = std::aligned_alloc(size_t{2} << 20, (bytes + (size_t{2} << 20)) >> 21 << 21);
  madvise(copy, bytes, MADV_HUGEPAGE);
  std::memcpy(copy, layer.keys, bytes);
  Rows rows;
  rows.append(std::make_shared<const Segment>(desc, borrowed(copy, bytes), borrowed(layer.values, bytes), nullptr, nullptr));
  const IndexIsa& isa = find_index_isa("auto");
  Head h{layer, head, {}};
  h.shape.head_dim = d;
  h.shape.frequencies.assign(layer.frequencies, layer.frequencies + layer.rope_dims / 2);
  h.shape.neighbours = layer.pairing == 1;
  const Bench bench{isa, rows, h, d, group};
  std::vector<float> training, held_out;
  bench.split(n, training, held_out);
  const int32_t count = static_cast<int32_t>(training.size()) / d;
  std::printf("%s layer %u head %d: n=%d d=%d group=%d, %d training, %zu held out\n", file.name().c_str(), layer.layer, head, n, d, group, count,
              held_out.size() / size_t(d));

  const std::vector<float> decode = h.queries(true, 0, static_cast<int32_t>(layer.decoded), -1);
  const RunTasks run = on_threads(number("threads"));
  const Neighbours truth = nearest_keys(isa, run, rows, head, kSinks, n, decode.data(), static_cast<int32_t>(decode.size()) / d, k);
  const GraphKeys keys = bench.keys(n);
  const int32_t together = numbers["solo"] > 0 ? 1 : group;
  const auto show = [&](const char* name, const Graph& graph, int32_t width) {
    const Judged j = judge(isa, graph, keys, decode, together, truth, width, number("rounds"));
    std::printf("  %-10s ef %4d  recall %.4f  scored %6.0f (%.2f %%)  %.1f ns a scored key  %.0f us\n", name, width, j.recall, j.scored, 100 * j.scored / n,
                j.nanoseconds, j.nanoseconds * j.scored * 1e-3);
    return j;
  };

  if (numbers["speed"] > 0) {
    double saved = 0;
    const double all = bench.build(n, training, held_out, on_two_imagined(&saved)).cpu;
    std::printf("build: %.2f s of CPU time, %.2f s of it at the same time on two threads: x %.2f (bar 1.7): %s\n", all, saved, all / (all - saved),
                verdict(all >= 1.7 * (all - saved)));
    if (numbers["speed"] < 2) return 0;
    double least[2] = {1e9, 1e9};
    for (int round = 0; round < 2; round++) {
      for (int t = 0; t < 2; t++) least[t] = std::min(least[t], bench.build(n, training, held_out, on_threads(t + 1)).wall);
    }
    const auto compute = [&](int threads) {
      const double start = seconds();
      nearest_keys(isa, on_threads(threads), rows, head, kSinks, n, training.data(), std::min(count, 9600), k);
      return seconds() - start;
    };
    const double one = compute(1), two = compute(2);
    std::printf("on the clock: %.2f s on one thread, %.2f s on two: x %.2f; exact nearest keys alone, what the processor gives: x %.2f\n", least[0],
                least[1], least[0] / least[1], one / two);
    return 0;
  }
  if (numbers["insert"] > 0) {
    const int32_t part = static_cast<int32_t>(n / 1.25);
    const Bench::Made fresh = bench.build(n, training, held_out, run);
    std::vector<float> early, early_held;
    bench.split(numbers["same"] > 0 ? n : part, early, early_held);
    Bench::Made grown = bench.build(part, early, early_held, run);
    const double c0 = cpu_seconds();
    for (int32_t at = part; at < n;) bench.grow(grown, at = std::min(n, at + bench.step(at)), run);
    const double each = (cpu_seconds() - c0) / (n - part) * 1e6;
    std::printf("insertion of 25 %% new keys: %.1f us a key (bar 20): %s; unreachable: %zu\n", each, verdict(each <= 20), unreachable_nodes(*grown.graph).size());
    // Of the best keys that are new, how many are found.
    const auto recall_of = [&](const Graph& graph, int32_t width) {
      GraphSearch search;
      std::vector<int32_t> got;
      double found = 0, wanted = 0;
      for (int32_t i = 0; i < truth.queries; i++) {
        search_graph(search, isa, graph, keys, decode.data() + static_cast<size_t>(i) * static_cast<size_t>(d), 1, width);
        search.best(got, 0, k);
        for (int32_t j = 0; j < k; j++) {
          if (truth.of(i)[j] < part) continue;
          wanted++, found += std::count(got.begin(), got.end(), truth.of(i)[j] - kSinks) > 0;
        }
      }
      return found / wanted;
    };
    for (const int32_t width : {200, 300, 400, fresh.graph->ef}) {
      const Judged a = show("fresh", *fresh.graph, width), b = show("grown", *grown.graph, width);
      std::printf("    fresh - grown %.4f (bar .01): %s; of new keys %.4f against %.4f\n", a.recall - b.recall, verdict(a.recall - b.recall <= 0.01),
                  recall_of(*fresh.graph, width), recall_of(*grown.graph, width));
    }
    return 0;
  }
  if (numbers["growth"] > 0) {
    // As the index grows: extended step by step, built anew after growing by half.
    int32_t at = static_cast<int32_t>(n / numbers["growth"]), built = at, builds = 1;
    const auto make = [&](int32_t end) {
      std::vector<float> q, test;
      bench.split(end, q, test);
      return bench.build(end, q, test, run);
    };
    Bench::Made made = make(at);
    while (at < n) {
      at = std::min(n, at + bench.step(at));
      if (at >= built + built / 2) made = make(built = at), builds++;
      else bench.grow(made, at, run);
    }
    std::printf("growth from %d keys to %d, %d builds, the last over %d:\n", static_cast<int32_t>(n / numbers["growth"]), n, builds, built);
    const double recall = show("calibrated", *made.graph, made.graph->ef).recall;
    std::printf("    recall after growth %.4f (bar .95): %s; promised %.4f; unreachable: %zu\n", recall, verdict(recall >= 0.95), made.graph->expected_recall,
                unreachable_nodes(*made.graph).size());
    return 0;
  }

  const int32_t sample = std::min(count, 1920);
  double c0 = cpu_seconds();
  nearest_keys(isa, run, rows, head, kSinks, n, training.data(), sample, k);
  const double per_query = (cpu_seconds() - c0) / sample, exact = per_query * n * group;
  std::printf("exact kNN: %.0f us a query, all prompt queries %.1f s\n", per_query * 1e6, exact);
  const Bench::Made made = bench.build(n, training, held_out, run);
  const Graph& graph = *made.graph;
  double degree = 0;
  for (int32_t i = 0; i < graph.nodes(); i++) degree += graph.links.count(i);
  std::printf("build: homes %.2f s, all %.2f s cpu, %.2f s wall; degree %.1f of %d; held-out recall %.4f\n", made.homes_cpu, made.cpu, made.wall, degree / n,
              graph.links.slots() - 1, graph.expected_recall);
  std::printf("build / exact kNN of all prompt queries: %.3f (bar .5): %s\n", made.cpu / exact, verdict(made.cpu <= 0.5 * exact));
  const double each = double(graph.bytes()) / n;
  std::printf("memory: %.0f bytes a key (bar %d): %s\n", each, 8 * number("m"), verdict(each <= 8 * number("m")));
  if (numbers["bias"] > 0) {
    // Held-out queries by quarter of the prompt, at the calibrated width, beside decode queries.
    const size_t quarter = held_out.size() / size_t(d) / 4 * size_t(d);
    for (size_t i = 0; i < 4; i++) {
      const std::vector<float> some(held_out.begin() + std::ptrdiff_t(i * quarter), held_out.begin() + std::ptrdiff_t((i + 1) * quarter));
      const Neighbours best = nearest_keys(isa, run, rows, head, kSinks, n, some.data(), int32_t(quarter) / d, k);
      const Judged j = judge(isa, graph, keys, some, 1, best, graph.ef, 0);
      std::printf("  held out, quarter %zu: recall %.4f, scored %.0f\n", i, j.recall, j.scored);
    }
  }
  for (const int32_t width : {100, 200, 250, 300, 400}) {
    if (width != graph.ef) show("", graph, width);
  }
  const Judged j = show("calibrated", graph, graph.ef);
  std::printf("search at the calibrated width: recall %.4f (bar .95), %.2f %% scored (bar 5), %.1f ns a scored key (bar 45): %s\n", j.recall, 100 * j.scored / n,
              j.nanoseconds, verdict(j.recall >= 0.95 && j.scored <= 0.05 * n && j.nanoseconds <= 45));
  return 0;
}
