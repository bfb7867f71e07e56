// Type "flat": every key is scored. Exact, and the oracle of every other type.
#include <algorithm>
#include <cmath>
#include <limits>

#include "codes.h"
#include "draw.h"
#include "file.h"
#include "index.h"
#include "kvasir_index.h"
#include "sampler.h"
#include "select.h"

namespace kvasir {
namespace {

class Flat final : public Index {
 public:
  Flat(const Environment& environment, const LayerShape& shape, Rows rows, Codes codes)
      : Index(environment, shape, std::move(rows)), codes_(std::move(codes)),
        prepared_(static_cast<size_t>(shape.kv_heads)), reports_(static_cast<size_t>(shape.heads)) {}

  void add(int32_t start, int32_t count, const float*) override { codes_.append(rows_, start, count, environment_.pool); }
  void commit() override { searchable_ = end() - begin(); }

  void search(const Query& query, const Hits& hits, Report& report) override {
    if (query.goal.kind == Goal::kError) {
      sample_by_error(environment_, shape_, codes_, rows_, searchable_, query, hits, report, sampling_);
      report.certificate = KVASIR_CERTIFICATE_UNBIASED;
      return;
    }
    const int32_t group = shape_.group(), threads = environment_.pool->threads();
    const bool certified = !query.goal.sample_tail, priority = !certified;
    const size_t stride = static_cast<size_t>(searchable_ + kBlockKeys - 1) / kBlockKeys * kBlockKeys;
    // Scores of all heads, noise by KV head, then each worker's selection.
    const size_t scores_floats = stride * static_cast<size_t>(shape_.heads);
    const size_t noise_floats = priority ? stride * static_cast<size_t>(shape_.kv_heads) : 0;
    const size_t work_floats = SelectWork::floats(searchable_) + (priority ? stride : 0);
    float* const scores = static_cast<float*>((*environment_.scratch)[0].get(
        sizeof(float) * (scores_floats + noise_floats + work_floats * static_cast<size_t>(threads) + 16)));
    float* const noise = scores + scores_floats;
    float* const work = noise + noise_floats;

    for (int32_t head = 0; head < shape_.kv_heads; head++) {
      const float* q = query.q + static_cast<size_t>(head * group) * static_cast<size_t>(shape_.head_dim);
      codes_.prepare(prepared_[static_cast<size_t>(head)], head, q, group, shape_.scale, certified ? 2 : 1,
                     certified ? Codes::kUpper : Codes::kPlain);
    }
    // Ranges of whole chunks, a few for each worker.
    const int32_t chunks = codes_.chunks(), wanted = threads == 1 ? 1 : (4 * threads + shape_.kv_heads - 1) / shape_.kv_heads;
    const int32_t pieces = std::max(1, std::min(chunks, wanted));
    environment_.pool->run(shape_.kv_heads * pieces, [&](int32_t task, int) {
      const int32_t head = task / pieces, piece = task % pieces;
      const int32_t from = std::min(searchable_, chunks * piece / pieces * Codes::kChunkKeys);
      const int32_t to = std::min(searchable_, chunks * (piece + 1) / pieces * Codes::kChunkKeys);
      float* out = scores + static_cast<size_t>(head * group) * stride + from;
      codes_.score_all(prepared_[static_cast<size_t>(head)], rows_, from, to, out, stride);
      if (shape_.softcap > 0 && !certified) soften(out, to - from, stride);
      if (priority) {
        const uint32_t key = draw_key(query.goal.draw, head);
        environment_.isa->select->draw_noise(noise + static_cast<size_t>(head) * stride + from, key, begin_ + from,
                                             (to - from + kBlockKeys - 1) / kBlockKeys * kBlockKeys);
      }
    });
    environment_.pool->run(shape_.heads, [&](int32_t row, int worker) {
      float* const own = work + static_cast<size_t>(worker) * work_floats;
      Report& done = reports_[static_cast<size_t>(row)] = Report();
      const float* s = scores + static_cast<size_t>(row) * stride;
      if (certified) top(query, hits, row, s, own, done);
      else draw_best(query, hits, row, s, noise + static_cast<size_t>(row / group) * stride, own, stride, done);
    });
    report.certificate = certified ? KVASIR_CERTIFICATE_EXACT : KVASIR_CERTIFICATE_UNBIASED;
    for (int32_t row = 0; row < shape_.heads; row++) {
      report.keys_kept += reports_[static_cast<size_t>(row)].keys_kept;
      report.bytes_read += reports_[static_cast<size_t>(row)].bytes_read;
    }
    const double keys = static_cast<double>(searchable_) * shape_.kv_heads;
    report.keys_scored = keys;
    report.bytes_read += keys * (codes_.kind() == Codes::kNone ? row_bytes() : codes_.key_bytes() + (certified ? 2 : 0));
  }

