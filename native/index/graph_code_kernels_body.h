// Bodies of those GraphKernels that score 4-bit codes; see graph_kernels.h. Included once per instruction set.
#pragma once
#include <cstring>

#include "graph_kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512VNNI__)
#include "dot_avx512.h"
#endif

namespace kvasir {
namespace {

#if defined(__AVX512VNNI__)
typedef __m512i CodeSums;
inline __m128i sum_four(__m512i a, __m512i b, __m512i c, __m512i d) {
  const auto half = [](__m512i v) { return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1)); };
  const __m256i two = _mm256_hadd_epi32(_mm256_hadd_epi32(half(a), half(b)), _mm256_hadd_epi32(half(c), half(d)));
  return _mm_add_epi32(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1));
}
#elif defined(__AVX2__)
typedef __m256i CodeSums;
inline __m128i sum_four(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i two = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
  return _mm_add_epi32(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1));
}
#endif

#if defined(__AVX2__)
// Four rows against G queries.
template <int32_t G>
inline void score_code_tile(float* out, size_t group, const GraphCodeTerms& terms, size_t g, const uint8_t* const* rows,
                            const float* scales, int32_t count) {
  CodeSums sums[G][4] = {};
  const int8_t* lines = terms.lines + g * 2 * terms.line_bytes;
#if defined(__AVX512VNNI__)
  const __m512i low = _mm512_set1_epi8(15);
  for (size_t at = 0; at < terms.row_bytes; at += 64) {
    const __mmask64 there = at + 64 <= terms.row_bytes ? ~__mmask64{0} : __mmask64{0xffffffff};
#pragma GCC unroll 4
    for (int32_t r = 0; r < 4; r++) {
      const __m512i both = _mm512_maskz_loadu_epi8(there, rows[r] + at);
      const __m512i lo = _mm512_and_si512(both, low), hi = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
#pragma GCC unroll 4
      for (int32_t i = 0; i < G; i++) {
        const int8_t* line = lines + static_cast<size_t>(i) * 2 * terms.line_bytes + at;
        add_products(sums[i][r], lo, _mm512_loadu_si512(line));
        add_products(sums[i][r], hi, _mm512_loadu_si512(line + terms.line_bytes));
      }
    }
  }
#else
  const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  for (size_t at = 0; at < terms.row_bytes; at += 32) {
#pragma GCC unroll 4
    for (int32_t r = 0; r < 4; r++) {
      const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[r] + at));
      const __m256i lo = _mm256_and_si256(both, low), hi = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
#pragma GCC unroll 4
      for (int32_t i = 0; i < G; i++) {
        const int8_t* line = lines + static_cast<size_t>(i) * 2 * terms.line_bytes + at;
        // At most 4 * 15 * 127: no saturation.
        const __m256i pairs = _mm256_add_epi16(
            _mm256_maddubs_epi16(lo, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line))),
            _mm256_maddubs_epi16(hi, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + terms.line_bytes))));
        sums[i][r] = _mm256_add_epi32(sums[i][r], _mm256_madd_epi16(pairs, ones));
      }
    }
  }
#endif
  const __m128 scale = _mm_loadu_ps(scales);
#pragma GCC unroll 4
  for (int32_t i = 0; i < G; i++) {
    const size_t at = g + static_cast<size_t>(i);
    const __m128i whole = _mm_add_epi32(sum_four(sums[i][0], sums[i][1], sums[i][2], sums[i][3]), _mm_set1_epi32(terms.offsets[at]));
    float four[4];
    _mm_storeu_ps(four, _mm_add_ps(_mm_set1_ps(terms.bases[at]),
                                   _mm_mul_ps(_mm_mul_ps(_mm_set1_ps(terms.factors[at]), scale), _mm_cvtepi32_ps(whole))));
    for (int32_t r = 0; r < count; r++) out[static_cast<size_t>(r) * group + at] = four[r];
  }
}

#if defined(__AVX512VNNI__)
// The sums of sixteen registers, in order.
inline __m512i sum_sixteen(const __m512i (&sums)[16]) {
  __m512i two[8], four[4];
#pragma GCC unroll 8
  for (int32_t i = 0; i < 8; i++) {
    two[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2 * i], sums[2 * i + 1]), _mm512_unpackhi_epi32(sums[2 * i], sums[2 * i + 1]));
  }
#pragma GCC unroll 4
  for (int32_t i = 0; i < 4; i++) {
    four[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(two[2 * i], two[2 * i + 1]), _mm512_unpackhi_epi64(two[2 * i], two[2 * i + 1]));
  }
  const auto halves = [](__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xee));
  };
  const __m512i x = halves(four[0], four[1]), y = halves(four[2], four[3]);
  return _mm512_add_epi32(_mm512_shuffle_i32x4(x, y, 0x88), _mm512_shuffle_i32x4(x, y, 0xdd));
}

