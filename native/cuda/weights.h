// Weights on the device, as quantized as the file has them.
//
// Layout: one allocation of up to four planes, each [rows][...] in blocks of 32 columns, so that a warp whose lanes take consecutive
// blocks of a row reads each plane in one stretch, by 16 bytes a lane where it matters. (GGUF's own blocks of 18 to 210 bytes are
// aligned to 2, and a lane would need up to nine loads for what is one here.)
//   low     16 bytes a block: columns i and i + 16 in the halves of byte i (4, 5, 6 bits); 8 bytes: columns i, i + 8, i + 16, i + 24
//           in the quarters of byte i (3 bits); 32 bytes: signed (8 bits)
//   high    5 bits: a word, bit i is bit 4 of column i; 6 bits: 8 bytes as the 3-bit type's low; 3 bits: a word of bits 2
//   subs    K types: two bytes a block: scale and min of 32 columns, or two signed scales of 16
//   scales  f16 d, or d and m, a block; K types: d and m of 256 columns
// Sizes are the file's but for K types' widened scales (Q4_K +2.8 %, Q5_K +2.3 %, Q6_K +1 %, Q3_K +5.5 %) and rows padded to 16 bytes.
// Plain types are rows of elements, padded to 16 bytes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "runtime.h"

namespace kvasir {

struct WeightView {
  const uint8_t *low, *high, *subs, *scales;
  uint32_t low_stride, high_stride, subs_stride, scales_stride;  // bytes from row to row
  int32_t rows, cols;
};

// Bytes a block of 32 columns has in each plane; scales of K types count 256.
struct WeightPlanes {
  int low, high, subs, scales;
  bool is_super;
};
WeightPlanes weight_planes(int32_t dtype);  // of block types

struct PackedWeight {
  Runtime& runtime;
  int32_t dtype;
  size_t bytes;
  uint8_t* data;
  WeightView view;

  ~PackedWeight() { runtime.free(data); }
  PackedWeight(Runtime& r, int32_t type, size_t size, uint8_t* memory, const WeightView& v)
      : runtime(r), dtype(type), bytes(size), data(memory), view(v) {}
  PackedWeight(const PackedWeight&) = delete;
  PackedWeight& operator=(const PackedWeight&) = delete;
};

// Contents are undefined. Throws Error{KVASIR_ARGUMENT | KVASIR_MEMORY}.
std::shared_ptr<PackedWeight> weight_create(Runtime& runtime, int32_t dtype, int32_t rows, int32_t cols);
// Rows [row, row + rows) from file form; any alignment of src.
void weight_write(PackedWeight& w, int32_t row, int32_t rows, const uint8_t* src);

}  // namespace kvasir