  std::unique_ptr<Index> fork(const Rows& rows) const override {
    auto copy = std::make_unique<Flat>(environment_, shape_, rows, codes_.fork());
    copy->begin_ = begin_;
    copy->end_ = end_;
    copy->searchable_ = searchable_;
    return copy;
  }

  void save(FileWriter& to) const override {
    const int32_t range[3] = {begin_, end_, searchable_};
    to.add("range", range, sizeof range);
    codes_.save(to);
  }

  void restore(const FileReader& from) {
    const int32_t* range = from.array<int32_t>("range", 3);
    if (range[0] < 0 || range[1] < range[0] || range[2] < 0 || range[2] > range[1] - range[0] ||
        (range[1] > range[0] && (range[0] < rows_.begin() || range[1] > rows_.end()))) {
      fail(KVASIR_ARGUMENT, "Cannot open index: positions %d to %d, segments hold %d to %d", range[0], range[1],
           rows_.begin(), rows_.end());
    }
    codes_.restore(from);
    if (codes_.size() != range[1] - range[0] || (codes_.size() > 0 && codes_.begin() != range[0])) {
      fail(KVASIR_ARGUMENT, "Cannot open index: codes of positions %d to %d, expected %d to %d", codes_.begin(), codes_.end(),
           range[0], range[1]);
    }
    begin_ = range[0], end_ = range[1], searchable_ = range[2];
  }

  IndexStats stats() const override {
    IndexStats s;
    s.tokens = end_ - begin_;
    s.pending = end_ - begin_ - searchable_;
    s.bytes = static_cast<double>(codes_.bytes());
    return s;
  }

 private:
  double row_bytes() const {
    return rows_.segments().empty() ? 0 : static_cast<double>(rows_.segments().front()->row_bytes());
  }

  void soften(float* scores, int32_t count, size_t stride) const {
    for (int32_t g = 0; g < shape_.group(); g++) {
      float* s = scores + static_cast<size_t>(g) * stride;
      for (int32_t i = 0; i < count; i++) s[i] = shape_.softcap * std::tanh(s[i] / shape_.softcap);
    }
  }

  // The best `value` keys; among equals those of lower position.
  void top(const Query& query, const Hits& hits, int32_t row, const float* scores, float* memory, Report& report) const {
    const SelectKernels& kernels = *environment_.isa->select;
    const SelectWork work(memory, searchable_);
    const int32_t wanted = static_cast<int32_t>(query.goal.value), head = row / shape_.group();
    const float* q = query.q + static_cast<size_t>(row) * static_cast<size_t>(shape_.head_dim);
    int32_t rescored = 0, k;
    if (codes_.kind() == Codes::kNone) {
      k = select_best(kernels, scores, searchable_, wanted, work);
    } else {
      k = select_certified(kernels, scores, searchable_, wanted, work,
                           [&](float* out, const int32_t* ids, int32_t count) { rescore(out, q, head, ids, count); },
                           &rescored);
    }
    for (int32_t i = 0; i < std::min(k, hits.capacity); i++) put(hits, row, i, work.ids[i], 0);
    hits.counts[row] = k;
    hits.errors[row] = std::numeric_limits<float>::quiet_NaN();
    report.keys_kept = k;
    report.bytes_read = rescored * row_bytes();
  }

