// Types "lists" and "ivf" on recorded or generated heads (docs/recorded_heads.md), one KV head at a time.
//   cmake -S native -B build && cmake --build build --target kvasir_lists_bench
//   build/kvasir_lists_bench recall FILE [spec] [every]     recall@100 and keys scored of decode queries, beside what the index expected
//   build/kvasir_lists_bench error FILE [spec] [every]      relative error of the output at error .05, rows kept, keys scored; bias of Z
//   build/kvasir_lists_bench build FILE [spec]              CPU seconds of the build against one exact kNN of all prompt queries
//   build/kvasir_lists_bench insert FILE [spec]              CPU time of inserting, a key
//   build/kvasir_lists_bench grow FILE [spec] [every]       recall after 25 % new keys and after 13-fold growth, against a fresh build
// every: only each so many-th KV head. The index holds positions 4 to n - 512 of the prompt; decode queries search it.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "half.h"
#include "knn.h"
#include "kvasir_index.h"
#include "recorded.h"

using kvasir_bench::Recorded;
using kvasir_bench::RecordedLayer;

namespace {

constexpr int32_t kSinks = 4, kWindow = 512, kTop = 100;

double clock_seconds(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
double cpu_seconds() { return clock_seconds(CLOCK_PROCESS_CPUTIME_ID); }
double thread_seconds() { return clock_seconds(CLOCK_THREAD_CPUTIME_ID); }

void expect(int32_t status) {
  if (status == KVASIR_OK) return;
  char text[512];
  kvasir_index_last_error(text, sizeof text);
  std::fprintf(stderr, "%s\n", text);
  std::exit(1);
}

void hold(kvasir_memory*) {}
kvasir_memory view(const void* data, size_t bytes) { return {const_cast<void*>(data), bytes, hold, hold}; }

std::vector<float> widen(const uint16_t* from, size_t count) {
  std::vector<float> out(count);
  for (size_t i = 0; i < count; i++) out[i] = kvasir::half_to_float(from[i]);
  return out;
}

double quantile(std::vector<double> x, double q) {
  if (x.empty()) return NAN;
  std::sort(x.begin(), x.end());
  return x[std::min(x.size() - 1, static_cast<size_t>(q * static_cast<double>(x.size())))];
}
double mean(const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size()); }

// One KV head of a file, and an index over it.
struct Head {
  const RecordedLayer& layer;
  uint32_t kv;
  int32_t group, dim, prompt;
  std::vector<float> keys, values;  // [tokens, dim]
  kvasir_memory key_memory, value_memory;
  kvasir_index_context* ctx = nullptr;
  kvasir_index index = 0;
  size_t next_query = 0;

