// CUDA on the CPU, for tests: the kernels' own source compiled by the host's compiler. One fiber a thread, one block at a time;
// barriers and warp operations are where fibers change, in an order drawn from a seed. It catches faults of indices, of the
// protocol of shared memory, of masks and barriers; not speed, nor the order of memory between blocks.
//
// Reported as a fault, with the place, after which the device is lost:
//   a barrier that a thread of the block never reaches, or that two threads reach at different lines
//   a warp operation whose mask names a lane that left or waits elsewhere
//   writes outside of shared memory or of an allocation (guard zones); asynchronous copies nobody waited for
// Shared and fresh memory is filled with NaN, so that what is read before it is written shows in results.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  uint32_t x = 1, y = 1, z = 1;
  constexpr dim3(uint32_t x_ = 1, uint32_t y_ = 1, uint32_t z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

namespace kvasir {
namespace emulation {

struct Place {
  const char* file;
  int line;
};
#define KVASIR_HERE ::kvasir::emulation::Place at = {__builtin_FILE(), __builtin_LINE()}

struct Coordinates {
  dim3 thread, block, block_size, grid;
};
extern thread_local Coordinates* here __attribute__((tls_model("initial-exec")));

// Ends the running block and loses the device; the sentence names kernel, block and thread.
[[noreturn]] void fault(Place at, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Waits until all threads of the block are here.
void barrier(Place at);
// Waits until all lanes of mask are here; the last to come runs apply(args, mask, data) over what each brought (args by lane).
using Apply = void (*)(void* const* args, uint32_t mask);
void warp(uint32_t mask, void* arg, Apply apply, Place at);
// The same over `count` consecutive threads of the block from `first` on (several warps, all of them).
void group(uint32_t first, uint32_t count, void* arg, Apply apply, Place at);
// Memory of the block, one instance a `key`: the same to all its threads.
void* shared(const void* key, size_t bytes, Place at);
void* dynamic_shared();
// Copies when this thread waits: until then its destination holds NaN.
void copy_later(void* to, const void* from, size_t bytes, size_t zeros, Place at);
void copies_commit();
void copies_wait(int groups_left);

// Shared memory as copies and products see it. Addresses count from its beginning.
uint32_t shared_offset(const void* at);
// This thread wrote there what products read: they must not before it fenced its writes.
void note_write(const void* to, size_t bytes);
void fence_operands();
// Phases (mbarrier): complete when `count` arrivals were counted, over and over; waits until the phase of a parity is.
void phase_make(uint64_t* phase, uint32_t count);
void phase_arrive(uint64_t* phase, Place at);
// The same, and the phase is complete only when so many more bytes of copies have landed.
void phase_arrive_expecting(uint64_t* phase, uint32_t bytes, Place at);
void phase_wait(uint64_t* phase, uint32_t parity, Place at);
// Copies the box of a tensor map (tensor_map.h) at these coordinates, some time later, and counts its bytes on the phase.
void copy_box_later(void* to, const void* map, int32_t element, int32_t row, int32_t head, uint64_t* phase, Place at);
// Products of a warpgroup (wgmma), 64 rows, sums over 16: done when they are waited for.
struct AsyncProduct {
  float* d;            // [columns / 2]
  uint32_t columns;
  uint64_t a, b;       // descriptions
  uint32_t held[4];    // A, where it lies in registers
  bool is_a_held, is_b_transposed, adds;
  bool is_first = false;        // of those that add to d and have not been waited for
  std::vector<float> before{};  // d as it was
};
void products_begin();
void multiply_later(const AsyncProduct& product, Place at);
void products_commit();
void products_wait(int groups_left, Place at);

struct Grid {
  const char* name;
  dim3 grid, block;
  size_t shared;
  uint64_t seed;
};
// Runs all blocks. Returns null, or the sentence of a fault, valid until the next call of this thread.
const char* run(const Grid& grid, const std::function<void()>& kernel);

}  // namespace emulation
}  // namespace kvasir

#define threadIdx (::kvasir::emulation::here->thread)
#define blockIdx (::kvasir::emulation::here->block)
#define blockDim (::kvasir::emulation::here->block_size)
#define gridDim (::kvasir::emulation::here->grid)

inline void __syncthreads(KVASIR_HERE) { kvasir::emulation::barrier(at); }
inline void __syncwarp(uint32_t mask = ~0u, KVASIR_HERE) {
  kvasir::emulation::warp(mask, nullptr, [](void* const*, uint32_t) {}, at);
}

namespace kvasir {
namespace emulation {

template <class T>
struct Exchange {
  T value;
  uint32_t source, width;
  T result;
};
// source(lane, argument) gives the lane to take the value from, or the lane itself.
template <class T>
T exchange(uint32_t mask, T value, uint32_t source, Place at) {
  Exchange<T> mine = {value, source, 0, value};
  warp(mask, &mine, [](void* const* args, uint32_t set) {
    for (uint32_t lane = 0; lane < 32; lane++) {
      if ((set >> lane & 1) == 0) continue;
      auto& to = *static_cast<Exchange<T>*>(args[lane]);
      // A lane outside of the mask gives nothing that may be relied on.
      if ((set >> (to.source & 31) & 1) != 0) to.result = static_cast<Exchange<T>*>(args[to.source & 31])->value;
      else std::memset(static_cast<void*>(&to.result), 0xff, sizeof(T));
    }
  }, at);
  return mine.result;
}
template <class T, class F>
T reduce(uint32_t mask, T value, F&& fold, Place at) {
  struct Mine {
    T value;
    F* fold;
  } mine = {value, &fold};
  warp(mask, &mine, [](void* const* args, uint32_t set) {
    Mine* first = nullptr;
    for (uint32_t lane = 0; lane < 32; lane++) {
      if ((set >> lane & 1) == 0) continue;
      Mine* m = static_cast<Mine*>(args[lane]);
      if (first == nullptr) first = m;
      else first->value = (*m->fold)(first->value, m->value);
    }
    for (uint32_t lane = 0; lane < 32; lane++) {
      if ((set >> lane & 1) != 0) static_cast<Mine*>(args[lane])->value = first->value;
    }
  }, at);
  return mine.value;
}
inline uint32_t lane() {
  const Coordinates& c = *here;
  return (c.thread.x + c.block_size.x * (c.thread.y + c.block_size.y * c.thread.z)) & 31;
}

}  // namespace emulation
}  // namespace kvasir

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32, KVASIR_HERE) {
  const uint32_t lane = kvasir::emulation::lane(), base = lane & ~static_cast<uint32_t>(width - 1);
  return kvasir::emulation::exchange(mask, value, base + (static_cast<uint32_t>(source) & (width - 1)), at);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32, KVASIR_HERE) {
  const uint32_t lane = kvasir::emulation::lane(), from = lane ^ static_cast<uint32_t>(bits);
  const bool inside = from / static_cast<uint32_t>(width) <= lane / static_cast<uint32_t>(width);
  return kvasir::emulation::exchange(mask, value, inside ? from : lane, at);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, uint32_t delta, int width = 32, KVASIR_HERE) {
  const uint32_t lane = kvasir::emulation::lane(), in = lane & static_cast<uint32_t>(width - 1);
  return kvasir::emulation::exchange(mask, value, in + delta < static_cast<uint32_t>(width) ? lane + delta : lane, at);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, uint32_t delta, int width = 32, KVASIR_HERE) {
  const uint32_t lane = kvasir::emulation::lane(), in = lane & static_cast<uint32_t>(width - 1);
  return kvasir::emulation::exchange(mask, value, in >= delta ? lane - delta : lane, at);
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate, KVASIR_HERE) {
  const uint32_t bit = predicate != 0 ? 1u << kvasir::emulation::lane() : 0;
  return kvasir::emulation::reduce(mask, bit, [](uint32_t a, uint32_t b) { return a | b; }, at);
}
inline int __any_sync(uint32_t mask, int predicate, KVASIR_HERE) {
  return kvasir::emulation::reduce(mask, predicate != 0 ? 1 : 0, [](int a, int b) { return a | b; }, at);
}
inline int __all_sync(uint32_t mask, int predicate, KVASIR_HERE) {
  return kvasir::emulation::reduce(mask, predicate != 0 ? 1 : 0, [](int a, int b) { return a & b; }, at);
}

template <class T>
T atomicAdd(T* to, T value) {
  const T old = *to;
  *to = old + value;
  return old;
}
template <class T>
T atomicMax(T* to, T value) {
  const T old = *to;
  if (old < value) *to = value;
  return old;
}
template <class T>
T atomicMin(T* to, T value) {
  const T old = *to;
  if (value < old) *to = value;
  return old;
}
template <class T>
T atomicOr(T* to, T value) {
  const T old = *to;
  *to = old | value;
  return old;
}
template <class T>
T atomicExch(T* to, T value) {
  const T old = *to;
  *to = value;
  return old;
}
template <class T>
T atomicCAS(T* to, T expected, T value) {
  const T old = *to;
  if (old == expected) *to = value;
  return old;
}
inline void __threadfence() {}
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<uint32_t>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float __int_as_float(int x) { float f; std::memcpy(&f, &x, 4); return f; }
inline float __uint_as_float(uint32_t x) { float f; std::memcpy(&f, &x, 4); return f; }
inline uint32_t __float_as_uint(float x) { uint32_t u; std::memcpy(&u, &x, 4); return u; }
inline int __float_as_int(float x) { int u; std::memcpy(&u, &x, 4); return u; }
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
inline float __fdividef(float a, float b) { return a / b; }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t pick) {
  const uint64_t both = static_cast<uint64_t>(high) << 32 | low;
  uint32_t out = 0;
  for (int i = 0; i < 4; i++) {
    const uint32_t byte = static_cast<uint32_t>(both >> 8 * (pick >> 4 * i & 7)) & 0xff;
    // With the fourth bit set the byte is its own sign, eight times.
    out |= ((pick >> 4 * i & 8) == 0 ? byte : (byte & 0x80) != 0 ? 0xff : 0) << 8 * i;
  }
  return out;
}
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += static_cast<int8_t>(a >> 8 * i) * static_cast<int8_t>(b >> 8 * i);
  return c;
}
