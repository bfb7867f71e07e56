// Blocks of middle size, carved from shared regions of huge pages. What decoding reads, matrices of weights in one stream and rows
// of the cache at random, lies in thousands of blocks of a tenth of a megabyte to a few: each alone is too small for a huge page, and
// with small ones every row misses the address cache and every stream stops at each page's end. Measured on SmolLM2 (a virtual
// machine, whose walks are twice as long): exact attention over 32K tokens takes .75 of its time, retrieved rows .45, matrices .65.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace kvasir {

// Thread-safe. Blocks lie first where pages are there already, then where they fit best, so that regions empty. Whole huge pages that
// become free go back to the system at once, but for those that are kept: on a virtual machine whose host takes back what is free, a
// page of the system's costs 4 ms a MB, five times what a decode step writes to it.
class HugeHeap {
 public:
  // One for the process: blocks outlive the contexts that asked for them. Never destroyed.
  static HugeHeap& shared();

  // 128-byte aligned; zeros if so asked, else undefined. Null when memory is out, or where the system has no huge pages.
  void* take(size_t bytes, bool zeroed);
  void give(void* data, size_t bytes);  // of take, with the same size

  // Up to this many bytes of pages that become free stay for blocks to come, 0 at first; what is kept beyond goes back now.
  void keep(size_t bytes);

  size_t regions();  // that exist now
  size_t kept();     // bytes of free pages that are kept

 private:
  struct Region {
    uint8_t* data;
    uint8_t* untouched;  // from here on never used: zeros, and pages that need not exist
    std::map<uint8_t*, size_t> unused;  // by address; neighbours are one
    uint32_t kept;                      // a bit each huge page that nobody has a part of, but that is there
  };
  using Regions = std::map<uint8_t*, Region>;
  void give_back(Region& region, uint32_t pages);        // that are kept
  Regions::iterator forget_empty(Regions::iterator at);  // a region of no blocks and no kept pages; the next one
  std::mutex mutex_;
  size_t most_ = 0, kept_ = 0;
  Regions regions_;  // by address
};

}  // namespace kvasir
