#include "huge_heap.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <iterator>

#ifdef __linux__
#include <sys/mman.h>
#endif

// Blocks next to each other would hide from the sanitizer what is read behind a block's end.
#if defined(MADV_HUGEPAGE) && !defined(__SANITIZE_ADDRESS__)
#define KVASIR_HUGE_HEAP 1
#endif

namespace kvasir {
namespace {

constexpr size_t kPair = 128;  // lines are fetched in pairs
[[maybe_unused]] constexpr size_t kHuge = size_t{2} << 20, kRegion = size_t{32} << 20;

[[maybe_unused]] size_t whole_pairs(size_t bytes) { return (bytes + kPair - 1) / kPair * kPair; }

#ifdef KVASIR_HUGE_HEAP
// A region at a huge page's border; null when memory is out.
uint8_t* map_region() {
  void* const raw = mmap(nullptr, kRegion + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  uint8_t* const begin = static_cast<uint8_t*>(raw);
  const size_t head = (kHuge - reinterpret_cast<uintptr_t>(begin) % kHuge) % kHuge;
  if (head > 0) munmap(begin, head);
  munmap(begin + head + kRegion, kHuge - head);
  madvise(begin + head, kRegion, MADV_HUGEPAGE);  // advice: refusal changes speed only
  return begin + head;
}

// Huge pages of a region that lie within [begin, end), a bit each.
uint32_t pages_within(const uint8_t* region, const uint8_t* begin, const uint8_t* end) {
  const size_t first = (static_cast<size_t>(begin - region) + kHuge - 1) / kHuge, last = static_cast<size_t>(end - region) / kHuge;
  return first < last ? (uint32_t{1} << last) - (uint32_t{1} << first) : 0;
}

// Those that a block at the begin of a hole, which ends at `end`, has a part of, but nobody else.
uint32_t pages_taken(const uint8_t* region, const uint8_t* data, size_t size, const uint8_t* end) {
  const size_t last = (static_cast<size_t>(data + size - region) + kHuge - 1) / kHuge;
  return pages_within(region, data, std::min(region + last * kHuge, end));
}

int count_pages(uint32_t pages) { return __builtin_popcount(pages); }
#endif

}  // namespace

HugeHeap& HugeHeap::shared() {
  static HugeHeap* const heap = new HugeHeap;
  return *heap;
}

size_t HugeHeap::regions() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return regions_.size();
}

size_t HugeHeap::kept() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return kept_;
}

#ifdef KVASIR_HUGE_HEAP

void* HugeHeap::take(size_t bytes, bool zeroed) {
  const size_t size = whole_pairs(bytes);
  if (size == 0 || size > kRegion) return nullptr;
  const std::lock_guard<std::mutex> lock(mutex_);
  Region* where = nullptr;
  size_t best = SIZE_MAX;
  int fewest = INT_MAX;  // pages that the system would have to find
  uint8_t* data = nullptr;
  for (auto& [address, region] : regions_) {
    for (const auto& [at, free] : region.unused) {
      if (free < size) continue;
      const int missing = count_pages(pages_taken(address, at, size, at + free) & ~region.kept);
      if (missing < fewest || (missing == fewest && free < best)) where = &region, best = free, data = at, fewest = missing;
    }
  }
  if (where == nullptr) {
    data = map_region();
    if (data == nullptr) return nullptr;
    where = &regions_[data];
    *where = {data, data, {}, 0};
    where->unused[data] = best = kRegion;
  }
  const uint32_t taken = pages_taken(where->data, data, size, data + best) & where->kept;
  where->kept &= ~taken;
  kept_ -= static_cast<size_t>(count_pages(taken)) * kHuge;
  where->unused.erase(data);
  if (best > size) where->unused[data + size] = best - size;
  if (zeroed && data < where->untouched) std::memset(data, 0, std::min(size, static_cast<size_t>(where->untouched - data)));
  where->untouched = std::max(where->untouched, data + size);
  return data;
}

void HugeHeap::give(void* data, size_t bytes) {
  uint8_t* begin = static_cast<uint8_t*>(data);
  uint8_t* end = begin + whole_pairs(bytes);
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = std::prev(regions_.upper_bound(begin));
  Region& region = found->second;
  // Pages that this block had a part of and that nobody has one of any more.
  const uint8_t* const first = begin - reinterpret_cast<uintptr_t>(begin) % kHuge;
  const uint8_t* const last = end + (kHuge - reinterpret_cast<uintptr_t>(end) % kHuge) % kHuge;
  const auto after = region.unused.lower_bound(begin);
  if (after != region.unused.begin() && std::prev(after)->first + std::prev(after)->second == begin) {
    begin = std::prev(after)->first;
    region.unused.erase(std::prev(after));
  }
  if (after != region.unused.end() && after->first == end) {
    end += after->second;
    region.unused.erase(after);
  }
  region.unused[begin] = static_cast<size_t>(end - begin);
  const uint32_t freed = pages_within(region.data, std::max<const uint8_t*>(first, begin), std::min<const uint8_t*>(last, end));
  region.kept |= freed;
  kept_ += static_cast<size_t>(count_pages(freed)) * kHuge;
  if (kept_ > most_) give_back(region, freed);
  if (region.kept == 0) forget_empty(found);
}

void HugeHeap::keep(size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  most_ = bytes;
  for (auto at = regions_.begin(); at != regions_.end() && kept_ > most_;) {
    give_back(at->second, at->second.kept);
    at = forget_empty(at);
  }
}

void HugeHeap::give_back(Region& region, uint32_t pages) {
  kept_ -= static_cast<size_t>(count_pages(pages)) * kHuge;
  region.kept &= ~pages;
  for (uint32_t left = pages; left != 0;) {
    const int first = __builtin_ctz(left), run = __builtin_ctz(~(left >> first));
    madvise(region.data + static_cast<size_t>(first) * kHuge, static_cast<size_t>(run) * kHuge, MADV_DONTNEED);
    left &= ~(((uint32_t{1} << run) - 1) << first);
  }
}

HugeHeap::Regions::iterator HugeHeap::forget_empty(Regions::iterator at) {
  if (at->second.unused.empty() || at->second.unused.begin()->second != kRegion) return std::next(at);
  munmap(at->second.data, kRegion);
  return regions_.erase(at);
}
#else

void* HugeHeap::take(size_t, bool) { return nullptr; }
void HugeHeap::give(void*, size_t) {}
void HugeHeap::keep(size_t) {}

#endif

}  // namespace kvasir
