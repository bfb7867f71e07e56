// Scores of 4-bit codes by vpdpbusd, 32 keys at a time. Include from *_avx512.cc only.
#pragma once
#include <immintrin.h>

#include "code_kernels.h"
#include "dot_avx512.h"
#include "nibble_layout.h"

namespace kvasir {
namespace {

inline __m512i four_dims(const int8_t* q) {
  return _mm512_set1_epi32(*reinterpret_cast<const int32_t __attribute__((may_alias, aligned(1)))*>(q));
}

// sums[g][half] = scaled integer scores of 16 keys of a block for heads g0 .. g0 + G.
template <int32_t G>
inline void score_nibbles(__m512 (&sums)[G][2], const CodeShape& shape, const CodeQuery& query, int32_t g0,
                          const uint8_t* block) {
  const __m512i low = _mm512_set1_epi8(15);
  const int8_t* const q = query.rows + static_cast<size_t>(g0) * query.row_bytes;
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) sums[g][0] = sums[g][1] = _mm512_setzero_ps();
  const uint8_t* scales_at = block + shape.bands * kNibbleBandBytes;
  for (int32_t band = 0; band < shape.bands; band++, block += kNibbleBandBytes) {
    __m512i acc[G][2];
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) {
      acc[g][0] = acc[g][1] = _mm512_set1_epi32(query.offsets[(g0 + g) * shape.bands + band]);
    }
#pragma GCC unroll 4
    for (int32_t j = 0; j < 4; j++) {
      const __m512i first = _mm512_loadu_si512(block + j * 64), second = _mm512_loadu_si512(block + 256 + j * 64);
      const __m512i first_low = _mm512_and_si512(first, low), second_low = _mm512_and_si512(second, low);
      const __m512i first_high = _mm512_and_si512(_mm512_srli_epi16(first, 4), low);
      const __m512i second_high = _mm512_and_si512(_mm512_srli_epi16(second, 4), low);
#pragma GCC unroll 4
      for (int32_t g = 0; g < G; g++) {
        const int8_t* row = q + static_cast<size_t>(g) * query.row_bytes + band * kNibbleBand + j * 8;
        const __m512i q_low = four_dims(row), q_high = four_dims(row + 4);
        add_products(acc[g][0], first_low, q_low), add_products(acc[g][1], second_low, q_low);
        add_products(acc[g][0], first_high, q_high), add_products(acc[g][1], second_high, q_high);
      }
    }
#pragma GCC unroll 2
    for (int32_t half = 0; half < 2; half++) {
      const __m512i pair = _mm512_loadu_si512(scales_at + (band / 2) * 128 + half * 64);
      const __m512 scales = _mm512_castsi512_ps(band % 2 == 0 ? _mm512_slli_epi32(pair, 16)
                                                              : _mm512_and_si512(pair, _mm512_set1_epi32(-65536)));
#pragma GCC unroll 4
      for (int32_t g = 0; g < G; g++) {
        sums[g][half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[g][half]), scales, sums[g][half]);
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
