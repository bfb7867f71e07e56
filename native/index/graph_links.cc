#include "graph_links.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "error.h"
#include "kvasir_abi.h"
#include "memory.h"

namespace kvasir {

struct GraphLinks::Block {
  explicit Block(size_t bytes) : data(static_cast<int32_t*>(aligned_allocate(bytes))) {
    if (data == nullptr) fail(KVASIR_MEMORY, "Cannot build graph: %zu bytes are not to be had", bytes);
  }
  ~Block() { std::free(data); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  int32_t* data;
};

GraphLinks GraphLinks::next() const {
  GraphLinks copy = *this;
  std::fill(copy.own_.begin(), copy.own_.end(), 0);
  return copy;
}

void GraphLinks::resize(int32_t nodes) {
  // Slots of nodes to come are kNone already.
  while (static_cast<int64_t>(blocks_.size()) * kBlockNodes < nodes) {
    auto block = std::make_shared<Block>(block_bytes());
    std::memset(block->data, 0xff, block_bytes());
    data_.push_back(block->data);
    blocks_.push_back(std::move(block));
    own_.push_back(1);
  }
  nodes_ = nodes;
}

int32_t* GraphLinks::edit(int32_t node) {
  const size_t b = static_cast<size_t>(node >> kBlockBits);
  if (own_[b] == 0) {
    auto block = std::make_shared<Block>(block_bytes());
    std::memcpy(block->data, blocks_[b]->data, block_bytes());
    data_[b] = block->data;
    blocks_[b] = std::move(block);
    own_[b] = 1;
  }
  return const_cast<int32_t*>(of(node));
}

void GraphLinks::set(int32_t node, const int32_t* neighbours, int32_t count) {
  int32_t* list = edit(node);
  std::copy(neighbours, neighbours + count, list);
  std::fill(list + count, list + slots_ - 1, kNone);
}

}  // namespace kvasir
