// XXH64 (Collet, xxhash.com/doc: specification 0.1.1): the checksum of index files.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kvasir {

inline uint64_t checksum64(const void* data, size_t bytes, uint64_t seed = 0) {
  constexpr uint64_t k1 = 0x9E3779B185EBCA87u, k2 = 0xC2B2AE3D27D4EB4Fu, k3 = 0x165667B19E3779F9u,
                     k4 = 0x85EBCA77C2B2AE63u, k5 = 0x27D4EB2F165667C5u;
  const auto rotate = [](uint64_t x, int r) { return x << r | x >> (64 - r); };
  const auto round = [&](uint64_t acc, uint64_t lane) { return rotate(acc + lane * k2, 31) * k1; };
  const auto load = [](const uint8_t* p) {
    uint64_t x;
    std::memcpy(&x, p, 8);
    return x;
  };
  const uint8_t* p = static_cast<const uint8_t*>(data);
  size_t left = bytes;
  uint64_t h = seed + k5;
  if (left >= 32) {
    uint64_t a = seed + k1 + k2, b = seed + k2, c = seed, d = seed - k1;
    for (; left >= 32; left -= 32, p += 32) {
      a = round(a, load(p));
      b = round(b, load(p + 8));
      c = round(c, load(p + 16));
      d = round(d, load(p + 24));
    }
    h = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
    for (uint64_t acc : {a, b, c, d}) h = (h ^ round(0, acc)) * k1 + k4;
  }
  h += bytes;
  for (; left >= 8; left -= 8, p += 8) h = rotate(h ^ round(0, load(p)), 27) * k1 + k4;
  if (left >= 4) {
    uint32_t x;
    std::memcpy(&x, p, 4);
    h = rotate(h ^ x * k1, 23) * k2 + k3;
    left -= 4, p += 4;
  }
  for (; left > 0; left--, p++) h = rotate(h ^ *p * k5, 11) * k1;
  h = (h ^ h >> 33) * k2;
  h = (h ^ h >> 29) * k3;
  return h ^ h >> 32;
}

}  // namespace kvasir