// Sixteen rows of 32, 64, 128 … bytes against one query.
template <bool kHalf>
inline void score_sixteen(float* out, const GraphCodeTerms& terms, const uint8_t* const* rows, const float* scales) {
  const __m512i mask = _mm512_set1_epi8(15);
  __m512i sums[16] = {};
  if constexpr (kHalf) {
    // A row fills both halves of a register: low nibbles in one, high ones in the other.
    const __m512i line = _mm512_inserti64x4(_mm512_loadu_si512(terms.lines),
                                            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(terms.lines + terms.line_bytes)), 1);
    const __m512i shift = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
#pragma GCC unroll 16
    for (int32_t r = 0; r < 16; r++) {
      const __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[r])));
      add_products(sums[r], _mm512_and_si512(_mm512_srlv_epi16(both, shift), mask), line);
    }
  } else {
    for (size_t at = 0; at < terms.row_bytes; at += 64) {
      const __m512i low = _mm512_loadu_si512(terms.lines + at), high = _mm512_loadu_si512(terms.lines + terms.line_bytes + at);
#pragma GCC unroll 16
      for (int32_t r = 0; r < 16; r++) {
        const __m512i both = _mm512_loadu_si512(rows[r] + at);
        add_products(sums[r], _mm512_and_si512(both, mask), low);
        add_products(sums[r], _mm512_and_si512(_mm512_srli_epi16(both, 4), mask), high);
      }
    }
  }
  const __m512i all = sum_sixteen(sums);
  const __m512 whole = _mm512_cvtepi32_ps(_mm512_add_epi32(all, _mm512_set1_epi32(terms.offsets[0])));
  const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(terms.factors[0]), _mm512_loadu_ps(scales));
  _mm512_storeu_ps(out, _mm512_add_ps(_mm512_set1_ps(terms.bases[0]), _mm512_mul_ps(scale, whole)));
}
#endif

void score_code_rows(float* out, const GraphCodeTerms& terms, int32_t group, const uint8_t* const* rows, const float* scales,
                     int32_t count) {
  const size_t heads = static_cast<size_t>(group);
  int32_t r = 0;
#if defined(__AVX512VNNI__)
  for (; group == 1 && terms.row_bytes == 32 && r + 16 <= count; r += 16) score_sixteen<true>(out + r, terms, rows + r, scales + r);
  for (; group == 1 && terms.row_bytes % 64 == 0 && r + 16 <= count; r += 16) score_sixteen<false>(out + r, terms, rows + r, scales + r);
#endif
  for (; r < count; r += 4) {
    const int32_t some = count - r < 4 ? count - r : 4;
    const uint8_t* four[4];
    float scale[4];
    for (int32_t i = 0; i < 4; i++) four[i] = rows[r + (i < some ? i : 0)], scale[i] = scales[r + (i < some ? i : 0)];
    float* to = out + static_cast<size_t>(r) * heads;
    for (size_t g = 0; g < heads;) {
      switch (heads - g) {
        case 1: score_code_tile<1>(to, heads, terms, g, four, scale, some), g += 1; break;
        case 2: score_code_tile<2>(to, heads, terms, g, four, scale, some), g += 2; break;
        case 3: score_code_tile<3>(to, heads, terms, g, four, scale, some), g += 3; break;
        default: score_code_tile<4>(to, heads, terms, g, four, scale, some), g += 4;
      }
    }
  }
}
#else
void score_code_rows(float* out, const GraphCodeTerms& terms, int32_t group, const uint8_t* const* rows, const float* scales,
                     int32_t count) {
  for (int32_t r = 0; r < count; r++) {
    for (int32_t g = 0; g < group; g++) {
      const int8_t* line = terms.lines + static_cast<size_t>(g) * 2 * terms.line_bytes;
      int32_t sum = terms.offsets[g];
      for (size_t i = 0; i < terms.row_bytes; i++) sum += (rows[r][i] & 15) * line[i] + (rows[r][i] >> 4) * line[terms.line_bytes + i];
      out[static_cast<size_t>(r) * static_cast<size_t>(group) + static_cast<size_t>(g)] =
          terms.bases[g] + terms.factors[g] * scales[r] * static_cast<float>(sum);
    }
  }
}
#endif

