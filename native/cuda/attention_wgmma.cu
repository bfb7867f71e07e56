#include "attention_wgmma.cuh"

#include "attention_wgmma.h"
#include "launch.h"

namespace kvasir {
namespace {

// Of all segments, or none: a map that the driver refuses leaves all launches to copies by hand.
template <int kDim>
SegmentMaps maps_of(Runtime& runtime, const AttendArguments& args) {
  SegmentMaps maps{};
  if (!runtime.facts().tma) return maps;
  for (int32_t i = 0; i < args.table.count; i++) {
    const KeySegment& s = args.table.segments[i];
    if (s.count == 0) continue;  // nothing is looked for there
    const TensorRows rows{s.keys, args.kv_heads, s.capacity, s.count, kDim, WgmmaShape<kDim>::kBoxRows};
    if (!runtime.describe_rows(maps.keys[i], rows)) return maps;
    if (!runtime.describe_rows(maps.values[i], {s.values, rows.heads, rows.capacity, rows.count, rows.dim, rows.box})) return maps;
  }
  maps.used = 1;
  return maps;
}

template <int kDim, class Keys>
bool launch_of(DeviceScratch& work, const AttendArguments& args, const Keys& keys, int32_t lists) {
  const size_t bytes = WgmmaShape<kDim>::kBytes;
  if (bytes + sizeof(TilePhases) > work.runtime.facts().block_shared) return false;
  const dim3 grid(blocks_of(args.n * args.group, kWgmmaRows), static_cast<uint32_t>(lists), static_cast<uint32_t>(args.splits));
  launch(work.runtime, "attend_wgmma", attend_wgmma<kDim, Keys>, grid, dim3(kWgmmaThreads), bytes, args, keys,
         maps_of<kDim>(work.runtime, args));
  return true;
}

template <class Keys>
bool launch_by_dim(DeviceScratch& work, const AttendArguments& args, const Keys& keys, int32_t lists) {
  if (!work.runtime.facts().wgmma || args.table.dtype != KVASIR_F16) return false;
  switch (args.table.head_dim) {
    case 64: return launch_of<64>(work, args, keys, lists);
    case 128: return launch_of<128>(work, args, keys, lists);
    case 256: return launch_of<256>(work, args, keys, lists);
    default: return false;
  }
}

}  // namespace

bool launch_wgmma(DeviceScratch& work, const AttendArguments& args, const CausalKeys& keys, int32_t lists) {
  return launch_by_dim(work, args, keys, lists);
}
bool launch_wgmma(DeviceScratch& work, const AttendArguments& args, const SampledKeys& keys, int32_t lists) {
  return launch_by_dim(work, args, keys, lists);
}

}  // namespace kvasir
