// Who is whose neighbour: a fixed number of slots a node, in blocks that versions of a graph and forks share. A version that
// anybody else can see never changes; the one writer of the next version copies the blocks that it touches.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "chunk_memory.h"

namespace kvasir {

class GraphLinks {
 public:
  static constexpr int32_t kBlockBits = 9, kBlockNodes = 1 << kBlockBits;
  static constexpr int32_t kNone = -1;

  // A list holds up to slots - 1 neighbours in order of preference, then kNone. The last slot is the thread's: one neighbour
  // that no pruning removes (kNone: free), which keeps every node reachable.
  GraphLinks(int32_t slots, std::shared_ptr<ChunkMemory> memory) : slots_(slots), memory_(std::move(memory)) {}
  // A version to change: shares all blocks.
  GraphLinks next() const;

  int32_t slots() const { return slots_; }
  int32_t nodes() const { return nodes_; }
  int32_t blocks() const { return static_cast<int32_t>(blocks_.size()); }
  size_t bytes() const { return blocks_.size() * block_bytes(); }  // shared ones included
  size_t block_bytes() const { return static_cast<size_t>(kBlockNodes) * static_cast<size_t>(slots_) * sizeof(int32_t); }

  const int32_t* of(int32_t node) const {
    return data_[static_cast<size_t>(node >> kBlockBits)] +
           static_cast<size_t>(node & (kBlockNodes - 1)) * static_cast<size_t>(slots_);
  }
  int32_t count(int32_t node) const {
    const int32_t* list = of(node);
    int32_t n = 0;
    while (n < slots_ - 1 && list[n] != kNone) n++;
    return n;
  }
  int32_t thread(int32_t node) const { return of(node)[slots_ - 1]; }

  // Only before the version is shown to others. Threads may edit nodes of different blocks at once.
  void resize(int32_t nodes);  // new nodes have no neighbours
  int32_t* edit(int32_t node);
  // Replaces the list; the thread stays. count < slots.
  void set(int32_t node, const int32_t* neighbours, int32_t count);

 private:
  std::shared_ptr<uint8_t> new_block() const { return memory_->take(block_bytes()); }
  int32_t slots_, nodes_ = 0;
  std::shared_ptr<ChunkMemory> memory_;
  std::vector<std::shared_ptr<uint8_t>> blocks_;
  std::vector<const int32_t*> data_;
  std::vector<char> own_;  // nobody else has the block
};

}  // namespace kvasir
