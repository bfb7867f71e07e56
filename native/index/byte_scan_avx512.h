// Products of int8 codes (code_kernels.h) and queries by vpdpbusd, half a block at a time: what scans of them share. Include from
// *_avx512.cc only.
#pragma once
#include <immintrin.h>

#include "code_kernels.h"
#include "dot_avx512.h"
#include "prefetch.h"

namespace kvasir {
namespace {

constexpr int32_t kShift = 7;

// Sums of the 4 partial sums of 16 keys, in order: key 4 * lane + j is lane `lane` of s[j].
inline __m512i sum_quads(__m512i s0, __m512i s1, __m512i s2, __m512i s3) {
  const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(s0, s1), _mm512_unpackhi_epi32(s0, s1));
  const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(s2, s3), _mm512_unpackhi_epi32(s2, s3));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

// How far from a block lies what is asked for while it is scanned.
struct Fetch {
  ptrdiff_t far, near;
};

// Two lines, those that are far by prefetches of locality L. Lines are asked for in the order in which they lie, whatever order they are
// read in: memory gives 86 % of what a plain loop gets from it so, 78 % in the other (Zen 5). A block's lines all at once: slower.
template <int L>
inline void fetch_lines(const uint8_t* at, const Fetch& fetch) {
  prefetch_line<L>(at + fetch.far);
  prefetch_line<L>(at + fetch.far + kLine);
  prefetch_line(at + fetch.near);
  prefetch_line(at + fetch.near + kLine);
}

// logits[g] = scaled integer scores of 16 keys of a block for heads g0 .. g0 + G. U: units of a key where that is known, as strides are
// constants then; else 0.
template <int32_t G, int32_t P, int32_t U, int L>
inline void score_half(__m512 (&logits)[G], const CodeShape& shape, const CodeQuery& query, int32_t g0, const uint8_t* block, int32_t half,
                       const Fetch& fetch) {
  const int32_t units = U == 0 ? shape.units : U, bands = U == 0 ? shape.bands : U / 2;
  const size_t line = static_cast<size_t>(units) * kLine;  // of one query, and of four keys
  const int8_t* const q = query.lines + static_cast<size_t>(g0) * line;
  const size_t plane = static_cast<size_t>(query.group) * line;
  const uint8_t* keys = block + static_cast<size_t>(half) * 4 * line;
  const uint8_t* const half_scales = block + 8 * line + half * kLine;
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) logits[g] = _mm512_setzero_ps();
#pragma GCC unroll 2
  for (int32_t band = 0; band < bands; band++) {
    __m512i sums[G][4];
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++)
#pragma GCC unroll 4
      for (int32_t j = 0; j < 4; j++) sums[g][j] = _mm512_setzero_si512();
    const bool two = band * 2 + 1 < units;
    const size_t at = static_cast<size_t>(band) * 2 * kLine;
    __m512i first[4], second[4];
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
      first[j] = _mm512_loadu_si512(keys + j * line + at);
      second[j] = two ? _mm512_loadu_si512(keys + j * line + at + kLine) : _mm512_setzero_si512();
      fetch_lines<L>(keys + 4 * at + j * 2 * kLine, fetch);
    }
#pragma GCC unroll 2
    for (int32_t p = 0; p < P; p++) {
#pragma GCC unroll 4
      for (int32_t g = 0; g < G; g++) {
        const int8_t* row = q + static_cast<size_t>(p) * plane + static_cast<size_t>(g) * line + at;
        const __m512i dims = _mm512_loadu_si512(row), more = two ? _mm512_loadu_si512(row + kLine) : dims;
#pragma GCC unroll 4
        for (int32_t j = 0; j < 4; j++) {
          if (p > 0) sums[g][j] = _mm512_slli_epi32(sums[g][j], kShift);
          add_products(sums[g][j], first[j], dims);
        }
        if (two) {
#pragma GCC unroll 4
          for (int32_t j = 0; j < 4; j++) add_products(sums[g][j], second[j], more);
        }
      }
    }
    const uint8_t* const scales_at = half_scales + static_cast<size_t>(band / 2) * 2 * kLine;
    const __m512i pair = _mm512_loadu_si512(scales_at);
    prefetch_line<L>(scales_at + fetch.far);
    prefetch_line(scales_at + fetch.near);
    const __m512 scales = _mm512_castsi512_ps(band % 2 == 0 ? _mm512_slli_epi32(pair, 16)
                                                            : _mm512_and_si512(pair, _mm512_set1_epi32(-65536)));
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) {
      const __m512i sum = _mm512_add_epi32(sum_quads(sums[g][0], sums[g][1], sums[g][2], sums[g][3]),
                                           _mm512_set1_epi32(query.offsets[(g0 + g) * bands + band]));
      logits[g] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scales, logits[g]);
    }
  }
}

}  // namespace
}  // namespace kvasir
