// Layout of 4-bit key codes, and what rotates keys and queries for them.
//
// A code of a key k in a chunk with centre c approximates x = R (k - c): x[i] ~ scale[i / 32] * (nibble[i] - 8), one bfloat16
// scale per 32 dimensions (a band). R is a Hadamard transform within each band: it spreads the large channels that real keys
// have over their band, so that the scale suits all of it (QuaRot, section 4.2, here by bands). On recorded heads its error
// lies below that of codes with a minimum and a maximum per band, which cost 11 % more bytes.
//
// A block holds 32 keys, dimensions padded with zeros to a multiple of 32:
//   codes   [bands][2 halves][4 j][16 slots][4 bytes]: byte i of a slot has dimension 8j + i low, 8j + 4 + i high. Key
//           8t + 4h + r is slot 4t + r of half h, so that packing both halves' 32-bit sums to 16 bits restores the order.
//   scales  [pairs of bands][32: half, slot][2] bfloat16.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

constexpr int32_t kNibbleBlock = 32, kNibbleBand = 32, kNibbleBandBytes = 512;

inline int32_t nibble_half(int32_t key) { return key >> 2 & 1; }
inline int32_t nibble_slot(int32_t key) { return (key >> 3) * 4 + (key & 3); }
// Offset of the 4 bytes with dimensions 8j .. 8j + 7 of a band.
inline size_t nibble_at(int32_t key, int32_t band, int32_t j) {
  return static_cast<size_t>(band * kNibbleBandBytes + nibble_half(key) * 256 + j * 64 + nibble_slot(key) * 4);
}
inline size_t nibble_scale_at(int32_t key, int32_t band, int32_t bands) {
  return static_cast<size_t>(bands * kNibbleBandBytes + (band / 2) * 128 + (nibble_half(key) * 16 + nibble_slot(key)) * 4 +
                             band % 2 * 2);
}

// x [32] := H x / sqrt(32), its own inverse.
inline void rotate_band(float* x) {
  for (int32_t step = 1; step < kNibbleBand; step *= 2) {
    for (int32_t i = 0; i < kNibbleBand; i += 2 * step) {
      for (int32_t j = i; j < i + step; j++) {
        const float a = x[j], b = x[j + step];
        x[j] = a + b;
        x[j + step] = a - b;
      }
    }
  }
  for (int32_t i = 0; i < kNibbleBand; i++) x[i] *= 0.17677669529663687f;
}

}  // namespace kvasir
