// 4 floats in plain C++ (the vector extension of gcc and clang: SSE2, NEON or scalar code), for the range core.
// Same names and meanings as attention_vec512.h; no prefill core, so no integers.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace kvasir {
namespace {

struct VecPortable {
  typedef float F __attribute__((vector_size(16)));
  typedef int32_t I __attribute__((vector_size(16)));
  static constexpr int kWidth = 4;
  static constexpr int kRegisters = 16;
  static constexpr bool kIntegers = false;

  static F zero() { return F{}; }
  static F set(float x) { return F{x, x, x, x}; }
  static F load(const float* p) {
    F x;
    std::memcpy(&x, p, sizeof x);
    return x;
  }
  static void store(float* p, F x) { std::memcpy(p, &x, sizeof x); }
  // The bits as a float of another exponent bias, multiplied back: exact, subnormals too; then infinities.
  static F load_f16(const uint16_t* p) {
    typedef uint16_t H __attribute__((vector_size(8)));
    H half;
    std::memcpy(&half, p, sizeof half);
    const I bits = __builtin_convertvector(half, I), magnitude = (bits & 0x7fff) << 13;
    const I value = (I)((F)magnitude * 0x1p112f);
    return (F)(value | ((magnitude >= 0x0f800000) & 0x7f800000) | (bits & 0x8000) << 16);
  }
  static F load_i8(const int8_t* p) { return F{float(p[0]), float(p[1]), float(p[2]), float(p[3])}; }
  static void store_f16(uint16_t* p, F x) {
    for (int i = 0; i < 4; i++) p[i] = float_to_half(x[i]);
  }
  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F mul(F a, F b) { return a * b; }
  static F div(F a, F b) { return a / b; }
  static F fma(F a, F b, F c) { return a * b + c; }
  static void add_product_at(F& sum, F a, const float* b) { sum = a * load(b) + sum; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F abs(F a) { return a < 0.0f ? -a : a; }
  static float sum(F a) { return (a[0] + a[2]) + (a[1] + a[3]); }
  static float max_lane(F a) {
    const float x = a[0] > a[1] ? a[0] : a[1], y = a[2] > a[3] ? a[2] : a[3];
    return x > y ? x : y;
  }
  static F quad(F a, F b, F c, F d) { return F{sum(a), sum(b), sum(c), sum(d)}; }
  static F join(const F (&quads)[1]) { return quads[0]; }
  static F exp2(F x) {
    F y;
    for (int i = 0; i < 4; i++) y[i] = std::exp2(x[i]);
    return y;
  }
  static I round(F x) {
    I y;
    for (int i = 0; i < 4; i++) y[i] = static_cast<int32_t>(std::lrint(x[i]));
    return y;
  }
  static void store_i8(int8_t* p, I x) {
    for (int i = 0; i < 4; i++) p[i] = static_cast<int8_t>(x[i]);
  }

 private:
  // Nearest, ties to even; beyond 65504 infinite.
  static uint16_t float_to_half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (bits < 0x38800000u) {  // subnormal: in units of 2^-24; adding 0.5 lets the float unit round
      float a;
      std::memcpy(&a, &bits, 4);
      a += 0.5f;
      std::memcpy(&bits, &a, 4);
      return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
    }
    const uint32_t odd = bits >> 13 & 1;
    return static_cast<uint16_t>(sign | ((bits + 0xc8000fffu + odd) >> 13));
  }
};

}  // namespace
}  // namespace kvasir
