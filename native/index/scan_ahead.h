// What a scan of codes asks memory for while it is at a block.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

// Bytes ahead of what is scanned, two places where lines are asked for: either `far` comes to L2 and `near` on to L1, or, where the CPU
// ignores some of what it is asked for, both come to L1, and near is another chance.
struct FetchDistances {
  size_t far, near;
  bool to_l1;  // what is far, too
};

// What suits this CPU. int8 codes, of read bandwidth: Zen 5 reaches 76 to 82 % (d 64) and 86 % (d 128) by one prefetch 8 KB ahead, 79 to
// 87 % and 91 % with another at 4 KB, no more by 16 and 8 KB, and less by 12 KB and 1280 bytes, which is best on Sapphire Rapids.
// 4-bit codes do not mind.
FetchDistances fetch_distances();

// Codes lie in runs, one behind the other only by chance, and no hardware follows from one to another.
struct ScanAhead {
  const uint8_t* end = nullptr;   // of the run that is scanned
  const uint8_t* next = nullptr;  // the run behind it; null: none
  size_t far = 0, near = 0;       // whole blocks, in bytes
  bool to_l1 = false;             // what is far, too

  ScanAhead() = default;
  ScanAhead(const uint8_t* run_end, const uint8_t* next_run, size_t block_bytes) : end(run_end), next(next_run) {
    const FetchDistances wanted = fetch_distances();
    far = (wanted.far + block_bytes - 1) / block_bytes * block_bytes;
    near = (wanted.near + block_bytes - 1) / block_bytes * block_bytes;
    to_l1 = wanted.to_l1;
  }

  // How far from `block` lies what is to be asked for, `distance` bytes on; 0 where there is nothing.
  ptrdiff_t from(const uint8_t* block, size_t distance) const {
    const uint8_t* ahead = block + distance;
    if (ahead < end) return static_cast<ptrdiff_t>(distance);
    return next == nullptr ? 0 : next + (ahead - end) - block;
  }
  // Where one prefetch is all.
  size_t once() const { return far; }
};

}  // namespace kvasir
