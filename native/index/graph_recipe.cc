#include "graph_recipe.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "error.h"
#include "kvasir_index.h"

namespace kvasir {
namespace {

constexpr int32_t kFewPositions = 32, kMostHeld = 256, kCellKeys = 128;
constexpr Holding kHeld = {16, 7, INT32_MAX};

// Rows [count, dim] thinned evenly to at most `most`.
void thin(std::vector<float>& rows, int32_t dim, int32_t most) {
  const size_t width = static_cast<size_t>(dim), count = rows.size() / width, kept = std::min(count, static_cast<size_t>(most));
  for (size_t i = 0; i < kept; i++) {
    std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(i * count / kept * width), width,
                rows.begin() + static_cast<std::ptrdiff_t>(i * width));
  }
  rows.resize(kept * width);
}

}  // namespace

std::shared_ptr<Partition> build_graph_partition(const PartitionInput& in, const GraphSettings& settings, GraphWiring wire,
                                                 const Partition* homes, std::string& decision) {
  const PartitionSource& source = in.source;
  const int32_t aim = source.begin + source.keys + settings.ahead, dim = source.dim;
  GraphOptions options = settings.options;
  options.seed += static_cast<uint32_t>(source.head);
  const auto moved = [&](bool held) {
    return in.samples->moved(*in.shape, source.head, aim, settings.horizon, kHeld, held);
  };
  std::vector<float> training = moved(false), held_out = moved(true);
  thin(training, dim, settings.queries);
  thin(held_out, dim, kMostHeld);
  const int32_t count = static_cast<int32_t>(training.size()) / dim;
  auto made = std::make_shared<Partition>();
  if (homes != nullptr) {
    made->homes = homes->homes;
    made->deviations = homes->deviations;
    made->metric = homes->metric;
    made->keys = homes->keys;
  } else {
    build_homes(*made, source, *in.run, std::max(1, source.keys / kCellKeys), training.data(), count, 8, options.seed);
  }
  const GraphKeys keys(source.isa->graph, *source.rows, source.head, source.begin, source.keys);
  const auto graph = build_graph(*source.isa, keys, options, made->homes, training, held_out, *in.run, wire);
  made->graph = graph;
  made->probes = graph->ef;
  made->recall = graph->expected_recall;
  made->visited = graph->expected_scored / source.keys;
  char line[240];
  std::snprintf(line, sizeof line,
                "KV head %d: graph of %d keys from %d prompt queries, a queue of %d; recall %.3f%s and %.1f %% of keys scored on "
                "%d held-out prompt queries",
                source.head, source.keys, count, graph->ef, graph->expected_recall,
                graph->expected_recall >= options.recall ? "" : " (below what was asked)", 100 * made->visited,
                static_cast<int32_t>(held_out.size()) / dim);
  decision = line;
  return made;
}

namespace {

class GraphRecipe final : public PartitionRecipe {
 public:
  GraphRecipe(const char* type, const LayerShape& shape, const Params& params, const GraphOptions& options, GraphWiring wire)
      : wire_(wire) {
    settings_.options = options;
    GraphOptions& o = settings_.options;
    o.entries = params.integer("entries", 1, 256);
    o.ef = params.integer("ef", 0, 1 << 20);
    o.recall = params.number("recall");
    o.k = params.integer("k", 1, 4096);
    o.seed = shape.seed;
    settings_.queries = params.integer("queries", 16, 1 << 24);
    settings_.horizon = params.integer("horizon", 1, 1 << 30);
    settings_.ahead = ahead = params.integer("ahead", 0, 1 << 24);
    if (o.recall < 0 || o.recall > 1) {
      fail(KVASIR_ARGUMENT, "Cannot use \"%s\": recall is %g, expected 0 to 1", type, o.recall);
    }
    growth = params.number("growth");
    lift = params.number("lift");
    if (growth <= 0) fail(KVASIR_ARGUMENT, "Cannot use \"%s\": growth is %g, expected above 0", type, growth);
    if (lift < 0 || lift > 16) fail(KVASIR_ARGUMENT, "Cannot use \"%s\": lift is %g, expected 0 to 16", type, lift);
    min_keys = params.integer("min", 64, 1 << 30);
    extend = params.integer("extend", 1, 1 << 30);
    calibrated = o.k;
  }

  std::string refuses(const QuerySamples& samples, int32_t keys) const override {
    if (samples.count() == 0) return "no prompt queries";
    if (samples.count() < kFewPositions) return "few prompt queries";
    return keys < min_keys ? "few tokens" : "";
  }

  // A version copies nearly all blocks of links: rarer where there are many.
  int32_t step(int32_t keys) const override { return std::max(extend, std::min(4096, keys / 32)); }

  std::shared_ptr<const Partition> build(const PartitionInput& in, std::string& decision) const override {
    return build_graph_partition(in, settings_, wire_, nullptr, decision);
  }

 private:
  GraphSettings settings_;
  GraphWiring wire_;
};

}  // namespace

std::unique_ptr<PartitionIndex> make_graph_index(const char* type, const Environment& environment, const LayerShape& shape,
                                                 const Params& params, Rows rows, const GraphOptions& options, GraphWiring wire) {
  const auto codes = params.choice("codes", {"f16", "int8"}) == 0 ? Codes::kNone : Codes::kInt8;
  return std::make_unique<PartitionIndex>(environment, shape, std::move(rows),
                                          std::make_shared<GraphRecipe>(type, shape, params, options, wire), codes);
}

}  // namespace kvasir
