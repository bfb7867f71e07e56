// What a scan of codes asks memory for while it is at a block.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

// Bytes ahead of what is scanned: `far` comes to L2, `near` on to L1; far 0: near alone, from memory.
struct FetchDistances {
  size_t far, near;
};

// What suits this CPU. int8 codes, d 64, beside a plain read loop: Zen 5 reaches 88 % by one prefetch 8 KB ahead and 67 to 70 % by two,
// 12 KB and 1280 bytes; Sapphire Rapids is best by two.
FetchDistances fetch_distances();

// Codes lie in runs, one behind the other only by chance, and no hardware follows from one to another.
struct ScanAhead {
  const uint8_t* end = nullptr;   // of the run that is scanned
  const uint8_t* next = nullptr;  // the run behind it; null: none
  size_t far = 0, near = 0;       // whole blocks, in bytes

  ScanAhead() = default;
  ScanAhead(const uint8_t* run_end, const uint8_t* next_run, size_t block_bytes) : end(run_end), next(next_run) {
    const FetchDistances wanted = fetch_distances();
    far = (wanted.far + block_bytes - 1) / block_bytes * block_bytes;
    near = (wanted.near + block_bytes - 1) / block_bytes * block_bytes;
  }

  // How far from `block` lies what is to be asked for, `distance` bytes on; 0 where there is nothing.
  ptrdiff_t from(const uint8_t* block, size_t distance) const {
    const uint8_t* ahead = block + distance;
    if (ahead < end) return static_cast<ptrdiff_t>(distance);
    return next == nullptr ? 0 : next + (ahead - end) - block;
  }
  // Where one prefetch is all.
  size_t once() const { return far > 0 ? far : near; }
};

}  // namespace kvasir
