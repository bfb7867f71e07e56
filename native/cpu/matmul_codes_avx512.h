// One block (16 rows × 32 columns, layout in weights.h) into registers, for each type: codes as bytes, scales as
// floats. Internal linkage throughout: only files compiled for AVX-512 may include it.
#pragma once
#include <immintrin.h>

#include "matmul.h"

namespace kvasir {
namespace {

template <int T>
struct Traits {
  static constexpr bool kSuper = T == KVASIR_Q3_K || T == KVASIR_Q4_K || T == KVASIR_Q5_K || T == KVASIR_Q6_K;
  static constexpr bool kMin = T == KVASIR_Q4_1 || T == KVASIR_Q5_1 || T == KVASIR_Q4_K || T == KVASIR_Q5_K;
  static constexpr int kGroups = T == KVASIR_Q3_K || T == KVASIR_Q6_K ? 2 : 1;  // scales per block
  static constexpr int kOffset = T == KVASIR_Q4_0                         ? 8
                                 : T == KVASIR_Q5_0                       ? 16
                                 : T == KVASIR_Q6_K                       ? 32
                                 : T == KVASIR_Q3_K                       ? 4
                                 : T == KVASIR_Q8_0 || T == KVASIR_IQ4_NL ? 128
                                                                          : 0;
  static constexpr int kBits = T == KVASIR_Q3_K                                           ? 3
                               : T == KVASIR_Q6_K                                         ? 6
                               : T == KVASIR_Q8_0 || T == KVASIR_IQ4_NL                   ? 8
                               : T == KVASIR_Q5_0 || T == KVASIR_Q5_1 || T == KVASIR_Q5_K ? 5
                                                                                          : 4;
  static constexpr int kUnitBlocks = kSuper ? 8 : kMin ? 1 : 2;
  static constexpr int kHeader = kSuper ? 320 : 64;
  static constexpr int kBlock = T == KVASIR_Q8_0                                           ? 512
                                : T == KVASIR_Q3_K                                         ? 192
                                : T == KVASIR_Q6_K                                         ? 384
                                : T == KVASIR_Q5_0 || T == KVASIR_Q5_1 || T == KVASIR_Q5_K ? 320
                                                                                           : 256;
};

inline __m512i load512(const void* p) { return _mm512_load_si512(p); }

// c[v], byte 4 * row + i: unsigned code of column 4v + i.
template <int T>
inline void load_codes(const uint8_t* p, __m512i c[8]) {
  if constexpr (T == KVASIR_Q8_0) {
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) c[v] = load512(p + 64 * v);
    return;
  } else if constexpr (T == KVASIR_Q3_K) {
    const __m512i three = _mm512_set1_epi8(3), four = _mm512_set1_epi8(4);
    __mmask64 m[8];
    __builtin_memcpy(m, p + 128, 64);
#pragma GCC unroll 2
    for (int t = 0; t < 2; ++t) {
      const __m512i v = load512(p + 64 * t);
      c[4 * t] = _mm512_and_si512(v, three);
      c[4 * t + 1] = _mm512_and_si512(_mm512_srli_epi16(v, 2), three);
      c[4 * t + 2] = _mm512_and_si512(_mm512_srli_epi16(v, 4), three);
      c[4 * t + 3] = _mm512_and_si512(_mm512_srli_epi16(v, 6), three);
    }
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) c[v] = _mm512_mask_add_epi8(c[v], m[v], c[v], four);
    return;
  } else {
    const __m512i fifteen = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i v = load512(p + 64 * j);
      c[j] = _mm512_and_si512(v, fifteen);
      c[4 + j] = _mm512_and_si512(_mm512_srli_epi16(v, 4), fifteen);
    }
    if constexpr (T == KVASIR_IQ4_NL) {
      const __m512i table = _mm512_broadcast_i32x4(
          _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));  // values + 128
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) c[v] = _mm512_shuffle_epi8(table, c[v]);
    }
    if constexpr (T == KVASIR_Q5_0 || T == KVASIR_Q5_1 || T == KVASIR_Q5_K) {
      const __m512i sixteen = _mm512_set1_epi8(16);
      __mmask64 m[8];
      __builtin_memcpy(m, p + 256, 64);
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) c[v] = _mm512_mask_add_epi8(c[v], m[v], c[v], sixteen);
    }
    if constexpr (T == KVASIR_Q6_K) {
      const __m512i top = _mm512_set1_epi8(0x30);
#pragma GCC unroll 2
      for (int t = 0; t < 2; ++t) {
        const __m512i v = load512(p + 256 + 64 * t);
        c[4 * t] = _mm512_or_si512(c[4 * t], _mm512_and_si512(_mm512_slli_epi16(v, 4), top));
        c[4 * t + 1] = _mm512_or_si512(c[4 * t + 1], _mm512_and_si512(_mm512_slli_epi16(v, 2), top));
        c[4 * t + 2] = _mm512_or_si512(c[4 * t + 2], _mm512_and_si512(v, top));
        c[4 * t + 3] = _mm512_or_si512(c[4 * t + 3], _mm512_and_si512(_mm512_srli_epi16(v, 2), top));
      }
    }
  }
}

inline __m512 load_half(const void* p) { return _mm512_cvtph_ps(_mm256_load_si256(static_cast<const __m256i*>(p))); }

// What a header says of block `b` of its unit: value = scale[group] * (code - offset) + min.
template <int T>
struct Scales {
  __m512 scale[Traits<T>::kGroups];
  __m512 min;
};
template <int T>
inline Scales<T> load_scales(const uint8_t* header, int b) {
  using A = Traits<T>;
  Scales<T> s;
  s.min = _mm512_setzero_ps();
  if constexpr (!A::kSuper) {
    s.scale[0] = load_half(header + 32 * b);
    if constexpr (A::kMin) s.min = load_half(header + 32);
  } else {
    const __m512 d = load_half(header);
    const uint8_t* area = header + 64 + 32 * b;
    const __m128i first = _mm_load_si128(reinterpret_cast<const __m128i*>(area));
    const __m128i second = _mm_load_si128(reinterpret_cast<const __m128i*>(area + 16));
    if constexpr (A::kMin) {
      s.scale[0] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(first)));
      s.min = _mm512_mul_ps(_mm512_sub_ps(_mm512_setzero_ps(), load_half(header + 32)),
                            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(second)));
    } else {
      s.scale[0] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(first)));
      s.scale[1] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(second)));
    }
  }
  return s;
}

}  // namespace
}  // namespace kvasir
