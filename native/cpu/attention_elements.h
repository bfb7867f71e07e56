// What the attention cores share: element types of caches, constants, the soft cap.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kvasir {
namespace {

constexpr float kLog2e = 1.44269504088896341f, kLn2 = 0.69314718055994531f;
constexpr float kNothing = -1e30f;  // a maximum over no keys; finite, so that differences are

template <class V>
struct ElementF32 {
  using T = float;
  static typename V::F load(const T* p) { return V::load(p); }
};
template <class V>
struct ElementF16 {
  using T = uint16_t;
  static typename V::F load(const T* p) { return V::load_f16(p); }
};
template <class V>
struct ElementI8 {
  using T = int8_t;
  static typename V::F load(const T* p) { return V::load_i8(p); }
};

constexpr int kTile = 64;  // keys scored between two updates of the maximum; row stride of scores and weights

// A row of d elements as floats, zeros up to width, a multiple of the vector.
template <class V, class E>
void widen_row(float* to, const typename E::T* from, size_t d, size_t width) {
  constexpr size_t W = V::kWidth;
  size_t c = 0;
  for (; c + W <= d; c += W) V::store(to + c, E::load(from + c));
  if (c < d) {
    typename E::T tail[W] = {};
    std::memcpy(tail, from + c, (d - c) * sizeof(typename E::T));
    V::store(to + c, E::load(tail));
    c += W;
  }
  for (; c < width; c += W) V::store(to + c, V::zero());
}

// Brings [next, end) to the cache in instalments. kLocality: 3 to L1, 2 to L2.
template <int kLocality>
struct Prefetch {
  const char* next;
  const char* end;
  size_t budget = 0;
  void advance(size_t bytes) {
    for (budget += bytes; budget >= 64; budget -= 64, next += 64) {
      if (next >= end) return;
      __builtin_prefetch(next, 0, kLocality);
    }
  }
  template <size_t kBytes>
  void advance() {
    if constexpr (kBytes % 64 != 0) return advance(kBytes);
    if (next + kBytes <= end) {
#pragma GCC unroll 16
      for (size_t line = 0; line < kBytes; line += 64) __builtin_prefetch(next + line, 0, kLocality);
      next += kBytes;
    } else {
      finish();
    }
  }
  void finish() {
    for (; next < end; next += 64) __builtin_prefetch(next, 0, kLocality);
  }
};

// Where what comes next is on its way already.
struct PrefetchNothing {
  void advance(size_t) {}
  template <size_t>
  void advance() {}
};

// limit · tanh(x / limit), by tanh(y) = 1 - 2 / (1 + e^2y).
template <class V>
typename V::F soft_cap(typename V::F x, float limit) {
  const auto bound = V::set(60.0f), zero = V::zero();
  const auto y = V::mul(x, V::set(2.0f * kLog2e / limit));
  const auto e = V::exp2(V::sub(zero, V::max(V::sub(zero, y), V::sub(zero, bound))));
  return V::mul(V::set(limit), V::sub(V::set(1.0f), V::div(V::set(2.0f), V::add(V::set(1.0f), e))));
}

}  // namespace
}  // namespace kvasir
