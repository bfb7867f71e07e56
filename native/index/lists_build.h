// Builds routed lists of one KV head and chooses how they are probed.
#pragma once
#include <string>

#include "partition_index.h"

namespace kvasir {

struct ListsOptions {
  int32_t keys_per_list = 0;  // 0: 72 - headDim / 4, at least 16
  bool fine = true;           // unless that is given, and up to 32K keys: lists of single queries, as many as memory allows
  int32_t depth = 0;        // most keys of a list; 0: 1024, fewer where lists would weigh more than an eighth of the keys
  int32_t ahead = 512;      // tokens between the last key and the first query: the window
  int32_t horizon = 0;      // positions of queries for which lists are made; 0: keys / 2 - 16384, at least 1024: two aims while keys double
  int32_t iterations = 8;
  bool knn = false;         // lists from nearest keys of prompt queries instead of centroid scores alone
  double recall = 0.95;     // wanted on held-out prompt queries
  int32_t k = 100;          // of so many best keys
  uint32_t seed = 0;
};

// What calibration asks, the latest: a query from far back moved to the end wants keys that no decode query wants, as what it had
// behind it then is now far away.
constexpr Holding kHeldOut = {8, 5, 64};

// Lists of the latest training queries, or of clusters of all where a context is long. Of input.old the cells are extended, and clusters
// begin where moving them on with the tokens brings them. Lists are made and calibrated anew.
std::shared_ptr<const Partition> build_lists(const PartitionInput& input, const ListsOptions& options, std::string& decision);

}  // namespace kvasir
