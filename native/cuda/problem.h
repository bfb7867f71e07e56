// What kernels find wrong in the rows of data they read, as a word of pinned memory: a kind and a row.
#pragma once
#include <cstdint>

namespace kvasir {

constexpr uint32_t kNanInRow = 1u << 24, kInfinityInRow = 2u << 24, kRowMask = (1u << 24) - 1;

}  // namespace kvasir
