#include "chunk_memory.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "error.h"
#include "memory.h"

namespace kvasir {
namespace {

constexpr size_t kSlabBytes = size_t{8} << 20;

}  // namespace

struct ChunkMemory::Slab {
  uint8_t* data;
  size_t block, blocks;
  size_t touched = 0;             // blocks from here on were never used: their pages need not exist
  std::vector<uint8_t*> unused;   // of those before
  bool full() const { return touched == blocks && unused.empty(); }
  bool empty() const { return unused.size() == touched; }
  ~Slab() { aligned_free(data); }
};

std::shared_ptr<uint8_t> ChunkMemory::take(size_t bytes) {
  const size_t block = (bytes + 63) / 64 * 64;
  const std::lock_guard<std::mutex> lock(mutex_);
  auto found = open_.find(block);
  if (found == open_.end()) {
    auto slab = std::make_unique<Slab>();
    slab->block = block, slab->blocks = std::max<size_t>(1, kSlabBytes / block);
    slab->data = static_cast<uint8_t*>(aligned_allocate(slab->blocks * block));
    if (slab->data == nullptr) fail(KVASIR_MEMORY, "Cannot encode keys: %zu bytes are not to be had", slab->blocks * block);
    slab->unused.reserve(slab->blocks);  // giving back must not throw
    found = open_.emplace(block, slab.get());
    slab.release();
  }
  Slab* const slab = found->second;
  uint8_t* p;
  if (slab->unused.empty()) {
    p = slab->data + slab->touched++ * block;
  } else {
    p = slab->unused.back();
    slab->unused.pop_back();
  }
  if (slab->full()) open_.erase(found);
  return {p, [self = shared_from_this(), slab](uint8_t* given) { self->give_back(slab, given); }};
}

void ChunkMemory::give_back(Slab* slab, uint8_t* block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const bool was_full = slab->full();
  slab->unused.push_back(block);
  if (was_full) open_.emplace(slab->block, slab);
  if (!slab->empty()) return;
  const auto same = open_.equal_range(slab->block);
  open_.erase(std::find_if(same.first, same.second, [&](const auto& entry) { return entry.second == slab; }));
  delete slab;
}

// Every block holds the memory that it came from: nothing is left.
ChunkMemory::~ChunkMemory() = default;

}  // namespace kvasir
