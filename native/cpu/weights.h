// Weights in the kernels' layout. One layout for all instruction sets: 16 rows side by side are one zmm, two ymm or a
// plain loop, so that a file is repacked the same way everywhere and every kernel can be tested on the same memory.
//
// A weight [m, k] is ceil(m / 16) panels of 16 rows, each one stream in the order decode reads it; missing rows are 0.
//   plain types  [k][16] elements
//   block types  units of `unit_k` columns: a header of scales, then unit_k / 32 blocks of 32 columns
//     header     f16 d[16], and f16 m[16] where there is a min; two blocks share 64 bytes where there is none
//                K types: f16 d[16], f16 m[16] (or zeros), then per block u8 scales[16], mins[16], or per 16 columns
//                i8 scales[16]
//     4 bits     four 64-byte vectors of nibbles: vector j, byte 4 * row + i holds columns 4j + i (low) and
//                16 + 4j + i (high), which is ggml's own pairing: most repacking is a transpose of 32-bit words
//     5 bits     and eight 64-bit masks: mask v, bit 4 * row + i is bit 4 of column 4v + i
//     6 bits     and two vectors: vector t, byte 4 * row + i, bits 2f.. are the top bits of column 4 * (4t + f) + i
//     3 bits     two such vectors of the low bits, then eight masks of the top bit
//     8 bits     eight vectors: vector v, byte 4 * row + i is column 4v + i, plus 128
// Sizes are the file's but for K types' widened scales (Q4_K +2.8 %, Q5_K +2.3 %, Q6_K +1 %, Q3_K +5.5 %), padding rows
// and half units.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "quant.h"

struct kvasir_context;

namespace kvasir {

constexpr int kPanelRows = 16;

struct PanelLayout {
  int unit_k;        // columns of one unit; 1 for plain types
  int header_bytes;  // of one unit, a multiple of 64 (0 for plain types)
  int block_bytes;   // of 32 columns of 16 rows, a multiple of 64; plain types: of one column of 16 rows
};
PanelLayout panel_layout(int32_t dtype);

struct PackedWeight {
  int32_t dtype;
  int32_t rows, cols;
  PanelLayout layout;
  size_t panel_bytes;
  uint8_t* data;  // [panels][panel_bytes], 64-byte aligned
  size_t bytes;   // what is allocated
  bool mapped;    // data came from mmap

  PackedWeight() = default;
  PackedWeight(const PackedWeight&) = delete;
  PackedWeight& operator=(const PackedWeight&) = delete;
  ~PackedWeight();
  int panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  const uint8_t* panel(int p) const { return data + static_cast<size_t>(p) * panel_bytes; }
};

// rows, cols >= 0; cols a multiple of the type's block. Throws Error{KVASIR_ARGUMENT | KVASIR_MEMORY}. Contents are
// zero.
std::shared_ptr<PackedWeight> weight_create(int32_t dtype, int32_t rows, int32_t cols);
// Repacks rows [row, row + rows) from file form, on all threads; any range, any alignment of src.
void weight_write(kvasir_context& ctx, PackedWeight& w, int32_t row, int32_t rows, const uint8_t* src);
size_t weight_bytes(const PackedWeight& w);
// One row back as floats: the embedding lookup. out [cols].
void weight_read_row(const PackedWeight& w, int32_t row, float* out);

// weights_pack.cc: one row's part of a panel. lane = row % 16.
void pack_row(const PackedWeight& w, uint8_t* panel, int lane, const uint8_t* src);
void unpack_row(const PackedWeight& w, const uint8_t* panel, int lane, float* out);

}  // namespace kvasir
