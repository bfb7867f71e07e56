// What types that search a graph share: all but who becomes whose neighbour.
#pragma once
#include <memory>

#include "graph_build.h"
#include "partition_index.h"

namespace kvasir {

// Parameters of each such type, beside those of its wiring, which are in `options` already: see GraphOptions and PartitionRecipe.
#define KVASIR_GRAPH_DEFAULTS \
  "ef=0,entries=4,recall=0.95,k=100,queries=32768,horizon=1024,ahead=512,codes=int8,growth=0.5,extend=1024,min=2048,lift=2"

struct GraphSettings {
  GraphOptions options;
  int32_t queries = 32768;  // most training queries
  int32_t horizon = 1024;   // positions that queries are moved to,
  int32_t ahead = 512;      // so far behind the last key
};

// A partition with a graph over the keys of one KV head, its seed that of the options and the head's number. homes (may be null):
// cells to take instead of making some. One line for stats goes to `decision`.
std::shared_ptr<Partition> build_graph_partition(const PartitionInput& input, const GraphSettings& settings, GraphWiring wire,
                                                 const Partition* homes, std::string& decision);

std::unique_ptr<PartitionIndex> make_graph_index(const char* type, const Environment& environment, const LayerShape& shape,
                                                 const Params& params, Rows rows, const GraphOptions& options, GraphWiring wire);

// The entry of a type whose options(params) reads what its wiring goes by.
template <GraphOptions (*options)(const Params&), GraphWiring wire>
constexpr IndexType graph_type(const char* name, const char* defaults, const char* summary) {
  return {
      name, defaults, summary,
      [](const Environment& environment, const LayerShape& shape, const Params& params, Rows rows) -> std::unique_ptr<Index> {
        return make_graph_index(params.type(), environment, shape, params, std::move(rows), options(params), wire);
      },
      [](const Environment& environment, const LayerShape& shape, const Params& params, Rows rows,
         FileReader& from) -> std::unique_ptr<Index> {
        auto index = make_graph_index(params.type(), environment, shape, params, std::move(rows), options(params), wire);
        index->restore(from);
        return index;
      },
  };
}

}  // namespace kvasir
