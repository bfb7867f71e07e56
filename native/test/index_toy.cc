// Type "recent": the newest tokens, whatever is asked.
#include <algorithm>
#include <cmath>

#include "file.h"
#include "index.h"
#include "kvasir_index.h"

namespace kvasir {
namespace {

class Recent final : public Index {
 public:
  Recent(const Environment& environment, const LayerShape& shape, Rows rows, int32_t most)
      : Index(environment, shape, std::move(rows)), most_(most) {}

  void add(int32_t, int32_t) override {}
  void commit() override { searchable_ = end(); }

  void search(const Query& query, const Hits& hits, Report& report) override {
    const bool by_error = query.goal.kind == Goal::kError;
    const int32_t wanted = by_error ? most_ : std::min(most_, static_cast<int32_t>(query.goal.value));
    const int32_t count = std::min(wanted, std::max(0, searchable_ - begin()));
    for (int32_t row = 0; row < (by_error ? shape_.kv_heads : shape_.heads); row++) {
      for (int32_t i = 0; i < std::min(count, hits.capacity); i++) {
        const size_t at = static_cast<size_t>(row) * static_cast<size_t>(hits.capacity) + static_cast<size_t>(i);
        hits.tokens[at] = searchable_ - count + i;
        hits.bias[at] = 0;
      }
      hits.counts[row] = count;  // may exceed the capacity: the caller comes back with more room
      hits.errors[row] = NAN;
      report.keys_kept += count;
    }
    report.certificate = KVASIR_CERTIFICATE_NONE;  // it vouches for nothing, and says so
  }

  std::unique_ptr<Index> fork(const Rows& rows) const override {
    auto copy = std::make_unique<Recent>(environment_, shape_, rows, most_);
    copy->begin_ = begin_, copy->end_ = end_, copy->searchable_ = searchable_;
    return copy;
  }

  void save(FileWriter& to) const override {
    const int32_t range[3] = {begin_, end_, searchable_};
    to.add("range", range, sizeof range);
  }

  void restore(const FileReader& from) {
    const int32_t* range = from.array<int32_t>("range", 3);
    if (range[0] < 0 || range[1] < range[0] || range[2] > range[1] || range[1] > rows_.end()) {
      fail(KVASIR_ARGUMENT, "Cannot open index: positions %d to %d, segments end at %d", range[0], range[1], rows_.end());
    }
    begin_ = range[0], end_ = range[1], searchable_ = range[2];
  }

  IndexStats stats() const override {
    IndexStats s;
    s.tokens = end_ - begin_;
    return s;
  }

 private:
  int32_t most_, searchable_ = 0;
};

std::unique_ptr<Recent> make(const Environment& environment, const LayerShape& shape, const Params& params, Rows rows) {
  return std::make_unique<Recent>(environment, shape, std::move(rows), params.integer("most", 1, 1 << 20));
}

}  // namespace

extern const IndexType kRecent;
const IndexType kRecent = {
    "recent",
    "most=1000",
    "the newest tokens, whatever is asked",
    [](const Environment& environment, const LayerShape& shape, const Params& params, Rows rows) -> std::unique_ptr<Index> {
      return make(environment, shape, params, std::move(rows));
    },
    [](const Environment& environment, const LayerShape& shape, const Params& params, Rows rows,
       FileReader& from) -> std::unique_ptr<Index> {
      auto index = make(environment, shape, params, std::move(rows));
      index->restore(from);
      return index;
    },
};

}  // namespace kvasir
