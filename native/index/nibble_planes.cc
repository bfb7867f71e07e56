// 4-bit codes between blocks and planes.
#include "nibble_planes.h"

#include <cstring>

namespace kvasir {
namespace {

constexpr int32_t kSlots = 16;

uint32_t word(const uint8_t* at) {
  uint32_t x;
  std::memcpy(&x, at, sizeof x);
  return x;
}
void set_word(uint8_t* at, uint32_t x) { std::memcpy(at, &x, sizeof x); }

size_t fine_bytes(const CodeShape& shape) { return static_cast<size_t>(shape.bands * kFineBandBytes); }

void copy_scales(uint8_t* to, const uint8_t* from, const CodeShape& shape) {
  std::memcpy(to, from, static_cast<size_t>(shape.pairs) * kBlockKeys * 4);
}

}  // namespace

void split_lanes(uint8_t* coarse, uint8_t* fine, const CodeShape& shape, const uint8_t* block, int32_t lane, int32_t count) {
  for (int32_t key = lane; key < lane + count; key++) {
    uint8_t* row = fine + static_cast<size_t>(key) * fine_bytes(shape);
    for (int32_t band = 0; band < shape.bands; band++) {
      for (int32_t j = 0; j < 2; j++, row += 4) {
        uint32_t high, low;
        split_words(word(block + nibble_at(key, band, 2 * j)), word(block + nibble_at(key, band, 2 * j + 1)), &high, &low);
        set_word(coarse + coarse_at(key, band, j), high);
        set_word(row, low);
      }
      std::memcpy(coarse + coarse_scale_at(key, band, shape.bands), block + nibble_scale_at(key, band, shape.bands), 2);
    }
  }
}

void join_blocks(uint8_t* to, const CodeShape& shape, const uint8_t* coarse, const uint8_t* fine, int32_t blocks) {
  const size_t row = fine_bytes(shape), coarse_bytes = coarse_shape(shape).block_bytes;
  for (int32_t b = 0; b < blocks; b++, to += shape.block_bytes, coarse += coarse_bytes, fine += kBlockKeys * row) {
    for (int32_t band = 0; band < shape.bands; band++) {
      for (int32_t half = 0; half < 2; half++) {
        for (int32_t j = 0; j < 2; j++) {
          uint32_t high[kSlots], low[kSlots], first[kSlots], second[kSlots];
          std::memcpy(high, coarse + band * kCoarseBandBytes + half * 128 + j * 64, sizeof high);
          // Slot 4t + r of half h is key 8t + 4h + r.
          for (int32_t slot = 0; slot < kSlots; slot++) {
            const int32_t key = slot / 4 * 8 + half * 4 + slot % 4;
            low[slot] = word(fine + static_cast<size_t>(key) * row + band * kFineBandBytes + j * 4);
          }
          for (int32_t slot = 0; slot < kSlots; slot++) join_words(high[slot], low[slot], first + slot, second + slot);
          uint8_t* const at = to + band * kNibbleBandBytes + half * 256 + j * 128;
          std::memcpy(at, first, sizeof first);
          std::memcpy(at + 64, second, sizeof second);
        }
      }
    }
    copy_scales(to + shape.bands * kNibbleBandBytes, coarse + shape.bands * kCoarseBandBytes, shape);
  }
}

void join_lane(uint8_t* to, int32_t lane, const CodeShape& shape, const uint8_t* coarse, int32_t key, const uint8_t* fine) {
  for (int32_t band = 0; band < shape.bands; band++) {
    for (int32_t j = 0; j < 2; j++, fine += 4) {
      uint32_t first, second;
      join_words(word(coarse + coarse_at(key, band, j)), word(fine), &first, &second);
      set_word(to + nibble_at(lane, band, 2 * j), first);
      set_word(to + nibble_at(lane, band, 2 * j + 1), second);
    }
    std::memcpy(to + nibble_scale_at(lane, band, shape.bands), coarse + coarse_scale_at(key, band, shape.bands), 2);
  }
}

}  // namespace kvasir
