// Asking for a line of memory before it is read.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

// Locality: 3 to L1, 2 to L2. gcc takes a function that only prefetches for one without effects, and drops the calls of it (measured: 12.2,
// where it is not inlined early); the empty statement is an effect.
template <int Locality = 3>
inline void prefetch_line(const void* line) {
  __builtin_prefetch(line, 0, Locality);
  asm volatile("");
}

// All lines of `bytes` from there on.
template <int Locality = 3>
inline void prefetch_lines(const void* from, size_t bytes) {
  const char* at = static_cast<const char*>(from);
  const char* const end = at + bytes;
  for (at -= reinterpret_cast<uintptr_t>(at) % 64; at < end; at += 64) prefetch_line<Locality>(at);
}

}  // namespace kvasir
