// Objects by 32-bit id: a slot and its generation, so that an id kept after its object ended is recognized. 0 is never one.
#pragma once
#include <cstdint>
#include <deque>
#include <utility>

#include "error.h"

namespace kvasir {

template <class T>
class Slots {
 public:
  Slots() : slots_(1) {}

  uint32_t add(T object) {
    uint32_t i;
    if (unused_.size() > kReuseDelay) {
      i = unused_.front();
      unused_.pop_front();
    } else {
      if (slots_.size() > kIndexMask) fail(KVASIR_MEMORY, "Cannot create: %u objects are live already", kIndexMask);
      i = static_cast<uint32_t>(slots_.size());
      slots_.emplace_back();
    }
    slots_[i].object = std::move(object);
    slots_[i].used = true;
    return slots_[i].generation << kIndexBits | i;
  }

  T& find(uint32_t id, const char* what) {
    const uint32_t i = id & kIndexMask;
    if (i == 0 || i >= slots_.size() || !slots_[i].used || slots_[i].generation != id >> kIndexBits) {
      fail(KVASIR_ARGUMENT, "Cannot use %s: id %u is stale or foreign", what, id);
    }
    return slots_[i].object;
  }

  void remove(uint32_t id, const char* what) {
    find(id, what) = T();
    Slot& s = slots_[id & kIndexMask];
    s.used = false;
    s.generation = (s.generation + 1) & ((1u << (32 - kIndexBits)) - 1);
    if (s.generation == 0) s.generation = 1;
    unused_.push_back(id & kIndexMask);
  }

 private:
  static constexpr int kIndexBits = 18;
  static constexpr uint32_t kIndexMask = (1u << kIndexBits) - 1;
  static constexpr size_t kReuseDelay = 64;
  struct Slot {
    T object{};
    uint32_t generation = 1;
    bool used = false;
  };
  std::deque<Slot> slots_;  // the first is never used
  std::deque<uint32_t> unused_;
};

}  // namespace kvasir
