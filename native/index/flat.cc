// Type "flat": every key is scored. Exact, and the oracle of every other type.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "draw.h"
#include "file.h"
#include "index.h"
#include "kvasir_index.h"
#include "row_kernels.h"

namespace kvasir {
namespace {

class Flat final : public Index {
 public:
  Flat(const Environment& environment, const LayerShape& shape, Rows rows)
      : Index(environment, shape, std::move(rows)) {}

  void add(int32_t, int32_t, const float*) override {}
  void commit() override {
    from_ = begin();
    to_ = end();
  }

  void search(const Query& query, const Hits& hits, Report& report) override {
    std::vector<Report> reports(static_cast<size_t>(shape_.kv_heads));
    environment_.pool->run(shape_.kv_heads, [&](int32_t head, int worker) {
      search_head(query, hits, head, (*environment_.scratch)[static_cast<size_t>(worker)],
                  reports[static_cast<size_t>(head)]);
    });
    report.certificate = query.goal.kind == Goal::kTopk && !query.goal.sample_tail ? KVASIR_CERTIFICATE_EXACT
                                                                                   : KVASIR_CERTIFICATE_UNBIASED;
    for (const Report& r : reports) {
      report.keys_scored += r.keys_scored;
      report.keys_kept += r.keys_kept;
      report.bytes_read += r.bytes_read;
    }
  }

  std::unique_ptr<Index> fork(const Rows& rows) const override {
    auto copy = std::make_unique<Flat>(environment_, shape_, rows);
    copy->begin_ = begin_;
    copy->end_ = end_;
    copy->from_ = from_;
    copy->to_ = to_;
    return copy;
  }

  void save(FileWriter& to) const override {
    const int32_t range[4] = {begin_, end_, from_, to_};
    to.add("range", range, sizeof range);
  }

  void restore(const FileReader& from) {
    const int32_t* range = from.array<int32_t>("range", 4);
    if (range[0] < 0 || range[1] < range[0] || range[2] < range[0] || range[3] < range[2] || range[3] > range[1] ||
        (range[1] > range[0] && (range[0] < rows_.begin() || range[1] > rows_.end()))) {
      fail(KVASIR_ARGUMENT, "Cannot open index: positions %d to %d, segments hold %d to %d", range[0], range[1],
           rows_.begin(), rows_.end());
    }
    begin_ = range[0], end_ = range[1], from_ = range[2], to_ = range[3];
  }

  IndexStats stats() const override {
    IndexStats s;
    s.tokens = end_ - begin_;
    s.pending = end_ - to_;
    return s;
  }

 private:
  // Logits of all keys: out [group, n].
  void score(float* out, const float* q, int32_t head, Report& report) const {
    const int32_t n = to_ - from_, group = shape_.group(), dim = shape_.head_dim;
    std::vector<float> dots(static_cast<size_t>(group));
    for (int32_t i = 0; i < n;) {
      const Segment& s = rows_.find(from_ + i);
      const int32_t first = from_ + i - s.start(), count = std::min(n - i, s.capacity() - first);
      for (int32_t r = 0; r < count; r++, i++) {
        const void* row = s.key(head, first + r);
        const RowKernels& kernels = *environment_.isa->rows;
        if (s.dtype() == KVASIR_F32) kernels.dot_f32(dots.data(), q, static_cast<const float*>(row), group, dim);
        else if (s.dtype() == KVASIR_F16) kernels.dot_f16(dots.data(), q, static_cast<const uint16_t*>(row), group, dim);
        else kernels.dot_i8(dots.data(), q, static_cast<const int8_t*>(row), group, dim);
        for (int32_t g = 0; g < group; g++) {
          float x = dots[static_cast<size_t>(g)] * shape_.scale * s.key_scale(head, first + r);
          if (shape_.softcap > 0) x = shape_.softcap * std::tanh(x / shape_.softcap);
          out[static_cast<size_t>(g) * static_cast<size_t>(n) + static_cast<size_t>(i)] = x;
        }
      }
      report.bytes_read += static_cast<double>(count) * static_cast<double>(s.row_bytes());
    }
    report.keys_scored += n;
  }

  void search_head(const Query& query, const Hits& hits, int32_t head, Scratch& scratch, Report& report) const {
    const int32_t n = to_ - from_, group = shape_.group();
    const size_t count = static_cast<size_t>(n);
    float* scores = static_cast<float*>(scratch.get(sizeof(float) * (count * static_cast<size_t>(group) + 16)));
    const int32_t first = head * group;
    score(scores, query.q + static_cast<size_t>(first) * static_cast<size_t>(shape_.head_dim), head, report);
    if (query.goal.kind == Goal::kError) return sample(query, hits, head, scores, report);
    for (int32_t g = 0; g < group; g++) {
      const float* row = scores + static_cast<size_t>(g) * count;
      if (query.goal.sample_tail) priority(query, hits, head, first + g, row, report);
      else top(query, hits, first + g, row, report);
    }
  }

  // The best `value` keys; among equals those of lower position.
  void top(const Query& query, const Hits& hits, int32_t row, const float* scores, Report& report) const {
    const int32_t n = to_ - from_, k = std::min(n, static_cast<int32_t>(query.goal.value));
    std::vector<int32_t> order(static_cast<size_t>(n));
    for (int32_t i = 0; i < n; i++) order[static_cast<size_t>(i)] = i;
    std::nth_element(order.begin(), order.begin() + k, order.end(), [&](int32_t a, int32_t b) {
      return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
    });
    std::sort(order.begin(), order.begin() + k);
    for (int32_t i = 0; i < k; i++) put(hits, row, i, order[static_cast<size_t>(i)], 0);
    hits.counts[row] = k;
    hits.errors[row] = std::numeric_limits<float>::quiet_NaN();
    report.keys_kept += k;
  }

