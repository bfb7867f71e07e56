// Type "flat": every key is scored. Exact, and the oracle of every other type.
#include "file.h"
#include "flat_search.h"
#include "kvasir_index.h"

namespace kvasir {
namespace {

class Flat final : public Index {
 public:
  Flat(const Environment& environment, const LayerShape& shape, Rows rows, Codes codes)
      : Index(environment, shape, std::move(rows)), codes_(std::move(codes)) {}

  void add(int32_t start, int32_t count) override { codes_.append(rows_, start, count, environment_.pool); }
  void commit() override { searchable_ = end() - begin(); }

  void search(const Query& query, const Hits& hits, Report& report) override {
    search_.run({&environment_, &shape_, &rows_, &codes_, searchable_}, query, hits, report);
    const bool best = query.goal.kind == Goal::kTopk && !query.goal.sample_tail;
    report.certificate = best ? KVASIR_CERTIFICATE_EXACT : KVASIR_CERTIFICATE_UNBIASED;
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
  Codes codes_;
  int32_t searchable_ = 0;  // keys
  FlatSearch search_;
};

std::unique_ptr<Flat> make_flat(const Environment& environment, const LayerShape& shape, const Params& params, Rows rows) {
  const Codes::Kind kinds[] = {Codes::kInt8, Codes::kInt4, Codes::kNone};
  const Codes::Kind kind = kinds[params.choice("codes", {"int8", "int4", "f16"})];
  return std::make_unique<Flat>(environment, shape, std::move(rows),
                                Codes(environment.isa, kind, shape.kv_heads, shape.head_dim, environment.chunks));
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
