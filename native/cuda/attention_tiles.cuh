// Bodies of attention_tiles.h, included by one source a head size.
#pragma once
#include "attention_tile.cuh"
#include "attention_tiles.h"
#include "launch.h"

namespace kvasir {

// Warps that share out a tile's keys: each takes 16 or more.
template <int kDim>
constexpr int32_t kKeyWarps = kDim > 128 ? 2 : 4;

template <int kDim>
size_t tiles_shared_bytes(bool few_rows) {
  return few_rows ? TileMemory<kDim, 1, kKeyWarps<kDim>>::kBytes : TileMemory<kDim, 4, 1>::kBytes;
}

template <int kDim, class Element, class Keys>
void launch_tiles_of(DeviceScratch& work, const TileLaunch& of, const Keys& keys) {
  const int32_t block = of.few_rows ? kFewRows : kManyRows, rows = of.args.n * of.args.group;
  const dim3 grid(static_cast<uint32_t>((rows + block - 1) / block), static_cast<uint32_t>(of.lists),
                  static_cast<uint32_t>(of.args.splits));
  if constexpr (!Keys::kSampled) {
    if (of.few_rows) {
      launch(work.runtime, "attend_tiles", attend_tiles<kDim, Element, Keys, 1, kKeyWarps<kDim>>, grid, dim3(32 * kKeyWarps<kDim>),
             tiles_shared_bytes<kDim>(true), of.args, keys);
      return;
    }
  }
  launch(work.runtime, "attend_tiles", attend_tiles<kDim, Element, Keys, 4, 1>, grid, dim3(128), tiles_shared_bytes<kDim>(false),
         of.args, keys);
}

// By what the rows are made of.
template <int kDim, class Keys>
void launch_tiles_typed(DeviceScratch& work, const TileLaunch& of, const Keys& keys) {
  if (of.args.table.dtype == KVASIR_F16) launch_tiles_of<kDim, uint16_t>(work, of, keys);
  else launch_tiles_of<kDim, int8_t>(work, of, keys);
}

#define KVASIR_ATTENTION_TILES(kDim)                                                                                \
  template <>                                                                                                       \
  void launch_tiles<kDim>(DeviceScratch & work, const TileLaunch& of, const CausalKeys& keys) {                     \
    launch_tiles_typed<kDim>(work, of, keys);                                                                       \
  }                                                                                                                 \
  template <>                                                                                                       \
  void launch_tiles<kDim>(DeviceScratch & work, const TileLaunch& of, const SampledKeys& keys) {                    \
    launch_tiles_typed<kDim>(work, of, keys);                                                                       \
  }                                                                                                                 \
  template <>                                                                                                       \
  void launch_tiles<kDim>(DeviceScratch & work, const TileLaunch& of, const ListedKeys& keys) {                     \
    launch_tiles_typed<kDim>(work, of, keys);                                                                       \
  }                                                                                                                 \
  template size_t tiles_shared_bytes<kDim>(bool)

}  // namespace kvasir
