// What ByteKernels share; see byte_kernels.h. Included once per instruction set, after KVASIR_VEC_BYTES.
#pragma once
#include "byte_kernels.h"
#include "panel_kernels.h"
#include "vec.h"

namespace kvasir {
namespace {

void best_of_rows(float* best, int32_t* which, const float* scores, int32_t count, int32_t first) {
  for (int32_t v = 0; v < kPanelRows; v += static_cast<int32_t>(kLanes)) {
    Floats most = load(best + v);
    Ints at = load_as<Ints>(which + v);
    for (int32_t r = 0; r < count; r++) {
      const Floats s = load(scores + static_cast<size_t>(r) * kPanelRows + v);
      const Ints better = s > most;
      most = better ? s : most;
      at = better ? Ints{} + (first + r) : at;
    }
    store(best + v, most);
    std::memcpy(which + v, &at, sizeof at);
  }
}

}  // namespace
}  // namespace kvasir
