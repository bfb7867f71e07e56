// Type "planned": KV head by KV head a scan, lists or a graph, for best keys and for samples each, whichever the counted work of
// held-out prompt queries makes cheaper on this machine. All heads share one set of codes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>

#include "error.h"
#include "file.h"
#include "graph_recipe.h"
#include "kvasir_index.h"
#include "lists_build.h"
#include "plan.h"

namespace kvasir {
namespace {

constexpr int32_t kFewPositions = 32;  // sampled ones, below which nothing can be held out
// A structure must promise at least this share less than a scan: predictions err, and a scan's never loses.
constexpr double kWorth = 0.9;
// Lists are calibrated for a little more, which scoring by sketches may lose.
constexpr double kSpare = 0.1;
// Of a head's lists so many are tried where a group shares them.
constexpr double kShares[] = {0.8, 0.65, 0.5, 0.4, 0.3, 0.2};
// Of the keys that lists score at equal recall a walk scores at least this share: .85 and more on recorded and generated heads. A
// graph takes several times as long to build as lists: where even this share would cost more, it is not built.
constexpr double kLeastWalk = 0.7;

class PlannedRecipe final : public PartitionRecipe {
 public:
  PlannedRecipe(const LayerShape& shape, const Params& params, CostTable costs)
      : costs_(std::move(costs)), memory_(std::make_shared<ChunkMemory>()) {
    recall_ = params.number("recall");
    if (recall_ < 0 || recall_ > 1) fail(KVASIR_ARGUMENT, "Cannot use \"planned\": recall is %g, expected 0 to 1", recall_);
    lists_.recall = recall_ + kSpare * (1 - recall_);
    lists_.fine = false;  // by sketches a key costs little more than a router does
    lists_.k = params.integer("k", 1, 4096);
    lists_.horizon = params.integer("horizon", 1, 1 << 30);
    lists_.seed = shape.seed;
    graph_.options.recall = recall_;
    graph_.options.k = lists_.k;
    graph_.options.seed = shape.seed;
    graph_.horizon = lists_.horizon;
    graph_.ahead = ahead = lists_.ahead;
    growth = params.number("growth");
    if (growth <= 0) fail(KVASIR_ARGUMENT, "Cannot use \"planned\": growth is %g, expected above 0", growth);
    min_keys = params.integer("min", 1, 1 << 30);
    extend = params.integer("extend", 1, 1 << 30);
    calibrated = lists_.k;
  }

  std::string refuses(const QuerySamples& samples, int32_t keys) const override {
    if (samples.count() == 0) return "no prompt queries";
    if (samples.count() < kFewPositions) return "few prompt queries";
    return keys < min_keys ? "few tokens" : "";
  }

  // The table in force is part of what was decided: an opened index goes on with it, on any machine.
  void save(FileWriter& to) const override {
    const std::string text = costs_.text();
    to.add("costs", text.data(), text.size());
  }

