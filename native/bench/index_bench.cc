// Index types on recorded heads, KV head by KV head: one JSON line per head, spec and goal. bench/index.ts makes tables of them.
//   c++ -O3 -march=native -std=c++17 -I native/include -I native/base -I native/bench native/bench/index_bench.cc
//     -Lbuild -lkvasir_index -Wl,-rpath,build -o index_bench
//   ./index_bench heads.kvqk --spec flat --spec flat:codes=int4 --goal top100 --goal error0.05 --queries 8 --cold
// Prompt tokens are added in chunks with the queries that were recorded, and settled; between queries the index grows with the
// sequence, so that the window is 512 keys every time.
#include <chrono>

#include "kvasir_index.h"
#include "measure.h"

using namespace kvasir_bench;

namespace {

void expect(int32_t status) {
  if (status == KVASIR_OK) return;
  char text[512];
  kvasir_index_last_error(text, sizeof text);
  std::fprintf(stderr, "%s\n", text);
  std::exit(1);
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

kvasir_memory memory(const void* data, size_t bytes) {
  const auto nothing = [](kvasir_memory*) {};  // the mapping outlives everything
  return {const_cast<void*>(data), bytes, nothing, nothing};
}

// An index over one KV head and its group, in a context of its own.
class HeadIndex {
 public:
  HeadIndex(const RecordedLayer& layer, uint32_t kv_head, const std::string& spec)
      : layer_(layer), kv_head_(kv_head),
        rows_(layer.key(kv_head, 0), row_bytes() * layer.tokens), keys_(memory(rows_.data(), rows_.bytes())),
        values_(memory(layer.value(kv_head, 0), row_bytes() * layer.tokens)) {
    ctx_ = kvasir_index_context_create("threads=1,builders=1", nullptr);
    if (ctx_ == nullptr) expect(KVASIR_ARGUMENT);
    const int32_t tokens = static_cast<int32_t>(layer.tokens), dim = static_cast<int32_t>(layer.head_dim);
    const int32_t desc[KVASIR_SEGMENT_DESC] = {0, KVASIR_F16, 1, tokens, dim};
    kvasir_segment segment = 0;
    expect(kvasir_segment_create(ctx_, &segment, desc, &keys_, &values_, nullptr, nullptr));
    const double shape[KVASIR_INDEX_SHAPE] = {static_cast<double>(layer.group()), 1, static_cast<double>(dim), layer.scale,
                                              layer.softcap, static_cast<double>(layer.rope_dims),
                                              static_cast<double>(layer.pairing), 1};
    expect(kvasir_index_create(ctx_, &index_, spec.c_str(), shape, layer.frequencies));
    expect(kvasir_index_append_segment(ctx_, index_, segment));
  }
  ~HeadIndex() { kvasir_index_context_destroy(ctx_); }
  HeadIndex(const HeadIndex&) = delete;
  HeadIndex& operator=(const HeadIndex&) = delete;

  // Tokens [end, to): those with a recorded prompt query come with it.
  void add_until(uint32_t to) {
    const uint32_t group = layer_.group(), dim = layer_.head_dim;
    while (end_ < to) {
      while (next_ < layer_.num_prompt && static_cast<uint32_t>(layer_.prompt_positions[next_]) < end_) next_++;
      const uint32_t query = next_ < layer_.num_prompt ? static_cast<uint32_t>(layer_.prompt_positions[next_]) : to;
      const uint32_t until = std::min({to, query > end_ ? query : end_ + 1, end_ + 512});
      std::vector<float> q;
      if (query == end_) q = widen(layer_.prompt_query(next_, kv_head_ * group), static_cast<size_t>(group) * dim);
      const int32_t start = static_cast<int32_t>(end_), count = static_cast<int32_t>(until - end_);
      if (!q.empty()) expect(kvasir_index_observe(ctx_, index_, start, 1, q.data()));
      expect(kvasir_index_add(ctx_, index_, start, count));
      end_ = until;
    }
    expect(kvasir_index_commit(ctx_, index_));
  }
  void settle() { expect(kvasir_index_settle(ctx_, index_)); }

  void search(const Truth& truth, const GoalText& goal) {
    const double values[KVASIR_GOAL] = {goal.topk ? 1.0 : 0.0, goal.value, goal.sample ? 1.0 : 0.0,
                                        static_cast<double>(truth.position * 2654435761u)};
    const size_t rows = goal.topk ? layer_.group() : 1;
    for (;;) {
      tokens_.resize(rows * capacity_);
      bias_.resize(tokens_.size());
      counts_.resize(rows);
      errors_.resize(rows);
      const int32_t status = kvasir_index_search(ctx_, index_, tokens_.data(), bias_.data(), counts_.data(), errors_.data(),
                                                 report_, static_cast<int32_t>(capacity_), values, truth.q.data(),
                                                 truth.exact_f.data(), nullptr, nullptr);
      if (status != KVASIR_CAPACITY) return expect(status);
      for (int32_t count : counts_) capacity_ = std::max(capacity_, static_cast<size_t>(count) * 5 / 4);
    }
  }

  // What the last search found.
  Answer answer() const {
    Answer a;
    for (size_t r = 0; r < counts_.size(); r++) {
      const auto from = static_cast<std::ptrdiff_t>(r * capacity_), to = from + counts_[r];
      a.tokens.emplace_back(tokens_.begin() + from, tokens_.begin() + to);
      a.bias.emplace_back(bias_.begin() + from, bias_.begin() + to);
    }
    a.certificate = static_cast<int>(report_[0]);
    a.scored = report_[1];
    a.bytes = report_[3];
    a.expected_recall = report_[4];
    a.estimated = mean(std::vector<double>(errors_.begin(), errors_.end()));
    return a;
  }

  void stats(Figures* figures) const {
    double numbers[KVASIR_STATS];
    std::vector<char> text(1 << 16);
    expect(kvasir_index_stats(ctx_, index_, numbers, text.data(), static_cast<int32_t>(text.size())));
    figures->bytes_per_key = numbers[1] / numbers[0];
    figures->build_seconds = numbers[3];
    figures->decisions = text.data();
  }

 private:
  size_t row_bytes() const { return 2 * static_cast<size_t>(layer_.head_dim); }

  const RecordedLayer& layer_;
  uint32_t kv_head_, end_ = kSinks, next_ = 0;
  LargePages rows_;
  kvasir_memory keys_, values_;
  kvasir_index_context* ctx_ = nullptr;
  kvasir_index index_ = 0;
  size_t capacity_ = 4096;
  std::vector<int32_t> tokens_, counts_;
  std::vector<float> bias_, errors_;
  double report_[KVASIR_REPORT] = {};
};

}  // namespace

int main(int argc, char** argv) {
  const Options options(argc, argv);
  const Recorded heads(options.file);
  Evictor evictor(options.cold ? size_t{512} << 20 : 64);
  each_head(heads, options, [&](const RecordedLayer& layer, uint32_t kv) {
    const HeadRows rows(layer, kv);
    const std::vector<uint32_t> queries = chosen_queries(layer, options);
    std::vector<Truth> truths;
    for (uint32_t query : queries) truths.emplace_back(rows, layer, kv, query);
    const uint32_t prompt = layer.tokens - layer.decoded - kWindow;
    for (const std::string& spec : options.specs) {
      HeadIndex index(layer, kv, spec);
      const double start = seconds();
      index.add_until(prompt);
      index.settle();
      const double built = seconds() - start;
      std::vector<Figures> figures(options.goals.size());
      double inserting = 0;
      for (const Truth& truth : truths) {
        const double before = thread_seconds();
        index.add_until(truth.to);
        inserting += thread_seconds() - before;
        for (size_t i = 0; i < figures.size(); i++) {
          const GoalText goal(options.goals[i]);
          time_search([&] { index.search(truth, goal); }, options.cold ? &evictor : nullptr, &figures[i]);
          figures[i].add(rows, truth, index.answer(), goal.k());
        }
      }
      for (size_t i = 0; i < figures.size(); i++) {
        index.stats(&figures[i]);
        figures[i].build_seconds = built;
        figures[i].insert_us = 1e6 * inserting / (truths.back().to - prompt);
        print_line(heads.name(), spec, options.goals[i], layer, kv, truths.back().to - kSinks, figures[i]);
      }
    }
  });
}
