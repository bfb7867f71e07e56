// Memory: aligned, scratch that grows, and blocks that several libraries hold.
#pragma once
#include <atomic>
#include <cstddef>
#include <memory>

#include "kvasir_abi.h"

namespace kvasir {

void* aligned_allocate(size_t bytes);  // 64-byte aligned, for aligned_free; null when memory is out
void* aligned_zeroed(size_t bytes);    // the same, filled with zeros: pages of large blocks that were never used stay untouched
void aligned_free(void* data);         // of either, or null

// Scratch that grows and is kept: one per worker plus one shared. 64-byte aligned.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* get(size_t bytes);  // contents undefined; valid until the next get; throws Error{KVASIR_MEMORY}
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Takes over `data` (of aligned_allocate) and frees it at the last release. Starts with one hold, the maker's.
kvasir_memory* share_memory(void* data, size_t bytes);
// The same for memory that `holder` keeps.
kvasir_memory* share_held(void* data, size_t bytes, std::shared_ptr<const void> holder);

}  // namespace kvasir
