// XXH64 (Collet, xxhash.com/doc: specification 0.1.1): the checksum of files.
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

// The same over pieces that do not lie together.
class Checksum64 {
 public:
  void add(const void* data, size_t bytes) {
    const uint8_t* p = static_cast<const uint8_t*>(data);
    total_ += bytes;
    if (held_ > 0) {
      const size_t some = bytes < sizeof block_ - held_ ? bytes : sizeof block_ - held_;
      std::memcpy(block_ + held_, p, some);
      held_ += some, p += some, bytes -= some;
      if (held_ < sizeof block_) return;
      stripe(block_);
      held_ = 0;
    }
    for (; bytes >= sizeof block_; bytes -= sizeof block_, p += sizeof block_) stripe(p);
    if (bytes > 0) std::memcpy(block_, p, bytes);
    held_ = bytes;
  }
  uint64_t digest() const {
    if (total_ < sizeof block_) return checksum64(block_, total_);
    uint64_t h = rotate(acc_[0], 1) + rotate(acc_[1], 7) + rotate(acc_[2], 12) + rotate(acc_[3], 18);
    for (uint64_t acc : acc_) h = (h ^ rotate(acc * k2, 31) * k1) * k1 + k4;
    h += total_;
    const uint8_t* p = block_;
    size_t left = held_;
    for (; left >= 8; left -= 8, p += 8) {
      uint64_t x;
      std::memcpy(&x, p, 8);
      h = rotate(h ^ rotate(x * k2, 31) * k1, 27) * k1 + k4;
    }
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

 private:
  static constexpr uint64_t k1 = 0x9E3779B185EBCA87u, k2 = 0xC2B2AE3D27D4EB4Fu, k3 = 0x165667B19E3779F9u,
                            k4 = 0x85EBCA77C2B2AE63u, k5 = 0x27D4EB2F165667C5u;
  static uint64_t rotate(uint64_t x, int r) { return x << r | x >> (64 - r); }
  void stripe(const uint8_t* p) {
    for (int i = 0; i < 4; i++) {
      uint64_t x;
      std::memcpy(&x, p + 8 * i, 8);
      acc_[i] = rotate(acc_[i] + x * k2, 31) * k1;
    }
  }
  uint64_t acc_[4] = {k1 + k2, k2, 0, uint64_t{0} - k1};
  uint8_t block_[32];
  size_t held_ = 0;
  uint64_t total_ = 0;
};

}  // namespace kvasir
