#include "huge_heap.h"

#include <algorithm>
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

#ifdef KVASIR_HUGE_HEAP

void* HugeHeap::take(size_t bytes, bool zeroed) {
  const size_t size = whole_pairs(bytes);
  if (size == 0 || size > kRegion) return nullptr;
  const std::lock_guard<std::mutex> lock(mutex_);
  Region* where = nullptr;
  size_t best = SIZE_MAX;
  uint8_t* data = nullptr;
  for (auto& [address, region] : regions_) {
    for (const auto& [at, free] : region.unused) {
      if (free >= size && free < best) where = &region, best = free, data = at;
    }
  }
  if (where == nullptr) {
    data = map_region();
    if (data == nullptr) return nullptr;
    where = &regions_[data];
    where->data = where->untouched = data;
    where->unused[data] = best = kRegion;
  }
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
  uint8_t* first = begin - reinterpret_cast<uintptr_t>(begin) % kHuge;
  uint8_t* last = end + (kHuge - reinterpret_cast<uintptr_t>(end) % kHuge) % kHuge;
  const auto after = region.unused.lower_bound(begin);
  if (after != region.unused.begin() && std::prev(after)->first + std::prev(after)->second == begin) {
    begin = std::prev(after)->first;
    region.unused.erase(std::prev(after));
  }
  if (after != region.unused.end() && after->first == end) {
    end += after->second;
    region.unused.erase(after);
  }
  if (begin == region.data && end == begin + kRegion) {
    munmap(begin, kRegion);
    regions_.erase(found);
    return;
  }
  region.unused[begin] = static_cast<size_t>(end - begin);
  if (first < begin) first += kHuge;
  if (last > end) last -= kHuge;
  if (first < last) madvise(first, static_cast<size_t>(last - first), MADV_DONTNEED);
}

#else

void* HugeHeap::take(size_t, bool) { return nullptr; }
void HugeHeap::give(void*, size_t) {}

#endif

}  // namespace kvasir
