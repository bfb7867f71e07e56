// precision=fast on AVX2: one block of 16 rows times x of 8 bits, for codes of at most 6 bits. They stay bytes, and an instruction does 32
// products in place of 16: vpmaddubsw, whose sums have 16 bits, or vpdpbusd. Both give the same whole numbers. Internal linkage: only files
// compiled for AVX2 may include it.
#pragma once
#include "matmul_codes_avx2.h"

namespace kvasir {
namespace {

// Vectors of codes whose sums fit 16 bits: 8 * 2 * 15 * 127, 2 * 2 * 63 * 127.
template <int T>
constexpr int kRun = Traits<T>::kBits <= 4 ? 8 / Traits<T>::kGroups : 2;

// Byte 4 * row + i: unsigned code of column 4v + i of the half's rows.
template <int T>
inline __m256i code_bytes(const uint8_t* p, int half, int v) {
  return v < 4 ? code_vector<T, false>(p, half, v) : code_vector<T, true>(p, half, v - 4);
}

// Sums of 32 bits, with vpdpbusd, or of 16. In assembly for the reasons that dot() has.
template <bool kVnni>
inline void dot_bytes(__m256i& sum, __m256i w, __m256i x) {
#if KVASIR_HAS_AVX_VNNI
  if constexpr (kVnni) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));
    return;
  }
#endif
  __m256i product;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(w), "x"(x));
}

inline void add_pairs(__m256i& sum, __m256i words) {
  __m256i product;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(words), "x"(_mm256_set1_epi16(1)));
}

// total[i][half] = whole sums of row i over group g.
template <int T, int N, bool kVnni>
inline void group_bytes(const uint8_t* codes, const StreamBlock* q, size_t stride, int g, __m256i (&total)[N][2]) {
  constexpr int kVectors = 8 / Traits<T>::kGroups, kLength = kVnni ? kVectors : kRun<T>;
#pragma GCC unroll 8
  for (int first = g * kVectors; first < (g + 1) * kVectors; first += kLength) {
    __m256i words[N][2];
#pragma GCC unroll 8
    for (int v = first; v < first + kLength; ++v) {
      const __m256i w[2] = {code_bytes<T>(codes, 0, v), code_bytes<T>(codes, 1, v)};
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const __m256i x = pair_at(q[static_cast<size_t>(i) * stride].q + 2 * v);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          if (kVnni && v == first) words[i][half] = _mm256_setzero_si256();
          if (!kVnni && v == first) {
            words[i][half] = _mm256_maddubs_epi16(w[half], x);
          } else {
            dot_bytes<kVnni>(words[i][half], w[half], x);
          }
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        if constexpr (kVnni) {
          total[i][half] = words[i][half];
        } else {
          if (first == g * kVectors) {
            total[i][half] = _mm256_madd_epi16(words[i][half], _mm256_set1_epi16(1));
          } else {
            add_pairs(total[i][half], words[i][half]);
          }
        }
      }
    }
  }
}

// Thirty-two integers of at most 127, in order.
inline __m256i pack_bytes(const __m256i integers[4]) {
  const __m256i low = _mm256_packs_epi32(integers[0], integers[1]), high = _mm256_packs_epi32(integers[2], integers[3]);
  return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

}  // namespace
}  // namespace kvasir
