// Builds routed lists of one KV head and chooses how they are probed.
#pragma once
#include <string>

#include "partition_index.h"

namespace kvasir {

struct ListsOptions {
  int32_t keys_per_list = 128;
  int32_t depth = 1024;     // most keys of a list
  int32_t horizon = 1024;   // tokens after the end for whose queries lists are made
  int32_t iterations = 8;
  bool knn = false;         // lists from exact nearest keys of prompt queries instead of centroid scores alone
  double recall = 0.95;     // wanted on held-out prompt queries
  int32_t k = 100;          // of so many best keys
  uint32_t seed = 0;
};

// Every eighth sampled position is held out of training.
constexpr int32_t kHoldEvery = 8, kHoldRest = 5;

std::shared_ptr<const Partition> build_lists(const PartitionInput& input, const ListsOptions& options, std::string& decision);

}  // namespace kvasir
