// Type "lists": lists routed by prompt queries. Routers are the latest prompt queries, or clusters of all in long contexts, moved to
// where decode queries will be; each list holds the keys that its router scores best; a query reads the lists whose routers are nearest
// to it. Decode queries resemble prompt queries far more than they resemble keys, so lists read a near constant number of keys where
// cells of keys read a share.
//
// What a new key costs, L lists and C cells over N keys: a scan of its codes by each search until an extension, every N / 32 keys,
// multiplies it with L routers and C centroids and adds it where it passes a list's threshold; an aim, twice while N doubles, L products for each
// of the N keys, as routers turn with the positions of the queries to come and select anew; a build when N has doubled.
#include "error.h"
#include "kvasir_index.h"
#include "lists_build.h"

namespace kvasir {
namespace {

constexpr int32_t kFewPositions = 32;
// Heads from this size on have lists of clusters by nearest keys: on recorded heads of 256 that takes a tenth off the keys scored, on
// heads of 64 nothing.
constexpr int32_t kWide = 192;

class ListsRecipe final : public PartitionRecipe {
 public:
  ListsRecipe(const LayerShape& shape, const Params& params) {
    options_.keys_per_list = params.integer("keys", 0, 1 << 20);
    options_.depth = params.integer("depth", 0, 1 << 20);
    options_.horizon = params.integer("horizon", 0, 1 << 24);
    options_.ahead = ahead = params.integer("ahead", 0, 1 << 24);
    options_.iterations = params.integer("iterations", 1, 100);
    const int knn = params.choice("knn", {"auto", "false", "true"});
    options_.knn = knn == 2 || (knn == 0 && shape.head_dim >= kWide);
    options_.recall = params.number("recall");
    options_.k = params.integer("k", 1, 4096);
    options_.seed = shape.seed;
    if (options_.recall < 0 || options_.recall > 1) {
      fail(KVASIR_ARGUMENT, "Cannot use \"lists\": recall is %g, expected 0 to 1", options_.recall);
    }
    growth = params.number("growth");
    lift = params.number("lift");
    if (growth <= 0) fail(KVASIR_ARGUMENT, "Cannot use \"lists\": growth is %g, expected above 0", growth);
    if (lift < 0 || lift > 16) fail(KVASIR_ARGUMENT, "Cannot use \"lists\": lift is %g, expected 0 to 16", lift);
    probes = params.integer("nprobe", 0, 1 << 20);
    calibrated = probes > 0 ? 0 : options_.k;
    min_keys = params.integer("min", 1, 1 << 30);
    extend = params.integer("extend", 1, 1 << 30);
  }

  std::string refuses(const QuerySamples& samples, int32_t keys) const override {
    if (samples.count() == 0) return "no prompt queries";
    if (samples.count() < kFewPositions) return "few prompt queries";
    return keys < min_keys ? "few tokens" : "";
  }

  std::shared_ptr<const Partition> build(const PartitionInput& input, std::string& decision) const override {
    return build_lists(input, options_, decision);
  }

 private:
  ListsOptions options_;
};

std::unique_ptr<PartitionIndex> make(const Environment& environment, const LayerShape& shape, const Params& params, Rows rows) {
  return std::make_unique<PartitionIndex>(environment, shape, std::move(rows), std::make_shared<ListsRecipe>(shape, params),
                                          params.choice("codes", {"f16", "int8"}) == 0 ? Codes::kNone : Codes::kInt8);
}

}  // namespace

extern const IndexType kLists;
const IndexType kLists = {
    "lists",
    "recall=0.95,k=100,nprobe=0,keys=0,depth=0,knn=auto,horizon=0,ahead=512,iterations=8,codes=int8,growth=1,extend=1024,min=2048,"
    "lift=2",
    "lists of the keys that prompt queries, the latest, or in long contexts clusters of them, score best; keys=0: up to 32768 keys as many lists of one query each as .15 of the keys' bytes hold, beyond clusters of queries, one for 72 - headDim / 4 keys, at least 16; knn=auto: from headDim 192 on, for clusters; depth=0: up to 1024 keys, .15 of the keys' bytes in all; nprobe=0: as many as reach the recall on held-out prompt queries",
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
