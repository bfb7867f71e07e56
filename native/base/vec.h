// Vectors of KVASIR_VEC_BYTES bytes by the compiler's vector extension (gcc and clang): one source for every
// instruction set, chosen by the flags of the file that includes it. Everything is in an unnamed namespace: a copy
// compiled for one set must never be linked in for another.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifndef KVASIR_VEC_BYTES
#error "define KVASIR_VEC_BYTES (16, 32 or 64) before including vec.h"
#endif

namespace kvasir {
namespace {

typedef float Floats __attribute__((vector_size(KVASIR_VEC_BYTES)));
typedef int32_t Ints __attribute__((vector_size(KVASIR_VEC_BYTES)));
typedef double Doubles __attribute__((vector_size(KVASIR_VEC_BYTES)));
typedef int64_t Longs __attribute__((vector_size(KVASIR_VEC_BYTES)));
typedef uint64_t Pairs __attribute__((vector_size(KVASIR_VEC_BYTES)));
typedef float HalfFloats __attribute__((vector_size(KVASIR_VEC_BYTES / 2)));

constexpr size_t kLanes = KVASIR_VEC_BYTES / sizeof(float);
constexpr size_t kDoubleLanes = KVASIR_VEC_BYTES / sizeof(double);

inline Floats all(float x) { return x - Floats{}; }
inline Doubles all_doubles(double x) { return x - Doubles{}; }

template <class V, class T>
inline V load_as(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Floats load(const float* p) { return load_as<Floats>(p); }
inline void store(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }

// The first `count` < kLanes lanes; the others are `rest`.
inline Floats load_some(const float* p, size_t count, float rest) {
  Floats v = all(rest);
  std::memcpy(&v, p, count * sizeof(float));
  return v;
}
inline void store_some(float* p, size_t count, Floats v) { std::memcpy(p, &v, count * sizeof(float)); }

// kDoubleLanes floats, widened.
inline Doubles load_doubles(const float* p) { return __builtin_convertvector(load_as<HalfFloats>(p), Doubles); }
inline Doubles load_some_doubles(const float* p, size_t count, float rest) {
  HalfFloats v = rest - HalfFloats{};
  std::memcpy(&v, p, count * sizeof(float));
  return __builtin_convertvector(v, Doubles);
}

inline double sum(Doubles v) {
  double total = 0;
  for (size_t i = 0; i < kDoubleLanes; i++) total += v[i];
  return total;
}

// exp(x), relative error 1e-7, for x in [-87, 88]; beyond, the value at that end; NaN stays NaN.
// 2^n * (1 + r + r^2 q(r)), x = n ln 2 + r, q of degree 4 fitted for least relative error on |r| <= ln(2)/2.
inline Floats exp_floats(Floats x) {
  Floats c = x > 88.0f ? all(88.0f) : x;
  c = c < -87.0f ? all(-87.0f) : c;
  const float magic = 0x1.8p23f;  // adding it leaves the rounded integer in the low bits
  const Floats shifted = c * 1.44269504f + magic;
  const Floats n = shifted - magic;
  Floats r = c - n * 0.693359375f;  // ln 2 in two parts, the first exact in 10 bits
  r = r - n * -2.12194440e-4f;
  Floats q = r * 0.001381459878757596f + 0.008368716575205326f;
  q = q * r + 0.04166838899254799f;
  q = q * r + 0.1666652113199234f;
  q = q * r + 0.4999999403953552f;
  const Floats y = q * (r * r) + r + 1.0f;
  const Floats scaled = (Floats)((Ints)y + ((Ints)shifted << 23));
  return x == x ? scaled : x;
}

// exp(x) for x <= 0, relative error a few 1e-16; 0 below -708; NaN stays NaN. Taylor to r^13 / 13!: 4e-18 of the value.
inline Doubles exp_doubles(Doubles x) {
  const Doubles c = x < -708.0 ? all_doubles(-708.0) : x;
  const double magic = 0x1.8p52;
  const Doubles shifted = c * 1.4426950408889634 + magic;
  const Doubles n = shifted - magic;
  Doubles r = c - n * 6.93147180369123816490e-01;
  r = r - n * 1.90821492927058770002e-10;
  Doubles q = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
  q = q * r + 1.0 / 39916800.0;
  q = q * r + 1.0 / 3628800.0;
  q = q * r + 1.0 / 362880.0;
  q = q * r + 1.0 / 40320.0;
  q = q * r + 1.0 / 5040.0;
  q = q * r + 1.0 / 720.0;
  q = q * r + 1.0 / 120.0;
  q = q * r + 1.0 / 24.0;
  q = q * r + 1.0 / 6.0;
  q = q * r + 0.5;
  const Doubles y = q * (r * r) + r + 1.0;
  const Doubles scaled = (Doubles)((Longs)y + ((Longs)shifted << 52));
  const Doubles flushed = x < -708.0 ? Doubles{} : scaled;
  return x == x ? flushed : x;
}

}  // namespace
}  // namespace kvasir