  // Exact scores of keys `ids`, ascending.
  void rescore(float* out, const float* q, int32_t head, const int32_t* ids, int32_t count) const {
    for (int32_t i = 0; i < count;) {
      const Segment& s = rows_.find(begin_ + ids[i]);
      const int32_t end = s.start() + s.capacity() - begin_, offset = begin_ - s.start();
      const int32_t n = static_cast<int32_t>(std::lower_bound(ids + i, ids + count, end) - (ids + i));
      environment_.isa->select->rescore(out + i, q, s.key(head, 0), s.dtype(), shape_.head_dim, offset, ids + i, n);
      for (int32_t j = i; j < i + n; j++) out[j] = out[j] * shape_.scale * s.key_scale(head, ids[j] + offset);
      i += n;
    }
  }

  // Priority sampling (Duffield, Lund, Thorup 2007): the K best s - ln u, weights relative to the next one.
  void draw_best(const Query& query, const Hits& hits, int32_t row, const float* scores, const float* noise, float* memory,
                 size_t stride, Report& report) const {
    const SelectKernels& kernels = *environment_.isa->select;
    const int32_t k = std::min(searchable_, static_cast<int32_t>(query.goal.value));
    float* const priorities = memory;
    const SelectWork work(memory + stride, searchable_);
    kernels.add(priorities, scores, noise, static_cast<int32_t>(stride));
    const int32_t found = select_best(kernels, priorities, searchable_, k + 1, work);
    int32_t next = -1;  // the K + 1st: the least, the highest position of equals
    if (found > k) {
      next = 0;
      for (int32_t i = 1; i < found; i++) {
        if (priorities[work.ids[i]] <= priorities[work.ids[next]]) next = i;
      }
    }
    int32_t kept = 0;
    for (int32_t i = 0; i < found; i++) {
      if (i == next) continue;
      const int32_t at = work.ids[i];
      put(hits, row, kept++, at, next < 0 ? 0 : std::max(0.0f, priorities[work.ids[next]] - scores[at]));
    }
    hits.counts[row] = kept;
    hits.errors[row] = std::numeric_limits<float>::quiet_NaN();
    report.keys_kept = kept;
  }

  void put(const Hits& hits, int32_t row, int32_t at, int32_t i, float bias) const {
    if (at >= hits.capacity) return;
    const size_t to = static_cast<size_t>(row) * static_cast<size_t>(hits.capacity) + static_cast<size_t>(at);
    hits.tokens[to] = begin_ + i;
    hits.bias[to] = bias;
  }

  Codes codes_;
  int32_t searchable_ = 0;  // keys
  std::vector<PreparedQuery> prepared_;
  std::vector<Report> reports_;
  SampleMemory sampling_;
};

std::unique_ptr<Flat> make_flat(const Environment& environment, const LayerShape& shape, const Params& params, Rows rows) {
  const Codes::Kind kinds[] = {Codes::kInt8, Codes::kInt4, Codes::kNone};
  const Codes::Kind kind = kinds[params.choice("codes", {"int8", "int4", "f16"})];
  return std::make_unique<Flat>(environment, shape, std::move(rows), Codes(environment.isa, kind, shape.kv_heads, shape.head_dim));
}

}  // namespace

extern const IndexType kFlat;
const IndexType kFlat = {
    "flat",
    "codes=int8",
    "scores every key: exact, or sampled without bias",
    [](const Environment& environment, const LayerShape& shape, const Params& params, Rows rows) -> std::unique_ptr<Index> {
      return make_flat(environment, shape, params, std::move(rows));
    },
    [](const Environment& environment, const LayerShape& shape, const Params& params, Rows rows,
       FileReader& from) -> std::unique_ptr<Index> {
      auto index = make_flat(environment, shape, params, std::move(rows));
      index->restore(from);
      return index;
    },
};

}  // namespace kvasir
