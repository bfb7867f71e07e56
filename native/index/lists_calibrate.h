// Chooses how routed lists are probed: by what held-out prompt queries find in them.
#pragma once
#include <vector>

#include "byte_panels.h"
#include "graph_codes.h"
#include "lists_build.h"

namespace kvasir {

// Keys of each list: ids [lists, depth], scores as ids: centroid . key, nearly. For each of the depths that are tried the best so
// many stand first.
struct RankedLists {
  int32_t lists = 0, depth = 0;
  std::vector<int32_t> ids;
  std::vector<float> scores;
  const int32_t* of(int32_t list) const { return ids.data() + static_cast<size_t>(list) * static_cast<size_t>(depth); }
};

struct ListsChoice {
  int32_t depth = 1;
  std::vector<int32_t> probes;     // of each query head
  double recall = 0, visited = 1;  // means over held-out queries
  int32_t positions = 0;
  bool reached = false;
};

// The depth of `depths` and the numbers of lists that reach the recall with least work on held-out positions; where none does,
// those of the best recall. `from`: position of the first query that lists are made for.
ListsChoice calibrate_lists(const PartitionInput& in, const ListsOptions& options, const BytePanels& keys, const GraphCodes& routers,
                            const RankedLists& ranked, const std::vector<int32_t>& depths, int32_t from, int32_t horizon);

}  // namespace kvasir
