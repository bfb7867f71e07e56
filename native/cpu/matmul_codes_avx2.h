// Eight rows of one block (layout in weights.h) into registers, for each type; the AVX2 counterpart of
// matmul_codes_avx512.h, `half` being rows 0..7 or 8..15. Internal linkage: only files compiled for AVX2 may include
// it.
#pragma once
#include <cpuid.h>
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
  // As panel_layout() has them.
  static constexpr int kUnitBlocks = kSuper ? 8 : kMin ? 1 : 2;
  static constexpr int kHeaderBytes = kSuper ? 320 : 64;
  static constexpr int kBlockBytes = (T == KVASIR_IQ4_NL ? 4 : kBits) * 64;
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

// Byte 4 * row + i: unsigned code of column 4v + i of the half's rows, v = j + 4 * kHigh. Codes of low and high vectors share memory.
template <int T, bool kHigh>
inline __m256i code_vector(const uint8_t* p, int half, int j) {
  const int v = j + 4 * kHigh;
  const uint8_t* at = p + 32 * half;
  if constexpr (T == KVASIR_Q8_0) {
    return load256(at + 64 * v);
  } else if constexpr (T == KVASIR_Q3_K) {
    const __m256i low = _mm256_srl_epi16(load256(at + 64 * kHigh), _mm_cvtsi32_si128(2 * j));
    return add_where(_mm256_and_si256(low, _mm256_set1_epi8(3)), p + 128 + 8 * v + 4 * half, 4);
  } else {
    __m256i c = load256(at + 64 * j);
    if constexpr (kHigh) c = _mm256_srli_epi16(c, 4);
    c = _mm256_and_si256(c, _mm256_set1_epi8(15));
    if constexpr (T == KVASIR_IQ4_NL) {
      const __m256i table = _mm256_broadcastsi128_si256(
          _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15));  // values + 128
      c = _mm256_shuffle_epi8(table, c);
    }
    if constexpr (Traits<T>::kFifth) c = add_where(c, p + 256 + 8 * v + 4 * half, 16);
    if constexpr (T == KVASIR_Q6_K) {
      const __m256i top = load256(at + 256 + 64 * kHigh), bits = _mm256_set1_epi8(0x30);
      const __m256i moved = j < 2 ? _mm256_sll_epi16(top, _mm_cvtsi32_si128(4 - 2 * j)) : _mm256_srl_epi16(top, _mm_cvtsi32_si128(2 * j - 4));
      c = _mm256_or_si256(c, _mm256_and_si256(moved, bits));
    }
    return c;
  }
}

// Its even or odd bytes as 16 bits: columns 4v and 4v + 2, or 4v + 1 and 4v + 3.
template <int T, bool kHigh, bool kOdd>
inline __m256i code_words(const uint8_t* p, int half, int j) {
  if constexpr (Traits<T>::kBits == 4) {
    const __m256i c = load256(p + 32 * half + 64 * j);
    constexpr int kShift = 4 * kHigh + 8 * kOdd;
    if constexpr (kShift == 12) return _mm256_srli_epi16(c, kShift);
    return _mm256_and_si256(kShift == 0 ? c : _mm256_srli_epi16(c, kShift), _mm256_set1_epi16(15));
  }
  const __m256i c = code_vector<T, kHigh>(p, half, j);
  return kOdd ? _mm256_srli_epi16(c, 8) : _mm256_and_si256(c, _mm256_set1_epi16(255));
}

// All of them.
template <int T>
inline void load_codes(const uint8_t* p, int half, __m256i c[8]) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    c[j] = code_vector<T, false>(p, half, j);
    c[4 + j] = code_vector<T, true>(p, half, j);
  }
}

// The instruction's name needs gcc 11 or clang 12, and the binutils of their time.
#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define KVASIR_HAS_AVX_VNNI 1
#endif

inline bool cpu_has_avx_vnni() {
#if KVASIR_HAS_AVX_VNNI
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1 << 4);
#else
  return false;
#endif
}

// In assembly, as compilers add products to each other first, and spill sums for want of registers.
template <bool kVnni>
inline void dot(__m256i& sum, __m256i w, __m256i x) {
#if KVASIR_HAS_AVX_VNNI
  if constexpr (kVnni) {
    asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));
    return;
  }
#endif
  __m256i product;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(w), "x"(x));
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

// Sixteen integers as 16 bits, columns 0 2, 1 3 of each four: the order in which even and odd bytes of a code's lane meet them.
inline __m256i pack_paired(__m256i low, __m256i high) {
  const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  return _mm256_shuffle_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8), order);
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

// The same of sixteen numbers in memory.
template <bool kVnni>
inline void dot_at(__m256i& sum, __m256i x, const int16_t* w) {
  const __m256i& at = *reinterpret_cast<const __m256i*>(w);
#if KVASIR_HAS_AVX_VNNI
  if constexpr (kVnni) {
    asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(x), "m"(at));
    return;
  }
#endif
  __m256i product;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(x), "m"(at));
}

// Two neighbouring numbers in each 32-bit lane.
inline __m256i pair_at(const int16_t* q) {
  int32_t pair;
  __builtin_memcpy(&pair, q, 4);
  return _mm256_set1_epi32(pair);
}

}  // namespace
}  // namespace kvasir
