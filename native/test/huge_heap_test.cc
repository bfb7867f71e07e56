#include "huge_heap.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "fixture.h"
#include "memory.h"

using namespace kvasir_test;

namespace {

struct Block {
  uint8_t* data;
  size_t bytes;
  uint8_t mark;
};

bool all_are(const uint8_t* data, size_t bytes, uint8_t mark) {
  return bytes == 0 || (data[0] == mark && std::memcmp(data, data + 1, bytes - 1) == 0);
}

// Takes and gives blocks at random; returns how often a block did not hold what it should. -1: the system has no such heap.
int live(kvasir::HugeHeap& heap, uint32_t seed, int rounds) {
  Random random(seed);
  std::vector<Block> blocks;
  int wrong = 0;
  const auto give = [&](size_t i) {
    if (!all_are(blocks[i].data, blocks[i].bytes, blocks[i].mark)) wrong++;
    heap.give(blocks[i].data, blocks[i].bytes);
    blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(i));
  };
  for (int round = 0; round < rounds; round++) {
    if (!blocks.empty() && (blocks.size() > 24 || random.bits() % 5 < 2)) {
      give(random.bits() % blocks.size());
      continue;
    }
    const size_t bytes = 1 + random.bits() % (size_t{3} << 20) / (1 + random.bits() % 64);
    const bool zeroed = random.bits() % 2 == 0;
    uint8_t* data = static_cast<uint8_t*>(heap.take(bytes, zeroed));
    if (data == nullptr) return -1;
    if (reinterpret_cast<uintptr_t>(data) % 128 != 0 || (zeroed && !all_are(data, bytes, 0))) wrong++;
    const uint8_t mark = static_cast<uint8_t>(1 + random.bits() % 255);
    std::memset(data, mark, bytes);
    blocks.push_back({data, bytes, mark});
  }
  while (!blocks.empty()) give(blocks.size() - 1);
  return wrong;
}

}  // namespace

TEST("huge heap keeps blocks apart, zeroes what was used, and gives regions back") {
  kvasir::HugeHeap heap;
  const int wrong = live(heap, 3, 1500);
  if (wrong < 0) return;
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(heap.regions(), size_t{0});
}

TEST("huge heap serves several threads") {
  kvasir::HugeHeap heap;
  int wrong[3] = {};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 3; t++) threads.emplace_back([&, t] { wrong[t] = std::max(0, live(heap, 20 + t, 200)); });
  for (std::thread& t : threads) t.join();
  for (int w : wrong) EXPECT_EQ(w, 0);
  EXPECT_EQ(heap.regions(), size_t{0});
}

TEST("huge heap keeps free pages up to a limit, takes them first, and gives them back") {
  constexpr size_t kMiB = size_t{1} << 20, kBlock = 3 * kMiB;
  kvasir::HugeHeap heap;
  void* first = heap.take(kBlock, false);
  if (first == nullptr) return;
  heap.keep(16 * kMiB);
  void* second = heap.take(kBlock, false);
  std::memset(first, 7, kBlock), std::memset(second, 7, kBlock);
  // The page that both have a part of stays in use.
  heap.give(first, kBlock);
  EXPECT_EQ(heap.kept(), 2 * kMiB);
  heap.give(second, kBlock);
  EXPECT_EQ(heap.kept(), 6 * kMiB);
  EXPECT_EQ(heap.regions(), size_t{1});
  // A hole of the right size elsewhere does not matter where pages would have to be found.
  uint8_t* again = static_cast<uint8_t*>(heap.take(2 * kBlock, true));
  EXPECT(again == first);
  EXPECT_EQ(heap.kept(), size_t{0});
  EXPECT(all_are(again, 2 * kBlock, 0));
  void* large = heap.take(20 * kMiB, false);
  heap.give(large, 20 * kMiB);  // more than may be kept
  EXPECT_EQ(heap.kept(), size_t{0});
  heap.give(again, 2 * kBlock);
  EXPECT_EQ(heap.kept(), 6 * kMiB);
  heap.keep(0);
  EXPECT_EQ(heap.kept(), size_t{0});
  EXPECT_EQ(heap.regions(), size_t{0});
}

TEST("huge heap that keeps pages keeps blocks apart and within its limit") {
  constexpr size_t kLimit = size_t{24} << 20;
  kvasir::HugeHeap heap;
  heap.keep(kLimit);
  for (uint32_t seed : {5u, 6u}) {
    const int wrong = live(heap, seed, 1500);
    if (wrong < 0) return;
    EXPECT_EQ(wrong, 0);
    EXPECT(heap.kept() <= kLimit && heap.kept() > 0);
  }
  heap.keep(0);
  EXPECT_EQ(heap.regions(), size_t{0});
}

TEST("huge heap: what is too large for a region is refused, what fills it is not") {
  kvasir::HugeHeap heap;
  EXPECT(heap.take((size_t{32} << 20) + 1, false) == nullptr);
  void* whole = heap.take(size_t{32} << 20, true);
  if (whole == nullptr) return;
  void* more = heap.take(1, true);
  EXPECT_EQ(heap.regions(), size_t{2});
  heap.give(whole, size_t{32} << 20);
  EXPECT_EQ(heap.regions(), size_t{1});
  heap.give(more, 1);
  EXPECT_EQ(heap.regions(), size_t{0});
}

TEST("aligned memory of any size is aligned, zeroed where asked, and its own") {
  std::vector<Block> blocks;
  const size_t kib = size_t{1} << 10, mib = size_t{1} << 20;
  uint8_t mark = 0;
  for (size_t bytes : {size_t{0}, size_t{1}, 255 * kib, 256 * kib - 1, 256 * kib, mib + 7, 4 * mib - 1, 4 * mib, 5 * mib}) {
    for (bool zeroed : {false, true, true}) {
      uint8_t* data = static_cast<uint8_t*>(zeroed ? kvasir::aligned_zeroed(bytes) : kvasir::aligned_allocate(bytes));
      EXPECT(data != nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, uintptr_t{0});
      if (zeroed) EXPECT(all_are(data, bytes, 0));
      std::memset(data, ++mark, bytes);
      blocks.push_back({data, bytes, mark});
      if (mark % 3 != 0) continue;
      // What is used again is not zero by itself.
      EXPECT(all_are(blocks.back().data, bytes, mark));
      kvasir::aligned_free(blocks.back().data);
      blocks.pop_back();
    }
  }
  for (const Block& b : blocks) EXPECT(all_are(b.data, b.bytes, b.mark));
  for (const Block& b : blocks) kvasir::aligned_free(b.data);
}
