// Launches of attention_tile.cuh by head size: one source file each, so that they are compiled side by side.
#pragma once
#include "attention_best.cuh"
#include "attention_keys.cuh"
#include "device_scratch.h"

namespace kvasir {

struct TileLaunch {
  AttendArguments args;
  int32_t lists;
  bool few_rows;  // warps share out keys instead of rows
};

// Rows of a block, and bytes of shared memory, either way.
constexpr int32_t kFewRows = 16, kManyRows = 64;

template <int kDim>
void launch_tiles(DeviceScratch& work, const TileLaunch& launch, const CausalKeys& keys);
template <int kDim>
void launch_tiles(DeviceScratch& work, const TileLaunch& launch, const ListedKeys& keys);
// Many rows.
template <int kDim>
void launch_tiles(DeviceScratch& work, const TileLaunch& launch, const SampledKeys& keys);
template <int kDim>
size_t tiles_shared_bytes(bool few_rows);

}  // namespace kvasir
