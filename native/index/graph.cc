// Type "graph": a graph over the keys made for the queries that will be asked (see graph_build.h).
#include "graph_recipe.h"

namespace kvasir {
namespace {

GraphOptions options(const Params& params) {
  GraphOptions o;
  o.m = params.integer("m", 4, 512);
  o.nq = params.integer("nq", 2, 4096);
  return o;
}

}  // namespace

extern const IndexType kGraph;
const IndexType kGraph = graph_type<options, wire_from_queries>(
    "graph", "m=32,nq=64," KVASIR_GRAPH_DEFAULTS,
    "a graph of keys linked as prompt queries see them; ef=0: the width that reaches the recall on held-out prompt queries");

}  // namespace kvasir
