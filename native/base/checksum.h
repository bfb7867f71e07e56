// XXH64 (Collet, xxhash.com/doc: specification 0.1.1): the checksum of files.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kvasir {

// Over pieces that need not lie together.
class Checksum64 {
 public:
  explicit Checksum64(uint64_t seed = 0) : seed_(seed), acc_{seed + k1 + k2, seed + k2, seed, seed - k1} {}
  void add(const void* data, size_t bytes) {
    const uint8_t* p = static_cast<const uint8_t*>(data);
    total_ += bytes;
    if (held_ > 0) {
      const size_t some = bytes < sizeof block_ - held_ ? bytes : sizeof block_ - held_;
      std::memcpy(block_ + held_, p, some);
      held_ += some, p += some, bytes -= some;
      if (held_ < sizeof block_) return;
      stripes(block_, 1);
      held_ = 0;
    }
    stripes(p, bytes / sizeof block_);
    held_ = bytes % sizeof block_;
    if (held_ > 0) std::memcpy(block_, p + bytes - held_, held_);
  }
  uint64_t digest() const {
    uint64_t h = seed_ + k5;
    if (total_ >= sizeof block_) {
      h = rotate(acc_[0], 1) + rotate(acc_[1], 7) + rotate(acc_[2], 12) + rotate(acc_[3], 18);
      for (uint64_t acc : acc_) h = (h ^ round(0, acc)) * k1 + k4;
    }
    h += total_;
    const uint8_t* p = block_;
    size_t left = held_;
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

 private:
  static constexpr uint64_t k1 = 0x9E3779B185EBCA87u, k2 = 0xC2B2AE3D27D4EB4Fu, k3 = 0x165667B19E3779F9u,
                            k4 = 0x85EBCA77C2B2AE63u, k5 = 0x27D4EB2F165667C5u;
  static uint64_t rotate(uint64_t x, int r) { return x << r | x >> (64 - r); }
  static uint64_t round(uint64_t acc, uint64_t lane) { return rotate(acc + lane * k2, 31) * k1; }
  static uint64_t load(const uint8_t* p) {
    uint64_t x;
    std::memcpy(&x, p, 8);
    return x;
  }
  // In locals, which the compiler keeps in registers: bytes could alias the members.
  void stripes(const uint8_t* p, size_t count) {
    uint64_t a = acc_[0], b = acc_[1], c = acc_[2], d = acc_[3];
    for (; count > 0; count--, p += sizeof block_) {
      a = round(a, load(p));
      b = round(b, load(p + 8));
      c = round(c, load(p + 16));
      d = round(d, load(p + 24));
    }
    acc_[0] = a, acc_[1] = b, acc_[2] = c, acc_[3] = d;
  }
  uint64_t seed_, acc_[4];
  uint8_t block_[32];
  size_t held_ = 0;
  uint64_t total_ = 0;
};

inline uint64_t checksum64(const void* data, size_t bytes, uint64_t seed = 0) {
  Checksum64 sum(seed);
  sum.add(data, bytes);
  return sum.digest();
}

}  // namespace kvasir
