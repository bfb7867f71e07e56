// What two threads would take to build lists over one KV head: each task of the build is timed by CPU, alone, and given to the thread
// that is free first, so that the figure does not hang on what else the machine runs. Compiled as lists_bench.cc.
//   ./lists_threads_bench FILE
#include <algorithm>
#include <cstdio>
#include <ctime>

#include "half.h"
#include "kvasir_index.h"
#include "lists_build.h"
#include "recorded.h"

using namespace kvasir;

namespace {

double cpu() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

kvasir_memory view(const void* data, size_t bytes) {
  const auto nothing = [](kvasir_memory*) {};
  return {const_cast<void*>(data), bytes, nothing, nothing};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "lists_threads_bench FILE\n"), 1;
  const kvasir_bench::Recorded file(argv[1]);
  const kvasir_bench::RecordedLayer& layer = file.layers()[0];
  const int32_t dim = int32_t(layer.head_dim), group = int32_t(layer.group()), end = int32_t(layer.tokens - layer.decoded) - 512;
  kvasir_memory keys = view(layer.key(0, 0), size_t(layer.tokens) * layer.head_dim * 2);
  const int32_t desc[KVASIR_SEGMENT_DESC] = {0, KVASIR_F16, 1, int32_t(layer.tokens), dim};
  Rows rows;
  rows.append(std::make_shared<Segment>(desc, &keys, &keys, nullptr, nullptr));
  LayerShape shape;
  shape.heads = group, shape.head_dim = dim, shape.scale = float(layer.scale), shape.neighbours = layer.pairing == 1;
  shape.frequencies.assign(layer.frequencies, layer.frequencies + layer.rope_dims / 2);
  QuerySamples samples;
  for (uint32_t i = 0; i < layer.num_prompt; i++) {
    std::vector<float> q(size_t(group * dim));
    for (size_t j = 0; j < q.size(); j++) q[j] = half_to_float(layer.prompt_query(i, 0)[j]);
    samples.add(shape, layer.prompt_positions[i], 1, q.data());
  }
  double in_tasks = 0, by_two = 0;
  const RunTasks run = [&](int32_t count, const std::function<void(int32_t)>& body) {
    double busy[2] = {0, 0};
    for (int32_t i = 0; i < count; i++) {
      const double start = cpu();
      body(i);
      const double spent = cpu() - start;
      in_tasks += spent;
      busy[busy[1] < busy[0]] += spent;
    }
    by_two += std::max(busy[0], busy[1]);
  };
  const IndexIsa& isa = find_index_isa("auto");
  const PartitionSource source = {&isa, &rows, 0, dim, 4, end - 4};
  std::string decision;
  const double start = cpu();
  build_lists({source, &shape, &samples, nullptr, nullptr, &run}, ListsOptions(), decision);
  const double total = cpu() - start, two = total - in_tasks + by_two;
  std::printf("lists over %d keys: %.2f s of work, %.2f s with two threads: %.2f times as fast (bar 1.7)\n%s\n", end - 4, total, two,
              total / two, decision.c_str());
  return 0;
}