  std::shared_ptr<const Partition> build(const PartitionInput& in, std::string& decision) const override {
    std::string line;
    const std::shared_ptr<const Partition> built = build_lists(in, lists_, line);
    if (built == nullptr) return nullptr;  // cancelled
    auto lists = std::make_shared<Partition>(*built);
    lists->sketch(nullptr);  // those of the lists before an aim
    const SearchCost cost = costs_.at(in.codes->kind(), in.source.dim, in.shape->group());
    const HeldOut held(in, lists_.k, lists_.ahead, lists_.horizon);
    const double fresh = step(in.source.keys) / 2.0 + takeover_horizon(in.source.keys);
    const Trial trial{in, held, cost, lift, fresh};

    Choice by_rows = trial.of(*lists, "lists");
    const double measured = by_rows.recall;
    by_rows.recall = lists->recall;  // their own calibration saw more positions
    auto with_sketches = std::make_shared<Partition>(*lists);
    with_sketches->sketch(sketches(in, held));
    Choice by_sketches = trial.again(by_rows, *with_sketches);
    by_sketches.name = "lists by sketches";
    by_sketches.recall += by_rows.recall - measured;
    // A group shares what its heads' lists hold, so that fewer lists a head may do.
    std::shared_ptr<const Partition> fewer[std::size(kShares)];
    for (size_t i = 0; i < std::size(kShares); i++) {
      auto some = std::make_shared<Partition>(*with_sketches);
      for (int32_t& probes : some->head_probes) probes = std::max(1, static_cast<int32_t>(std::lround(probes * kShares[i])));
      fewer[i] = some;
      Choice choice = trial.again(by_sketches, *some);
      choice.recall += by_rows.recall - measured;
      if (choice.recall < recall_) break;
      by_sketches = choice;
    }
    Choice best = trial.better(by_rows, by_sketches, recall_, kWorth);
    const double scan = trial.scan(false);
    const double least_walk = cost.walked_best + cost.walked_best_key * kLeastWalk * by_rows.best.keys + cost.scan_best_key * fresh;
    const bool listed = best.serves_best;
    std::shared_ptr<const Partition> made;
    std::string walked;
    char text[400];
    if (in.old == nullptr && least_walk < kWorth * (listed ? best.best.predicted : scan)) {
      made = build_graph_partition(in, graph_, wire_from_queries, lists.get(), line);
      if (made->graph == nullptr) return nullptr;
      Choice graph = trial.of(*made, "graph");
      graph.recall = made->recall;
      std::snprintf(text, sizeof text, "graph: %.0f keys, %.2f, recall %.3f", graph.best.keys, graph.best.predicted / scan, graph.recall);
      walked = text;
      best = trial.better(best, graph, recall_, kWorth);
    } else {
      std::snprintf(text, sizeof text, "graph: not built, %.2f at least", least_walk / scan);
      walked = in.old == nullptr ? text : "graph: not built with an aim";
    }
    const bool reached = best.recall >= recall_;
    std::snprintf(text, sizeof text,
                  "KV head %d: best keys by %s (of %d keys; lists: %.0f, predicted %.2f of a scan by rows, %.0f and %.2f by sketches, held-out "
                  "recall %.3f%s; %s), samples by %s (%.0f keys, predicted %.2f)",
                  in.source.head, best.serves_best ? best.name : "scan", in.source.keys, by_rows.best.keys,
                  by_rows.best.predicted / scan, by_sketches.best.keys, by_sketches.best.predicted / scan, by_sketches.recall,
                  reached ? "" : ", below what was asked", walked.c_str(), best.serves_samples ? best.structure() : "scan",
                  best.sample.keys, best.sample.predicted / trial.scan(true));
    decision = text;
    if (!best.serves_best && !best.serves_samples) return nullptr;
    auto chosen = std::make_shared<Partition>(*best.partition);
    chosen->serves_best = best.serves_best;
    chosen->serves_samples = best.serves_samples;
    chosen->recall = best.recall;
    if (!best.serves_best) chosen->sketch(nullptr);
    return chosen;
  }

 private:
  std::shared_ptr<const GraphCodes> sketches(const PartitionInput& in, const HeldOut& held) const {
    const PartitionSource& source = in.source;
    const GraphKeys keys(source.isa->graph, *source.rows, source.head, source.begin, source.keys);
    std::shared_ptr<GraphCodes> made;
    if (in.old != nullptr && in.old->sketches != nullptr) {
      made = std::make_shared<GraphCodes>(in.old->sketches->next());
    } else {
      made = std::make_shared<GraphCodes>(memory_);
      made->fit(keys, held.queries);
    }
    made->append(keys, *in.run);
    return made;
  }

  double recall_;
  ListsOptions lists_;
  GraphSettings graph_;
  CostTable costs_;
  std::shared_ptr<ChunkMemory> memory_;
};

std::unique_ptr<PartitionIndex> make(const Environment& environment, const LayerShape& shape, const Params& params, Rows rows,
                                     CostTable costs) {
  const Codes::Kind kinds[] = {Codes::kInt8, Codes::kInt4, Codes::kNone};
  return std::make_unique<PartitionIndex>(environment, shape, std::move(rows),
                                          std::make_shared<PlannedRecipe>(shape, params, std::move(costs)),
                                          kinds[params.choice("codes", {"int8", "int4", "f16"})]);
}

}  // namespace

extern const IndexType kPlanned;
const IndexType kPlanned = {
    "planned",
    "recall=0.95,k=100,codes=int8,horizon=1024,growth=0.5,extend=1024,min=2048",
    "per KV head a scan, lists or a graph, whichever held-out prompt queries make cheaper",
    [](const Environment& environment, const LayerShape& shape, const Params& params, Rows rows) -> std::unique_ptr<Index> {
      return make(environment, shape, params, std::move(rows), *environment.costs);
    },
    [](const Environment& environment, const LayerShape& shape, const Params& params, Rows rows,
       FileReader& from) -> std::unique_ptr<Index> {
      const FileReader::Section costs = from.find("costs");
      const std::string text(reinterpret_cast<const char*>(costs.data), costs.bytes);
      auto index = make(environment, shape, params, std::move(rows), CostTable(text));
      index->restore(from);
      return index;
    },
};

}  // namespace kvasir