#if defined(__AVX512VNNI__)
// Rows against G queries, so many at once that their sums are sixteen registers. A row's nibbles are taken apart once for all.
template <int32_t G, bool kHalf>
void score_apart(float* out, size_t stride, const GraphCodeTerms& terms, const uint8_t* const* rows, const float* scales,
                 int32_t count) {
  constexpr int32_t kEach = G == 2 ? 8 : 4;
  const __m512i mask = _mm512_set1_epi8(15);
  const __m512i shift = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
  const __m512i head_of = G == 2 ? _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)
                                 : _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const auto of_heads = [&](const void* numbers) {
    return _mm512_permutexvar_epi32(head_of, _mm512_maskz_loadu_epi32((1 << G) - 1, numbers));
  };
  const __m512i offsets = of_heads(terms.offsets);
  const __m512 factors = _mm512_castsi512_ps(of_heads(terms.factors)), bases = _mm512_castsi512_ps(of_heads(terms.bases));
  for (int32_t r = 0; r < count; r += kEach) {
    const int32_t some = count - r < kEach ? count - r : kEach;
    __m512i sums[16] = {};
    for (size_t at = 0; at < terms.row_bytes; at += 64) {
      const __mmask64 there = at + 64 <= terms.row_bytes ? ~__mmask64{0} : __mmask64{0xffffffff};
#pragma GCC unroll 8
      for (int32_t i = 0; i < kEach; i++) {
        const uint8_t* row = rows[r + (i < some ? i : 0)] + at;
        if constexpr (kHalf) {
          // A row fills both halves of a register: low nibbles in one, high ones in the other.
          const __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row)));
          const __m512i nibbles = _mm512_and_si512(_mm512_srlv_epi16(both, shift), mask);
#pragma GCC unroll 4
          for (int32_t g = 0; g < G; g++) {
            const int8_t* line = terms.lines + static_cast<size_t>(g) * 2 * terms.line_bytes;
            const __m512i q = _mm512_inserti64x4(_mm512_loadu_si512(line),
                                                 _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + terms.line_bytes)), 1);
            add_products(sums[g * kEach + i], nibbles, q);
          }
        } else {
          const __m512i both = _mm512_maskz_loadu_epi8(there, row);
          const __m512i low = _mm512_and_si512(both, mask), high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
#pragma GCC unroll 4
          for (int32_t g = 0; g < G; g++) {
            const int8_t* line = terms.lines + static_cast<size_t>(g) * 2 * terms.line_bytes + at;
            add_products(sums[g * kEach + i], low, _mm512_loadu_si512(line));
            add_products(sums[g * kEach + i], high, _mm512_loadu_si512(line + terms.line_bytes));
          }
        }
      }
    }
    const __m512 whole = _mm512_cvtepi32_ps(_mm512_add_epi32(sum_sixteen(sums), offsets));
    const __m512 scale = kEach == 8 ? _mm512_broadcast_f32x8(_mm256_maskz_loadu_ps((1 << some) - 1, scales + r))
                                    : _mm512_broadcast_f32x4(_mm_maskz_loadu_ps((1 << some) - 1, scales + r));
    float all[16];
    _mm512_storeu_ps(all, _mm512_add_ps(bases, _mm512_mul_ps(_mm512_mul_ps(factors, scale), whole)));
    if (some == kEach) {
#pragma GCC unroll 4
      for (int32_t g = 0; g < G; g++) std::memcpy(out + static_cast<size_t>(g) * stride + r, all + g * kEach, kEach * sizeof(float));
    } else {
      for (int32_t g = 0; g < G; g++) {
        for (int32_t i = 0; i < some; i++) out[static_cast<size_t>(g) * stride + static_cast<size_t>(r + i)] = all[g * kEach + i];
      }
    }
  }
}

template <int32_t G>
void score_heads_apart(float* out, size_t stride, const GraphCodeTerms& terms, const uint8_t* const* rows, const float* scales,
                       int32_t count) {
  if (terms.row_bytes == 32) score_apart<G, true>(out, stride, terms, rows, scales, count);
  else score_apart<G, false>(out, stride, terms, rows, scales, count);
}
#endif

void score_code_heads(float* out, size_t stride, const GraphCodeTerms& terms, int32_t group, const uint8_t* const* rows,
                      const float* scales, int32_t count) {
  for (int32_t g = 0; g < group;) {
    const GraphCodeTerms own = {terms.lines + static_cast<size_t>(g) * 2 * terms.line_bytes, terms.line_bytes, terms.row_bytes,
                                terms.offsets + g, terms.factors + g, terms.bases + g};
    float* to = out + static_cast<size_t>(g) * stride;
#if defined(__AVX512VNNI__)
    switch (group - g) {
      case 1: break;
      case 2: score_heads_apart<2>(to, stride, own, rows, scales, count), g += 2; continue;
      case 3: score_heads_apart<3>(to, stride, own, rows, scales, count), g += 3; continue;
      default: score_heads_apart<4>(to, stride, own, rows, scales, count), g += 4; continue;
    }
#endif
    score_code_rows(to, own, 1, rows, scales, count);
    g++;
  }
}

}  // namespace
}  // namespace kvasir
