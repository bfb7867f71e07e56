// What building and growing a graph share: its entries, made of training queries and their nearest keys, and cells by node.
#pragma once
#include "graph_build.h"
#include "knn.h"

namespace kvasir {

std::shared_ptr<const GraphEntries> make_entries(const IndexIsa& isa, const std::vector<float>& training,
                                                 const Neighbours& nearest, const GraphKeys& keys, uint32_t seed,
                                                 const RunTasks& run);

// The cell of each node.
std::vector<int32_t> homes_of(const ListTable& homes, int32_t nodes);

}  // namespace kvasir
