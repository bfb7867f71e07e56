#include "attention_wgmma.cuh"

#include "attention_wgmma.h"
#include "launch.h"

namespace kvasir {
namespace {

template <int kDim, class Keys>
bool launch_of(DeviceScratch& work, const AttendArguments& args, const Keys& keys, int32_t lists) {
  const size_t bytes = WgmmaShape<kDim>::kBytes;
  if (bytes + sizeof(TilePhases) > work.runtime.facts().block_shared) return false;
  const dim3 grid(blocks_of(args.n * args.group, kWgmmaRows), static_cast<uint32_t>(lists), static_cast<uint32_t>(args.splits));
  launch(work.runtime, "attend_wgmma", attend_wgmma<kDim, Keys>, grid, dim3(kWgmmaThreads), bytes, args, keys);
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
