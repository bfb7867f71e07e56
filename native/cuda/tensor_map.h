// Descriptions by which the copy engine of compute capability 9.0 finds boxes of rows (tensor maps; PTX ISA 5.5). Made on the host, read by
// kernels where a launch's arguments lie. tensor_map_cuda.cc asks the driver for them, tensor_map_emulated.cc is the host's twin.
#pragma once
#include <cstdint>

namespace kvasir {

struct alignas(128) TensorMap {
  uint64_t words[16];
};

// Rows of a segment's keys or values as halves [heads, capacity, dim], of which [0, count) of each head are there. A box is `box` rows of
// 64 halves, swizzled as products of warpgroups want them; what of it lies outside of [0, count) is zeros.
struct TensorRows {
  const void* rows;
  int32_t heads, capacity, count, dim, box;
};

constexpr int32_t kBoxColumns = 64;  // 128 bytes: what one swizzle spans

// False where the driver knows no such maps, or refuses this one.
bool make_tensor_map(TensorMap& map, const TensorRows& of);

}  // namespace kvasir