  // Priority sampling (Duffield, Lund, Thorup 2007): the K best s - ln u, weights relative to the next one.
  void priority(const Query& query, const Hits& hits, int32_t head, int32_t row, const float* scores,
                Report& report) const {
    const int32_t n = to_ - from_, k = std::min(n, static_cast<int32_t>(query.goal.value));
    const uint32_t key = draw_key(query.goal.draw, head);
    std::vector<std::pair<double, int32_t>> order(static_cast<size_t>(n));
    for (int32_t i = 0; i < n; i++) {
      const double u = (draw_bits(key, from_ + i) + 1.0) * 0x1p-32;
      order[static_cast<size_t>(i)] = {static_cast<double>(scores[i]) - std::log(u), i};
    }
    const auto higher = [](const auto& a, const auto& b) {
      return a.first != b.first ? a.first > b.first : a.second < b.second;
    };
    double threshold = -std::numeric_limits<double>::infinity();
    if (k < n) {
      std::nth_element(order.begin(), order.begin() + k, order.end(), higher);
      threshold = order[static_cast<size_t>(k)].first;
    }
    std::sort(order.begin(), order.begin() + k, [](const auto& a, const auto& b) { return a.second < b.second; });
    for (int32_t i = 0; i < k; i++) {
      const int32_t at = order[static_cast<size_t>(i)].second;
      put(hits, row, i, at, static_cast<float>(std::max(0.0, threshold - static_cast<double>(scores[at]))));
    }
    hits.counts[row] = k;
    hits.errors[row] = std::numeric_limits<float>::quiet_NaN();
    report.keys_kept += k;
  }

  // Threshold sampling shared by the group: p = min(1, max over its heads of exp(s) / (tau Z)).
  void sample(const Query& query, const Hits& hits, int32_t head, const float* scores, Report& report) const {
    const int32_t n = to_ - from_, group = shape_.group();
    const double tau = query.goal.value * query.goal.value;
    std::vector<double> log_threshold(static_cast<size_t>(group)), log_sum(static_cast<size_t>(group));
    for (int32_t g = 0; g < group; g++) {
      const float* s = scores + static_cast<size_t>(g) * static_cast<size_t>(n);
      const double exact = query.exact[head * group + g];
      double max = exact;
      for (int32_t i = 0; i < n; i++) max = std::max(max, static_cast<double>(s[i]));
      double sum = std::isfinite(exact) ? std::exp(exact - max) : 0;
      for (int32_t i = 0; i < n; i++) sum += std::exp(static_cast<double>(s[i]) - max);
      log_sum[static_cast<size_t>(g)] = max + std::log(sum);
      log_threshold[static_cast<size_t>(g)] = log_sum[static_cast<size_t>(g)] + std::log(tau);
    }
    const uint32_t key = draw_key(query.goal.draw, head);
    std::vector<double> squares(static_cast<size_t>(group));
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++) {
      double log_p = -std::numeric_limits<double>::infinity();
      for (int32_t g = 0; g < group; g++) {
        const double s = scores[static_cast<size_t>(g) * static_cast<size_t>(n) + static_cast<size_t>(i)];
        log_p = std::max(log_p, s - log_threshold[static_cast<size_t>(g)]);
      }
      const double p = log_p >= 0 || tau == 0 ? 1 : std::exp(log_p);
      if (draw_bits(key, from_ + i) >= p * 0x1p32) continue;
      for (int32_t g = 0; g < group; g++) {
        const double s = scores[static_cast<size_t>(g) * static_cast<size_t>(n) + static_cast<size_t>(i)];
        const double weight = std::exp(s - log_sum[static_cast<size_t>(g)]) / p;
        squares[static_cast<size_t>(g)] += (1 - p) * weight * weight;
      }
      put(hits, head, kept++, i, p == 1 ? 0.0f : static_cast<float>(-std::log(p)));
    }
    double worst = 0;
    for (double s : squares) worst = std::max(worst, s);
    hits.counts[head] = kept;
    hits.errors[head] = static_cast<float>(std::sqrt(worst));
    report.keys_kept += kept;
  }

  void put(const Hits& hits, int32_t row, int32_t at, int32_t i, float bias) const {
    if (at >= hits.capacity) return;
    const size_t to = static_cast<size_t>(row) * static_cast<size_t>(hits.capacity) + static_cast<size_t>(at);
    hits.tokens[to] = from_ + i;
    hits.bias[to] = bias;
  }

  int32_t from_ = 0, to_ = 0;  // searchable
};

}  // namespace

extern const IndexType kFlat;
const IndexType kFlat = {
    "flat",
    "",
    "scores every key",
    [](const Environment& environment, const LayerShape& shape, const Params&, Rows rows) -> std::unique_ptr<Index> {
      return std::make_unique<Flat>(environment, shape, std::move(rows));
    },
    [](const Environment& environment, const LayerShape& shape, const Params&, Rows rows,
       FileReader& from) -> std::unique_ptr<Index> {
      auto index = std::make_unique<Flat>(environment, shape, std::move(rows));
      index->restore(from);
      return index;
    },
};

}  // namespace kvasir
