// Eight rows of one block (layout in weights.h) into registers, for each type; the AVX2 counterpart of
// matmul_codes_avx512.h, `half` being rows 0..7 or 8..15. Internal linkage: only files compiled for AVX2 may include
// it.
#pragma once
#include <immintrin.h>

#include "matmul.h"

namespace kvasir {
namespace {

template <int T>
struct Traits {
  static constexpr bool kSuper = T == KVASIR_Q3_K || T == KVASIR_Q4_K || T == KVASIR_Q5_K || T == KVASIR_Q6_K;
  static constexpr bool kMin = T == KVASIR_Q4_1 || T == KVASIR_Q5_1 || T == KVASIR_Q4_K || T == KVASIR_Q5_K;
  static constexpr bool kFifth = T == KVASIR_Q5_0 || T == KVASIR_Q5_1 || T == KVASIR_Q5_K;
  static constexpr int kBits = T == KVASIR_Q3_K                         ? 3
                               : T == KVASIR_Q6_K                       ? 6
                               : T == KVASIR_Q8_0 || T == KVASIR_IQ4_NL ? 8
                               : kFifth                                 ? 5
                                                                        : 4;
  static constexpr int kGroups = T == KVASIR_Q3_K || T == KVASIR_Q6_K ? 2 : 1;  // scales per block
  static constexpr int kOffset = T == KVASIR_Q4_0                         ? 8
                                 : T == KVASIR_Q5_0                       ? 16
                                 : T == KVASIR_Q6_K                       ? 32
                                 : T == KVASIR_Q3_K                       ? 4
                                 : T == KVASIR_Q8_0 || T == KVASIR_IQ4_NL ? 128
                                                                          : 0;
};

inline __m256i load256(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }

// Adds `value` to the bytes whose bits are set in the 32 bits at p.
inline __m256i add_where(__m256i codes, const uint8_t* p, char value) {
  int32_t bits;
  __builtin_memcpy(&bits, p, 4);
  const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i select = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i bytes = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread), select);
  return _mm256_add_epi8(codes, _mm256_and_si256(_mm256_cmpeq_epi8(bytes, select), _mm256_set1_epi8(value)));
}

// c[v], byte 4 * row + i: unsigned code of column 4v + i of the half's rows.
template <int T>
inline void load_codes(const uint8_t* p, int half, __m256i c[8]) {
  const uint8_t* at = p + 32 * half;
  if constexpr (T == KVASIR_Q8_0) {
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) c[v] = load256(at + 64 * v);
    return;
  } else if constexpr (T == KVASIR_Q3_K) {
    const __m256i three = _mm256_set1_epi8(3);
#pragma GCC unroll 2
    for (int t = 0; t < 2; ++t) {
      const __m256i v = load256(at + 64 * t);
      c[4 * t] = _mm256_and_si256(v, three);
      c[4 * t + 1] = _mm256_and_si256(_mm256_srli_epi16(v, 2), three);
      c[4 * t + 2] = _mm256_and_si256(_mm256_srli_epi16(v, 4), three);
      c[4 * t + 3] = _mm256_and_si256(_mm256_srli_epi16(v, 6), three);
    }
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) c[v] = add_where(c[v], p + 128 + 8 * v + 4 * half, 4);
    return;
  } else {
    const __m256i fifteen = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i v = load256(at + 64 * j);
      c[j] = _mm256_and_si256(v, fifteen);
      c[4 + j] = _mm256_and_si256(_mm256_srli_epi16(v, 4), fifteen);
    }
    if constexpr (T == KVASIR_IQ4_NL) {
      const __m256i table = _mm256_broadcastsi128_si256(
          _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));  // values + 128
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) c[v] = _mm256_shuffle_epi8(table, c[v]);
    }
    if constexpr (Traits<T>::kFifth) {
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) c[v] = add_where(c[v], p + 256 + 8 * v + 4 * half, 16);
    }
    if constexpr (T == KVASIR_Q6_K) {
      const __m256i top = _mm256_set1_epi8(0x30);
#pragma GCC unroll 2
      for (int t = 0; t < 2; ++t) {
        const __m256i v = load256(at + 256 + 64 * t);
        c[4 * t] = _mm256_or_si256(c[4 * t], _mm256_and_si256(_mm256_slli_epi16(v, 4), top));
        c[4 * t + 1] = _mm256_or_si256(c[4 * t + 1], _mm256_and_si256(_mm256_slli_epi16(v, 2), top));
        c[4 * t + 2] = _mm256_or_si256(c[4 * t + 2], _mm256_and_si256(v, top));
        c[4 * t + 3] = _mm256_or_si256(c[4 * t + 3], _mm256_and_si256(_mm256_srli_epi16(v, 2), top));
      }
    }
  }
}

inline __m256 load_half(const void* p) { return _mm256_cvtph_ps(_mm_load_si128(static_cast<const __m128i*>(p))); }

// value = scale[group] * (code - offset) + min
template <int T>
struct Scales {
  __m256 scale[Traits<T>::kGroups];
  __m256 min;
};
template <int T>
inline Scales<T> load_scales(const uint8_t* header, int b, int half) {
  using A = Traits<T>;
  Scales<T> s;
  s.min = _mm256_setzero_ps();
  if constexpr (!A::kSuper) {
    s.scale[0] = load_half(header + 32 * b + 16 * half);
    if constexpr (A::kMin) s.min = load_half(header + 32 + 16 * half);
  } else {
    const __m256 d = load_half(header + 16 * half);
    const uint8_t* area = header + 64 + 32 * b + 8 * half;
    const __m128i first = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(area));
    const __m128i second = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(area + 16));
    if constexpr (A::kMin) {
      s.scale[0] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(first)));
      s.min = _mm256_mul_ps(_mm256_sub_ps(_mm256_setzero_ps(), load_half(header + 32 + 16 * half)),
                            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(second)));
    } else {
      s.scale[0] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(first)));
      s.scale[1] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(second)));
    }
  }
  return s;
}

// Plain elements of eight rows of one column.
template <int T>
inline __m256 load_plain(const uint8_t* p, int half) {
  if constexpr (T == KVASIR_F32) return _mm256_load_ps(reinterpret_cast<const float*>(p) + 8 * half);
  const __m128i h = _mm_load_si128(reinterpret_cast<const __m128i*>(p + 16 * half));
  if constexpr (T == KVASIR_F16) return _mm256_cvtph_ps(h);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

inline __m256 abs256(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
inline float max_of(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}
inline float sum_of(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
// Lanes beyond `count` of eight are left alone by maskstore.
inline __m256i lane_mask(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

}  // namespace
}  // namespace kvasir
