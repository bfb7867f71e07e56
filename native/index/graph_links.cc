#include "graph_links.h"

#include <algorithm>
#include <cstring>

namespace kvasir {

GraphLinks GraphLinks::next() const {
  GraphLinks copy = *this;
  std::fill(copy.own_.begin(), copy.own_.end(), 0);
  return copy;
}

void GraphLinks::resize(int32_t nodes) {
  // Slots of nodes to come are kNone already.
  while (static_cast<int64_t>(blocks_.size()) * kBlockNodes < nodes) {
    std::shared_ptr<uint8_t> block = new_block();
    std::memset(block.get(), 0xff, block_bytes());
    data_.push_back(reinterpret_cast<const int32_t*>(block.get()));
    blocks_.push_back(std::move(block));
    own_.push_back(1);
  }
  nodes_ = nodes;
}

int32_t* GraphLinks::edit(int32_t node) {
  const size_t b = static_cast<size_t>(node >> kBlockBits);
  if (own_[b] == 0) {
    std::shared_ptr<uint8_t> block = new_block();
    std::memcpy(block.get(), data_[b], block_bytes());
    data_[b] = reinterpret_cast<const int32_t*>(block.get());
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
