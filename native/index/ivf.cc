// Type "ivf": k-means on keys; the cells whose centroids have the largest inner products with the query are scored (Sivic and
// Zisserman 2003; Jégou, Douze, Schmid 2011, section IV). metric=query makes cells compact in what queries can see.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "error.h"
#include "kvasir_index.h"
#include "partition_index.h"

namespace kvasir {
namespace {

class IvfRecipe final : public PartitionRecipe {
 public:
  IvfRecipe(const LayerShape& shape, const Params& params)
      : lists_(params.integer("nlist", 0, 1 << 20)), iterations_(params.integer("iterations", 1, 100)),
        by_query_(params.choice("metric", {"key", "query"}) == 1), seed_(shape.seed) {
    probes = params.integer("nprobe", 1, 1 << 20);
    growth = params.number("growth");
    lift = params.number("lift");
    min_keys = params.integer("min", 1, 1 << 30);
    extend = params.integer("extend", 1, 1 << 30);
    if (growth <= 0) fail(KVASIR_ARGUMENT, "Cannot use \"ivf\": growth is %g, expected above 0", growth);
    if (lift < 0 || lift > 16) fail(KVASIR_ARGUMENT, "Cannot use \"ivf\": lift is %g, expected 0 to 16", lift);
  }

  std::string refuses(const QuerySamples& samples, int32_t keys) const override {
    if (by_query_ && samples.count() == 0) return "no prompt queries";
    return keys < min_keys ? "few tokens" : "";
  }

  std::shared_ptr<const Partition> build(const PartitionInput& in, std::string& decision) const override {
    auto made = std::make_shared<Partition>();
    const int32_t lists = lists_ > 0 ? lists_ : static_cast<int32_t>(std::lround(4 * std::sqrt(static_cast<double>(in.source.keys))));
    std::vector<float> queries;
    if (by_query_) {
      queries = in.samples->moved(*in.shape, in.source.head, in.source.begin + in.source.keys, 1024, Holding(), false);
    }
    const int32_t count = static_cast<int32_t>(queries.size() / static_cast<size_t>(in.source.dim));
    build_homes(*made, in.source, *in.run, lists, queries.data(), count, iterations_, seed_ + static_cast<uint32_t>(in.source.head));
    made->probes = probes;
    char line[120];
    std::snprintf(line, sizeof line, "KV head %d: %d lists of %d keys", in.source.head, made->homes.count(), in.source.keys);
    decision = line;
    return made;
  }

 private:
  int32_t lists_, iterations_;
  bool by_query_;
  uint32_t seed_;
};

std::unique_ptr<PartitionIndex> make(const Environment& environment, const LayerShape& shape, const Params& params, Rows rows) {
  return std::make_unique<PartitionIndex>(environment, shape, std::move(rows), std::make_shared<IvfRecipe>(shape, params),
                                          params.choice("codes", {"f16", "int8"}) == 0 ? Codes::kNone : Codes::kInt8);
}

}  // namespace

extern const IndexType kIvf;
const IndexType kIvf = {
    "ivf",
    "nlist=0,nprobe=16,metric=key,iterations=8,codes=int8,growth=0.125,extend=256,min=1024,lift=2",
    "k-means on keys, the nearest lists are scored; nlist=0: 4 sqrt(n)",
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
