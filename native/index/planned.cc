// Type "planned": KV head by KV head a scan or lists, for best keys and for samples each, whichever the counted work of held-out
// prompt queries makes cheaper on this machine. All heads share one set of codes.
#include <cmath>
#include <cstdio>

#include "cost.h"
#include "error.h"
#include "file.h"
#include "kvasir_index.h"
#include "lists_build.h"

namespace kvasir {
namespace {

constexpr int32_t kFewPositions = 32;  // sampled ones, below which nothing can be held out
constexpr int32_t kCounted = 32;       // held-out positions whose searches are counted
constexpr double kError = 0.05;        // of the samples that are counted
// Lists must promise at least this share less than a scan: predictions err, and a scan's never loses.
constexpr double kWorth = 0.9;

struct Work {
  double keys = 0;      // scored a search
  double predicted = 0; // nanoseconds
};

class PlannedRecipe final : public PartitionRecipe {
 public:
  PlannedRecipe(const LayerShape& shape, const Params& params, CostTable costs) : costs_(std::move(costs)) {
    options_.recall = params.number("recall");
    if (options_.recall < 0 || options_.recall > 1) {
      fail(KVASIR_ARGUMENT, "Cannot use \"planned\": recall is %g, expected 0 to 1", options_.recall);
    }
    options_.k = params.integer("k", 1, 4096);
    options_.horizon = params.integer("horizon", 1, 1 << 30);
    options_.seed = shape.seed;
    growth = params.number("growth");
    if (growth <= 0) fail(KVASIR_ARGUMENT, "Cannot use \"planned\": growth is %g, expected above 0", growth);
    min_keys = params.integer("min", 1, 1 << 30);
    extend = params.integer("extend", 1, 1 << 30);
    calibrated = options_.k;
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
    std::string lists_line;
    const std::shared_ptr<const Partition> lists = build_lists(in, options_, lists_line);
    if (lists == nullptr) return nullptr;  // cancelled
    const int32_t keys = in.source.keys;
    const SearchCost cost = costs_.at(in.codes->kind(), in.source.dim, in.shape->group());
    const double scan_best = cost.scan_best + cost.scan_best_key * keys;
    const double scan_sample = cost.scan_sample + cost.scan_sample_key * keys;
    const Work best = count(in, *lists, cost, false), sample = count(in, *lists, cost, true);
    const bool reached = lists->recall >= options_.recall;
    auto chosen = std::make_shared<Partition>(*lists);
    chosen->serves_best = reached && best.predicted < kWorth * scan_best;
    chosen->serves_samples = sample.predicted < kWorth * scan_sample;
    char line[320];
    std::snprintf(line, sizeof line,
                  "KV head %d: best keys by %s (lists: %.0f of %d keys, predicted %.2f of a scan, held-out recall %.3f%s), samples by "
                  "%s (%.0f keys, predicted %.2f)",
                  in.source.head, chosen->serves_best ? "lists" : "scan", best.keys, keys, best.predicted / scan_best, lists->recall,
                  reached ? "" : ", below what was asked", chosen->serves_samples ? "lists" : "scan", sample.keys,
                  sample.predicted / scan_sample);
    decision = line;
    if (!chosen->serves_best && !chosen->serves_samples) return nullptr;
    return chosen;
  }

 private:
  // Searches lists for held-out prompt queries, as decode will.
  Work count(const PartitionInput& in, const Partition& lists, const SearchCost& cost, bool sample) const {
    const LayerShape& shape = *in.shape;
    const size_t group = static_cast<size_t>(shape.group()), dim = static_cast<size_t>(in.source.dim), width = group * dim;
    const int32_t end = in.source.begin + in.source.keys;
    const std::vector<float> held = in.samples->moved(shape, in.source.head, end, options_.horizon, kHoldEvery, kHoldRest, true);
    const size_t all = held.size() / width, some = std::min<size_t>(all, kCounted);
    Work work;
    if (some == 0) return {static_cast<double>(in.source.keys), HUGE_VAL};
    PartitionSearch search;
    std::vector<float> q(static_cast<size_t>(shape.heads) * dim), exact(static_cast<size_t>(shape.heads), -INFINITY);
    std::vector<float> errors(static_cast<size_t>(shape.heads));
    std::vector<int32_t> counts(static_cast<size_t>(shape.heads));
    const SearchScope scope = {in.source.isa, &shape, in.source.rows, in.codes, &lists, in.source.head, in.source.keys,
                               sample ? 1 : 0, lift};  // as PartitionIndex searches
    for (size_t i = 0; i < some; i++) {
      std::copy_n(held.begin() + static_cast<std::ptrdiff_t>((all - some + i) * width), width,
                  q.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(in.source.head) * width));
      Goal goal;
      goal.kind = sample ? Goal::kError : Goal::kTopk;
      goal.value = sample ? kError : options_.k;
      goal.draw = static_cast<uint32_t>(i);
      Report report;
      search.run(scope, {q.data(), exact.data(), goal}, {0, nullptr, nullptr, counts.data(), errors.data()}, report);
      work.keys += report.keys_scored / static_cast<double>(some);
    }
    // New tokens are scanned until they are enough for an extension.
    const double fresh = step(in.source.keys) / 2.0 + takeover_horizon(in.source.keys);
    work.predicted = sample ? cost.lists_sample + cost.lists_sample_key * work.keys + cost.scan_sample_key * fresh
                            : cost.lists_best + cost.lists_best_key * work.keys + cost.scan_best_key * fresh;
    work.predicted += cost.centroid * (lists.lists().count() + (sample ? lists.homes.count() : 0));
    return work;
  }

  ListsOptions options_;
  CostTable costs_;
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
    "per KV head a scan or lists, whichever held-out prompt queries make cheaper",
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
