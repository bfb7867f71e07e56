// Uniform numbers of the draws: functions of what is drawn, so that equal seeds, histories and positions repeat.
#pragma once
#include <cstdint>
#include <cstring>

namespace kvasir {

// lowbias32 (Wellons, "Prospecting for hash functions"): a bijection whose bits avalanche.
inline uint32_t lowbias32(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x;
}

// What the positions of one KV head are hashed with in one draw.
inline uint32_t draw_key(uint32_t draw, int32_t kv_head) {
  return lowbias32(draw + 0x9e3779b9u * static_cast<uint32_t>(kv_head + 1));
}

// 16 uniform bits of a position, as the upper half of a float's: what the first stage of a draw compares with.
inline int16_t draw_short(uint32_t key, int32_t position) {
  const uint32_t hash = lowbias32(static_cast<uint32_t>(position >> 1) ^ key);
  const float uniform = static_cast<float>(static_cast<int32_t>(position % 2 == 0 ? hash & 0xffff : hash >> 16));
  uint32_t bits;
  std::memcpy(&bits, &uniform, 4);
  return static_cast<int16_t>(bits >> 16);
}

// 32 uniform bits of a position: kept when bits < p * 2^32.
inline uint32_t draw_bits(uint32_t key, int32_t position) { return lowbias32(static_cast<uint32_t>(position) ^ key); }

}  // namespace kvasir
