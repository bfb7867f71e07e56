// Memory of code chunks: blocks of one size carved from slabs of huge pages, shared by all indexes of a context. A scan of codes
// runs half as fast again when its pages are huge, and a chunk alone is too small for one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

namespace kvasir {

class ChunkMemory : public std::enable_shared_from_this<ChunkMemory> {
 public:
  // 64-byte aligned, contents undefined; given back when the last copy of the pointer ends, from any thread. The memory outlives
  // its context as long as a block does. Throws Error{KVASIR_MEMORY}.
  std::shared_ptr<uint8_t> take(size_t bytes);

  ChunkMemory() = default;
  ~ChunkMemory();
  ChunkMemory(const ChunkMemory&) = delete;
  ChunkMemory& operator=(const ChunkMemory&) = delete;

 private:
  struct Slab;
  void give_back(Slab* slab, uint8_t* block);
  std::mutex mutex_;
  std::multimap<size_t, Slab*> open_;  // by size of their blocks, those with room
};

}  // namespace kvasir
