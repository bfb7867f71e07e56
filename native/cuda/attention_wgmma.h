// Launches of attention_wgmma.cuh: prompts over f16 caches, on devices of compute capability 9.0.
#pragma once
#include "attention_best.cuh"
#include "attention_keys.cuh"
#include "device_scratch.h"

namespace kvasir {

constexpr int32_t kWgmmaRows = 128;  // of a block

// False where the head size is none of 64, 128 and 256, or the device is another.
bool launch_wgmma(DeviceScratch& work, const AttendArguments& args, const CausalKeys& keys, int32_t lists);
bool launch_wgmma(DeviceScratch& work, const AttendArguments& args, const SampledKeys& keys, int32_t lists);

}  // namespace kvasir