  Head(const RecordedLayer& l, uint32_t head)
      : layer(l), kv(head), group(static_cast<int32_t>(l.group())), dim(static_cast<int32_t>(l.head_dim)),
        prompt(static_cast<int32_t>(l.tokens - l.decoded)), keys(widen(l.key(head, 0), size_t(l.tokens) * l.head_dim)),
        values(widen(l.value(head, 0), size_t(l.tokens) * l.head_dim)),
        key_memory(view(l.key(head, 0), size_t(l.tokens) * l.head_dim * 2)),
        value_memory(view(l.value(head, 0), size_t(l.tokens) * l.head_dim * 2)) {}
  ~Head() {
    if (ctx != nullptr) kvasir_index_context_destroy(ctx);
  }
  void open(const char* spec, int builders = 0) {
    if (ctx != nullptr) kvasir_index_context_destroy(ctx);
    ctx = kvasir_index_context_create(builders == 0 ? "threads=1,builders=0" : "threads=1,builders=1", nullptr);
    const double shape[KVASIR_INDEX_SHAPE] = {double(group), 1, double(dim), layer.scale, layer.softcap, double(layer.rope_dims),
                                              double(layer.pairing), 1};
    expect(kvasir_index_create(ctx, &index, spec, shape, layer.frequencies));
    const int32_t desc[KVASIR_SEGMENT_DESC] = {0, KVASIR_F16, 1, int32_t(layer.tokens), dim};
    kvasir_segment segment;
    expect(kvasir_segment_create(ctx, &segment, desc, &key_memory, &value_memory, nullptr, nullptr));
    expect(kvasir_index_append_segment(ctx, index, segment));
    next_query = 0;
  }
  // Adds [from, to) with the recorded queries among them.
  void add(int32_t from, int32_t to) {
    while (from < to) {
      while (next_query < layer.num_prompt && layer.prompt_positions[next_query] < from) next_query++;
      const int32_t at = next_query < layer.num_prompt ? layer.prompt_positions[next_query] : to;
      if (at > from) {
        expect(kvasir_index_add(ctx, index, from, std::min(at, to) - from));
        from = std::min(at, to);
        continue;
      }
      const std::vector<float> q = prompt_queries(next_query);
      expect(kvasir_index_observe(ctx, index, from, 1, q.data()));
      expect(kvasir_index_add(ctx, index, from++, 1));
    }
    expect(kvasir_index_commit(ctx, index));
  }
  std::vector<float> prompt_queries(size_t i) const {
    return widen(layer.prompt_query(uint32_t(i), kv * uint32_t(group)), size_t(group * dim));
  }
  std::vector<float> decode_queries(uint32_t i) const {
    return widen(layer.decode_query(i, kv * uint32_t(group)), size_t(group * dim));
  }
  void logits(std::vector<double>& out, const float* q, int32_t from, int32_t to) const {
    out.resize(size_t(to - from));
    for (int32_t p = from; p < to; p++) {
      const float* k = keys.data() + size_t(p) * size_t(dim);
      float sum = 0;
      for (int32_t d = 0; d < dim; d++) sum += q[d] * k[d];
      double s = double(sum) * layer.scale;
      if (layer.softcap > 0) s = layer.softcap * std::tanh(s / layer.softcap);
      out[size_t(p - from)] = s;
    }
  }
  mutable double numbers[KVASIR_STATS];
  std::string decisions() const {
    std::vector<char> text(1 << 16);
    expect(kvasir_index_stats(ctx, index, numbers, text.data(), int32_t(text.size())));
    return text.data();
  }
  double bytes() const { return decisions(), numbers[1]; }
};

struct Answer {
  std::vector<int32_t> tokens, counts;
  std::vector<float> bias, errors;
  double report[KVASIR_REPORT];
  int32_t capacity;
};

void search(Answer& a, const Head& h, const float* q, const float* exact, double kind, double value, uint32_t draw) {
  const int32_t rows = kind == KVASIR_GOAL_ERROR ? 1 : h.group;
  a.capacity = int32_t(h.layer.tokens);
  a.tokens.resize(size_t(rows * a.capacity));
  a.bias.resize(a.tokens.size());
  a.counts.resize(size_t(rows));
  a.errors.resize(size_t(rows));
  const double goal[KVASIR_GOAL] = {kind, value, KVASIR_TAIL_NONE, double(draw)};
  expect(kvasir_index_search(h.ctx, h.index, a.tokens.data(), a.bias.data(), a.counts.data(), a.errors.data(), a.report, a.capacity,
                             goal, q, exact, nullptr, nullptr));
}

struct Recall {
  double recall = 0, scored = 0, expected = NAN;
};

// Mean over decode queries of the share of their best 100 keys in [from, to) that is found.
Recall measure_recall(const Head& h, int32_t from, int32_t to, uint32_t step) {
  Recall r;
  Answer a;
  std::vector<double> s;
  const std::vector<float> exact(size_t(h.group), -INFINITY);
  double queries = 0;
  for (uint32_t i = 0; i < h.layer.decoded; i += step) {
    const std::vector<float> q = h.decode_queries(i);
    search(a, h, q.data(), exact.data(), KVASIR_GOAL_TOPK, kTop, 1);
    r.scored += a.report[1] / (to - from);
    r.expected = a.report[4];
    for (int32_t g = 0; g < h.group; g++) {
      h.logits(s, q.data() + g * h.dim, from, to);
      std::vector<double> sorted = s;
      std::nth_element(sorted.begin(), sorted.begin() + (kTop - 1), sorted.end(), std::greater<double>());
      int found = 0;
      for (int32_t j = 0; j < a.counts[size_t(g)]; j++) {
        found += s[size_t(a.tokens[size_t(g * a.capacity + j)] - from)] >= sorted[kTop - 1] - 1e-5;
      }
      r.recall += std::min(found, kTop) / double(kTop);
      queries++;
    }
  }
  r.scored /= queries / h.group;
  r.recall /= queries;
  return r;
}

void run_recall(const Recorded& file, const char* spec, size_t every) {
  std::vector<double> recall, scored, gap, bytes;
  size_t at = 0;
  for (const RecordedLayer& layer : file.layers()) {
    for (uint32_t kv = 0; kv < layer.kv_heads; kv++) {
      if (at++ % every != 0) continue;
      Head h(layer, kv);
      h.open(spec);
      const int32_t end = h.prompt - kWindow;
      h.add(kSinks, end);
      expect(kvasir_index_settle(h.ctx, h.index));
      const Recall r = measure_recall(h, kSinks, end, 4);
      recall.push_back(r.recall);
      scored.push_back(r.scored);
      const std::string why = h.decisions();
      if (std::isfinite(r.expected)) gap.push_back(r.expected - r.recall);
      bytes.push_back(h.bytes() / (double(end - kSinks) * h.dim * 2));
      std::printf("layer %2u head %u: recall %.3f, scored %.4f of keys, expected %.3f, bytes %.3f of f16 keys\n%s", layer.layer, kv, r.recall,
                  r.scored, r.expected, bytes.back(), std::getenv("WHY") != nullptr ? why.c_str() : "");
      std::fflush(stdout);
    }
  }
  std::printf("%s on %zu heads: recall mean %.4f, median %.3f, p10 %.3f; keys scored median %.4f, p90 %.4f; held-out minus decode "
              "recall worst %.3f, median %.3f; bytes %.3f, worst %.3f of f16 keys\n",
              spec, recall.size(), mean(recall), quantile(recall, .5), quantile(recall, .1), quantile(scored, .5), quantile(scored, .9),
              quantile(gap, 1), quantile(gap, .5), mean(bytes), quantile(bytes, 1));
}

void run_error(const Recorded& file, const char* spec, size_t every) {
  std::vector<double> errors, kept, scored, estimates, worst_bias;
  size_t at = 0;
  for (const RecordedLayer& layer : file.layers()) {
    for (uint32_t kv = 0; kv < layer.kv_heads; kv++) {
      if (at++ % every != 0) continue;
      Head h(layer, kv);
      h.open(spec);
      const int32_t end = h.prompt - kWindow;
      h.add(kSinks, end);
      expect(kvasir_index_settle(h.ctx, h.index));
      Answer a;
      std::vector<double> s, here;
      double bias = 0, bias_square = 0, draws = 0;
      for (uint32_t i = 0; i < layer.decoded; i += 16) {
        const std::vector<float> q = h.decode_queries(i);
        const int32_t last = h.prompt + int32_t(i) + 1;
        const size_t dim = size_t(h.dim);
        std::vector<float> exact(size_t(h.group), 0.0f);
        std::vector<std::vector<double>> logits(size_t(h.group)), full(size_t(h.group)), part(size_t(h.group));
        std::vector<double> top(size_t(h.group)), full_sum(size_t(h.group)), part_sum(size_t(h.group));
        for (size_t g = 0; g < size_t(h.group); g++) {
          h.logits(logits[g], q.data() + g * dim, 0, last);
          top[g] = *std::max_element(logits[g].begin(), logits[g].end());
          full[g].assign(dim, 0), part[g].assign(dim, 0);
          for (int32_t p = 0; p < last; p++) {
            const double w = std::exp(logits[g][size_t(p)] - top[g]);
            const bool inside = p < kSinks || p >= end;
            full_sum[g] += w;
            part_sum[g] += inside ? w : 0;
            for (size_t d = 0; d < dim; d++) {
              const double v = w * double(h.values[size_t(p) * dim + d]);
              full[g][d] += v;
              part[g][d] += inside ? v : 0;
            }
          }
          exact[g] = float(top[g] + std::log(part_sum[g]));
        }
        for (uint32_t draw = 0; draw < 12; draw++) {
          search(a, h, q.data(), exact.data(), KVASIR_GOAL_ERROR, 0.05, i * 1000 + draw);
          if (draw == 0) kept.push_back(a.counts[0] / double(last)), scored.push_back(a.report[1] / (end - kSinks));
          for (size_t g = 0; g < size_t(h.group); g++) {
            std::vector<double> o = part[g];
            double sum = part_sum[g], off = 0, norm = 0;
            for (int32_t j = 0; j < a.counts[0]; j++) {
              const size_t p = size_t(a.tokens[size_t(j)]);
              const double w = std::exp(logits[g][p] - top[g] + double(a.bias[size_t(j)]));
              sum += w;
              for (size_t d = 0; d < dim; d++) o[d] += w * double(h.values[p * dim + d]);
            }
            const double z = (sum - full_sum[g]) / full_sum[g];
            bias += z, bias_square += z * z, draws++;
            for (size_t d = 0; d < dim; d++) {
              const double want = full[g][d] / full_sum[g], got = o[d] / sum;
              off += (got - want) * (got - want), norm += want * want;
            }
            here.push_back(std::sqrt(off / norm));
          }
          estimates.push_back(double(a.errors[0]));
        }
      }
      const double m = bias / draws, se = std::sqrt((bias_square / draws - m * m) / draws);
      worst_bias.push_back(std::fabs(m) / se);
      errors.push_back(mean(here));
      std::printf("layer %2u head %u: error mean %.4f p99 %.3f, worst %.3f; mean of (Z - true) / true %+.5f, %.1f standard errors\n",
                  layer.layer, kv, mean(here), quantile(here, .99), quantile(here, 1), m, m / se);
      std::fflush(stdout);
    }
  }
  std::printf("%s on %zu heads: error mean %.4f, worst head %.4f; kept %.4f of keys; scored mean %.4f, median %.4f; estimate mean %.4f; "
              "worst |bias| %.1f standard errors\n", spec, errors.size(), mean(errors), quantile(errors, 1), mean(kept), mean(scored),
              quantile(scored, .5), mean(estimates), quantile(worst_bias, 1));
}


// CPU seconds a query of an exact kNN by the library's own kernels: the yardstick of building.
double knn_seconds(const Head& h, int32_t from, int32_t to, int32_t count) {
  std::vector<float> queries;
  for (int32_t i = 0; i < count; i++) {
    const std::vector<float> q = h.prompt_queries(size_t(i) * h.layer.num_prompt / size_t(count));
    queries.insert(queries.end(), q.begin(), q.begin() + h.dim);
  }
  const int32_t desc[KVASIR_SEGMENT_DESC] = {0, KVASIR_F16, 1, int32_t(h.layer.tokens), h.dim};
  kvasir_memory keys = h.key_memory, values = h.value_memory;
  kvasir::Rows rows;
  rows.append(std::make_shared<kvasir::Segment>(desc, &keys, &values, nullptr, nullptr));
  const double start = cpu_seconds();
  kvasir::nearest_keys(kvasir::find_index_isa("auto"), kvasir::run_inline, rows, 0, from, to, queries.data(), count, kTop);
  return (cpu_seconds() - start) / count;
}

void run_build(const Recorded& file, const char* spec) {
  const RecordedLayer& layer = file.layers()[0];
  Head h(layer, 0);
  h.open(spec);
  const int32_t end = h.prompt - kWindow, n = end - kSinks, late = n / 8;
  double start = cpu_seconds();
  h.add(kSinks, end - late);
  const double codes = cpu_seconds() - start;
  expect(kvasir_index_settle(h.ctx, h.index));
  const double build = cpu_seconds() - start, per_query = knn_seconds(h, kSinks, end - late, 960);
  const double all = per_query * (n - late) * h.group;
  std::printf("%s, %d keys: codes, samples and lists in %.2f s CPU (%.2f s before settling); one exact kNN of all %d x %d prompt queries "
              "%.1f s; ratio %.4f (bar .04)\n%s", spec, n - late, build, codes, n - late, h.group, all, build / all, h.decisions().c_str());
}

// CPU time a key of all threads while the index doubles, from half of the prompt to all of it, with the extensions and the aims that
// this takes (not the build at the end of it: see `build`); and what of it the thread that adds spends where builders have a thread of their own, which
// has a tenth of a second for 512 keys (decode leaves it more).
void run_insert(const Recorded& file, const char* spec) {
  const RecordedLayer& layer = file.layers()[0];
  const int32_t end = int32_t(layer.tokens - layer.decoded) - kWindow, first = (end - kSinks) / 2;
  const auto grow = [&](bool alone) {
    Head h(layer, 0);
    h.open(spec, alone ? 0 : 1);
    h.add(kSinks, kSinks + first);
    expect(kvasir_index_settle(h.ctx, h.index));
    double spent = 0;
    for (int32_t p = kSinks + first; p < end; p += 512) {
      const double start = alone ? cpu_seconds() : thread_seconds();
      h.add(p, std::min(p + 512, end));
      spent += (alone ? cpu_seconds() : thread_seconds()) - start;
      if (!alone) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    if (alone) std::printf("%s", h.decisions().c_str());
    return 1e6 * spent / (end - kSinks - first);
  };
  const double all = grow(true), caller = grow(false);
  std::printf("%s, insertion from %d to %d keys: %.2f us a key of CPU time, extensions and aims included (bar 10); %.2f of "
              "them on the thread that adds\n", spec, first, end - kSinks, all, caller);
}

void run_grow(const Recorded& file, const char* spec, size_t every) {
  std::vector<double> fresh, quarter, grown, fresh_scored, quarter_scored, grown_scored;
  size_t at = 0;
  for (const RecordedLayer& layer : file.layers()) {
    for (uint32_t kv = 0; kv < layer.kv_heads; kv++) {
      if (at++ % every != 0) continue;
      Head h(layer, kv);
      const int32_t end = h.prompt - kWindow, n = end - kSinks;
      // Built over `first` keys, then grown to the end in steps of 128 tokens, with the queries of a prompt throughout.
      const auto grow = [&](int32_t first) {
        h.open(spec);
        h.add(kSinks, kSinks + first);
        expect(kvasir_index_settle(h.ctx, h.index));
        for (int32_t p = kSinks + first; p < end; p += 128) h.add(p, std::min(p + 128, end));
        return measure_recall(h, kSinks, end, 4);
      };
      const Recall a = grow(n), b = grow(n * 4 / 5), c = grow(n / 13);
      fresh.push_back(a.recall), quarter.push_back(b.recall), grown.push_back(c.recall);
      fresh_scored.push_back(a.scored), quarter_scored.push_back(b.scored), grown_scored.push_back(c.scored);
      std::printf("layer %2u head %u: fresh %.3f (%.3f), after 25 %% new keys %.3f (%.3f), after 13-fold growth %.3f (%.3f of keys "
                  "scored)\n", layer.layer, kv, a.recall, a.scored, b.recall, b.scored, c.recall, c.scored);
      std::fflush(stdout);
    }
  }
  std::printf("%s on %zu heads: mean recall fresh %.4f (scored %.3f), after 25 %% new keys %.4f (%.3f), after 13-fold growth %.4f (%.3f)\n",
              spec, fresh.size(), mean(fresh), mean(fresh_scored), mean(quarter), mean(quarter_scored), mean(grown), mean(grown_scored));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "kvasir_lists_bench recall|error|build|insert|grow FILE [spec] [every]\n");
    return 1;
  }
  const Recorded file(argv[2]);
  const char* spec = argc > 3 ? argv[3] : "lists";
  const size_t every = argc > 4 ? static_cast<size_t>(std::atoi(argv[4])) : 1;
  const std::string mode = argv[1];
  if (mode == "recall") run_recall(file, spec, every);
  else if (mode == "error") run_error(file, spec, every);
  else if (mode == "build") run_build(file, spec);
  else if (mode == "insert") run_insert(file, spec);
  else if (mode == "grow") run_grow(file, spec, every);
  return 0;
}
