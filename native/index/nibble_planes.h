// 4-bit codes (nibble_layout.h) as they are kept: two planes of 2 bits, nibble = 4 * coarse + fine. A sample scores all keys by the
// coarse plane and by the fine one only those that may be kept, so that it reads little more than half of the bytes; everything
// else joins both to the block it was.
//   coarse  [bands][2 halves][2 j][16 slots][4 bytes]: byte i of a slot has dimensions 16j + 4t + i at bit 2t, t = 0 .. 3. Scales
//           behind them as in nibble_layout.h.
//   fine    [32 keys][bands][2 j][4 bytes], bits as in the coarse plane: what belongs to a key lies together.
#pragma once
#include <cstddef>
#include <cstdint>

#include "code_kernels.h"
#include "nibble_layout.h"

namespace kvasir {

constexpr int32_t kCoarseBandBytes = kNibbleBandBytes / 2, kFineBandBytes = 8;

inline size_t coarse_at(int32_t key, int32_t band, int32_t j) {
  return static_cast<size_t>(band * kCoarseBandBytes + nibble_half(key) * 128 + j * 64 + nibble_slot(key) * 4);
}
inline size_t coarse_scale_at(int32_t key, int32_t band, int32_t bands) {
  return nibble_scale_at(key, band, bands) - static_cast<size_t>(bands * (kNibbleBandBytes - kCoarseBandBytes));
}
// The shape of coarse blocks: what a scan steps by.
inline CodeShape coarse_shape(CodeShape shape) {
  shape.block_bytes -= static_cast<size_t>(shape.bands * (kNibbleBandBytes - kCoarseBandBytes));
  return shape;
}

// Codes of 16 dimensions as words of a block, first and second, and as words of its planes.
inline void split_words(uint32_t first, uint32_t second, uint32_t* coarse, uint32_t* fine) {
  constexpr uint32_t kTwo = 0x03030303;
  *fine = (first & kTwo) | (first >> 4 & kTwo) << 2 | (second & kTwo) << 4 | (second >> 4 & kTwo) << 6;
  *coarse = (first >> 2 & kTwo) | (first >> 6 & kTwo) << 2 | (second >> 2 & kTwo) << 4 | (second >> 6 & kTwo) << 6;
}
inline void join_words(uint32_t coarse, uint32_t fine, uint32_t* first, uint32_t* second) {
  constexpr uint32_t kTwo = 0x03030303;
  *first = (fine & kTwo) | (coarse & kTwo) << 2 | (fine >> 2 & kTwo) << 4 | (coarse >> 2 & kTwo) << 6;
  *second = (fine >> 4 & kTwo) | (coarse >> 4 & kTwo) << 2 | (fine >> 6 & kTwo) << 4 | (coarse >> 6 & kTwo) << 6;
}

// Takes keys [lane, lane + count) of a block apart: into a coarse block, and fine rows from the block's first key on.
void split_lanes(uint8_t* coarse, uint8_t* fine, const CodeShape& shape, const uint8_t* block, int32_t lane, int32_t count);
// Puts `blocks` blocks together from coarse ones and all of their fine rows.
void join_blocks(uint8_t* to, const CodeShape& shape, const uint8_t* coarse, const uint8_t* fine, int32_t blocks);
// Key `key` of a coarse block, with its fine row, as key `lane` of a block.
void join_lane(uint8_t* to, int32_t lane, const CodeShape& shape, const uint8_t* coarse, int32_t key, const uint8_t* fine);

}  // namespace kvasir
