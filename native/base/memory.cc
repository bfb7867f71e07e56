#include "memory.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "error.h"
#include "huge_heap.h"

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace kvasir {
namespace {

struct SharedMemory : kvasir_memory {
  std::atomic<int64_t> holds{1};
  std::shared_ptr<const void> holder;  // null: data is this object's own
};

void retain_shared(kvasir_memory* self) {
  static_cast<SharedMemory*>(self)->holds.fetch_add(1, std::memory_order_relaxed);
}

void release_shared(kvasir_memory* self) {
  SharedMemory* shared = static_cast<SharedMemory*>(self);
  if (shared->holds.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (shared->holder == nullptr) aligned_free(shared->data);
  delete shared;
}

// glibc raises the size from which blocks are mapped to that of the largest it has freed: a cache of 8 MB blocks, made and
// freed 200 times, kept 1.7 GB. With a fixed size, large blocks are mapped and go back at once.
void keep_large_blocks_mapped() {
#ifdef __GLIBC__
  static const bool once = mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1 && mallopt(M_TRIM_THRESHOLD, 16 << 20) == 1;
  static_cast<void>(once);
#endif
}

// What lies before a block's data: where its memory begins (null: it is of the huge heap), and then its size.
struct Before {
  size_t bytes;
  void* whole;
};

constexpr size_t kHuge = size_t{2} << 20;
// Blocks of that size share huge pages; larger ones have some of their own. A layer's keys of 512 tokens are 192 KB, its smallest
// matrices 70: with huge pages for them, too, a decode step of SmolLM2 takes .90 to .97 of its time, of eight short caches .88 to .97.
constexpr size_t kLeastShared = size_t{64} << 10;
constexpr size_t kLine = 64, kPair = 128;  // lines are fetched in pairs: rows of two should not need four

void* allocate_shared(size_t bytes, bool zeroed) {
  const size_t size = bytes + kPair;
  char* const whole = static_cast<char*>(HugeHeap::shared().take(size, zeroed));
  if (whole == nullptr) return nullptr;
  const Before before = {size, nullptr};
  std::memcpy(whole + kPair - sizeof before, &before, sizeof before);
  return whole + kPair;
}

bool is_shared(size_t bytes) { return bytes >= kLeastShared && bytes < 2 * kHuge; }

}  // namespace

void* aligned_allocate(size_t bytes) {
  keep_large_blocks_mapped();
  if (is_shared(bytes)) {
    if (void* data = allocate_shared(bytes, false)) return data;
  }
  // Huge pages pay where rows are read at random, which miss the address cache at every row without them.
  const bool huge = bytes >= 2 * kHuge;
  const size_t alignment = huge ? kHuge : kLine;
  if (bytes > SIZE_MAX - alignment - 128) return nullptr;
  const size_t size = bytes == 0 ? kLine : (bytes + kLine - 1) / kLine * kLine;
  // Aligned by hand: before glibc 2.38 a freed hole is too small for the next aligned block of the same size, which asks for
  // more than it keeps, and a server's caches leave a heap full of such holes.
  char* const whole = static_cast<char*>(std::malloc(size + alignment + sizeof(void*)));
  if (whole == nullptr) return nullptr;
  char* data = whole + sizeof(void*);
  data += (alignment - reinterpret_cast<uintptr_t>(data) % alignment) % alignment;
  std::memcpy(data - sizeof(void*), &whole, sizeof(void*));
#ifdef MADV_HUGEPAGE
  if (huge) madvise(data, size / kHuge * kHuge, MADV_HUGEPAGE);
#endif
  return data;
}

void* aligned_zeroed(size_t bytes) {
  if (is_shared(bytes)) {
    if (void* data = allocate_shared(bytes, true)) return data;
  }
  void* const data = aligned_allocate(bytes);
  if (data != nullptr) std::memset(data, 0, bytes);
  return data;
}

void aligned_free(void* data) {
  if (data == nullptr) return;
  void* whole;
  std::memcpy(&whole, static_cast<char*>(data) - sizeof(void*), sizeof(void*));
  if (whole != nullptr) return std::free(whole);
  Before before;
  std::memcpy(&before, static_cast<char*>(data) - sizeof before, sizeof before);
  HugeHeap::shared().give(static_cast<char*>(data) - kPair, before.bytes);
}

Scratch::~Scratch() { aligned_free(data_); }

void* Scratch::get(size_t bytes) {
  if (bytes <= bytes_ && data_ != nullptr) return data_;
  // Grown by half at least, so that slowly rising sizes do not reallocate at each call.
  const size_t size = bytes > bytes_ + bytes_ / 2 ? bytes : bytes_ + bytes_ / 2;
  aligned_free(data_);
  bytes_ = 0;
  data_ = aligned_allocate(size);
  if (data_ == nullptr) fail(KVASIR_MEMORY, "Cannot allocate scratch: out of memory for %zu bytes", size);
  bytes_ = size;
  return data_;
}

kvasir_memory* share_memory(void* data, size_t bytes) {
  SharedMemory* shared = new SharedMemory;
  shared->data = data;
  shared->bytes = bytes;
  shared->retain = retain_shared;
  shared->release = release_shared;
  return shared;
}

kvasir_memory* share_held(void* data, size_t bytes, std::shared_ptr<const void> holder) {
  kvasir_memory* made = share_memory(data, bytes);
  static_cast<SharedMemory*>(made)->holder = std::move(holder);
  return made;
}

}  // namespace kvasir
