// Uniform numbers of the draws: functions of what is drawn, so that equal seeds, histories and positions repeat.
#pragma once
#include <cstdint>

namespace kvasir {

// lowbias32 (Wellons, "Prospecting for hash functions"): a bijection whose bits avalanche.
constexpr uint32_t lowbias32(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x;
}

// What the positions of one KV head are hashed with in one draw.
constexpr uint32_t draw_key(uint32_t draw, int32_t kv_head) {
  return lowbias32(draw + 0x9e3779b9u * static_cast<uint32_t>(kv_head + 1));
}

// 32 uniform bits of a position: kept when bits < p * 2^32.
constexpr uint32_t draw_bits(uint32_t key, int32_t position) { return lowbias32(static_cast<uint32_t>(position) ^ key); }

}  // namespace kvasir
