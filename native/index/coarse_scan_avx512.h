// Logarithms of scores by the coarse plane of 4-bit codes (nibble_planes.h), 32 keys at a time, and what the fine plane adds to those
// of some keys. Include from *_avx512.cc only.
//
// Four bits of the plane are two dimensions of a key, so that what they add is looked up, 64 at a time, as product quantization does for
// its codes (Andre et al., "Cache locality is not enough", 2015), here by vpermb with 16 entries for each of a word's bytes. AMD's Zen 5
// does two of those and two additions of bytes a cycle beside two dot products: 8 instructions for 16 keys of 32 dimensions are done
// in the time of 4 of the 8 products that they replace. Intel does one a cycle, and as much in all.
//
// Ladder (sampled_attention_bench, one thread). Sapphire Rapids, its CPU time, d 64 x 3 heads, cold, against a plain read loop on huge
// pages: 87 % with chunks in small pages and keys 6 KB ahead in L1; slabs of huge pages (chunk_memory.h) 8.0 to 10.2 GB/s; 12 KB ahead
// in L2 11.2 GB/s, 92 to 105 %. Warm 23 GB/s. That was of whole codes; by the coarse plane 66 %, and 68 to 70 % with what is near brought
// on to L1. Bits taken apart by vgf2p8affineqb instead of shifts: no change. Zen 5, d 128 x 4 heads, from L1 and L2: 1.36 ns a key by
// products, 1.05 looked up; samples .92 to .94 (d 128, 256), bands as constants .98 of that. Loads of tables kept from being folded into
// both uses, one prefetch in place of two, other distances: no change.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "nibble_planes.h"
#include "nibble_scan_avx512.h"
#include "prefetch.h"
#include "sample_kernels.h"

namespace kvasir {
namespace {

// Table (plane word j, nibble h) of a band: entry 16 * i + n is what two dimensions, 16j + 8h + i and 4 behind it, add to a score where
// their codes are n & 3 and n >> 2, less 13/8 each. 63 at most, so that two entries are a byte.
constexpr int32_t kTablesOfBand = 4, kTableMost = 63;

// tables [bands][kTablesOfBand][64] of x [bands * 32]; what one unit of them stands for is returned.
float fill_tables(int8_t* tables, const float* x, int32_t bands) {
  float most = 0;
  for (int32_t at = 0; at < bands * kNibbleBand; at += 8) {
    for (int32_t i = at; i < at + 4; i++) most = std::max(most, std::fabs(x[i]) + std::fabs(x[i + 4]));
  }
  const float unit = most * (13.0f / 8 / kTableMost);
  if (!(unit > 1e-30f && unit < 1e30f)) {
    std::fill(tables, tables + bands * kTablesOfBand * kLine, int8_t{0});
    return 0;
  }
  const __m512i n = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512 per_unit = _mm512_set1_ps(1 / unit), middle = _mm512_set1_ps(-13.0f / 8);
  const __m512 low = _mm512_mul_ps(_mm512_add_ps(_mm512_cvtepi32_ps(_mm512_and_si512(n, _mm512_set1_epi32(3))), middle), per_unit);
  const __m512 high = _mm512_mul_ps(_mm512_add_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32(n, 2)), middle), per_unit);
  for (int32_t at = 0; at < bands * kNibbleBand; at += 8) {
    for (int32_t i = at; i < at + 4; i++, tables += 16) {
      const __m512 sum = _mm512_fmadd_ps(_mm512_set1_ps(x[i]), low, _mm512_mul_ps(_mm512_set1_ps(x[i + 4]), high));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(tables), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(sum)));
    }
  }
  return unit;
}

// sums[g][half] = scores of 16 keys of a coarse block for heads g0 .. g0 + G, in units of their tables.
template <int32_t G, int32_t B>
inline void score_coarse(__m512 (&sums)[G][2], const CodeShape& shape, const CodeQuery& query, int32_t g0, const uint8_t* block,
                         const uint8_t* far, const uint8_t* near) {
  const __m512i nibble = _mm512_set1_epi8(15), of_byte = _mm512_set1_epi32(0x30201000), one = _mm512_set1_epi8(1);
  const int32_t bands = B > 0 ? B : shape.bands;
  const size_t of_head = static_cast<size_t>(bands * kTablesOfBand * kLine);
  const int8_t* tables = query.tables + static_cast<size_t>(g0) * of_head;
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) sums[g][0] = sums[g][1] = _mm512_setzero_ps();
  const uint8_t* scales_at = block + bands * kCoarseBandBytes;
#pragma GCC unroll 2
  for (int32_t band = 0; band < bands; band++, tables += kTablesOfBand * kLine) {
    __m512i at[2][kTablesOfBand];
#pragma GCC unroll 2
    for (int32_t half = 0; half < 2; half++) {
#pragma GCC unroll 2
      for (int32_t j = 0; j < 2; j++, block += kLine, far += kLine, near += kLine) {
        const __m512i codes = _mm512_loadu_si512(block);
        _mm_prefetch(reinterpret_cast<const char*>(far), _MM_HINT_T1);
        _mm_prefetch(reinterpret_cast<const char*>(near), _MM_HINT_T0);
        // (codes & nibble) | of_byte
        at[half][2 * j] = _mm512_ternarylogic_epi32(codes, nibble, of_byte, 0xea);
        at[half][2 * j + 1] = _mm512_ternarylogic_epi32(_mm512_srli_epi16(codes, 4), nibble, of_byte, 0xea);
      }
    }
    __m512 scales[2];
#pragma GCC unroll 2
    for (int32_t half = 0; half < 2; half++) {
      const __m512i pair = _mm512_loadu_si512(scales_at + (band / 2) * 128 + half * 64);
      scales[half] = _mm512_castsi512_ps(band % 2 == 0 ? _mm512_slli_epi32(pair, 16) : _mm512_and_si512(pair, _mm512_set1_epi32(-65536)));
    }
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) {
      const int8_t* const of = tables + static_cast<size_t>(g) * of_head;
      __m512i table[kTablesOfBand];
#pragma GCC unroll 4
      for (int32_t t = 0; t < kTablesOfBand; t++) table[t] = _mm512_load_si512(of + t * kLine);
#pragma GCC unroll 2
      for (int32_t half = 0; half < 2; half++) {
        __m512i found[kTablesOfBand];
#pragma GCC unroll 4
        for (int32_t t = 0; t < kTablesOfBand; t++) found[t] = _mm512_permutexvar_epi8(at[half][t], table[t]);
        __m512i acc = _mm512_setzero_si512();
        add_products(acc, one, _mm512_add_epi8(found[0], found[1]));
        add_products(acc, one, _mm512_add_epi8(found[2], found[3]));
        sums[g][half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc), scales[half], sums[g][half]);
      }
    }
  }
  for (int32_t line = 0; line < (bands + 1) / 2 * 2; line++) {
    _mm_prefetch(reinterpret_cast<const char*>(far) + line * kLine, _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(near) + line * kLine, _MM_HINT_T0);
  }
}

// 32 logarithms of a block for head g of a tile, from what score_coarse gave.
inline __m512i to_logs(const __m512 (&scores)[2], __m512 gain, __m512 base) {
  return _mm512_max_epi16(_mm512_packs_epi32(_mm512_cvtps_epi32(_mm512_fmadd_ps(scores[0], gain, base)),
                                             _mm512_cvtps_epi32(_mm512_fmadd_ps(scores[1], gain, base))),
                          _mm512_set1_epi16(kLogLeast));
}

// Calls after(b, logs) for every block, logs [G] in registers.
template <int32_t G, int32_t B, class After>
inline void scan_logs(int16_t* out, size_t stride, const CodeShape& shape, const CodeQuery& query, int32_t g0,
                      const float* gains, const float* bases, const uint8_t* codes, int32_t blocks, const ScanAhead& ahead,
                      float* sums, After&& after) {
  __m512 totals[G];
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) totals[g] = _mm512_setzero_ps();
  for (int32_t b = 0; b < blocks; b++, codes += shape.block_bytes) {
    __m512 scores[G][2];
    score_coarse<G, B>(scores, shape, query, g0, codes, codes + ahead.from(codes, ahead.far),
                    codes + ahead.from(codes, ahead.near));
    __m512i logs[G];
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) {
      logs[g] = to_logs(scores[g], _mm512_set1_ps(gains[g0 + g]), _mm512_set1_ps(bases[g0 + g]));
      _mm512_storeu_si512(out + static_cast<size_t>(g0 + g) * stride + b * kNibbleBlock, logs[g]);
      // Odd scores carry the even ones below their seven bits of fraction: half a percent more at most.
      totals[g] = _mm512_add_ps(_mm512_add_ps(totals[g], _mm512_castsi512_ps(_mm512_slli_epi32(logs[g], 16))),
                                _mm512_castsi512_ps(logs[g]));
    }
    after(b, logs);
  }
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) sums[g0 + g] += _mm512_reduce_add_ps(totals[g]);
}

// Words [4] of rows of 16 bytes from `from` on, `row_bytes` apart: of row rows[i] in lane i. Loads and shuffles in
// place of vpgatherdd, which AMD takes apart word by word: .97 of a sample's time at d 256, no less where rows have 32 bytes.
inline void load_words(__m512i (&words)[4], const uint8_t* from, const int32_t* rows, size_t row_bytes) {
  const auto row = [&](size_t i) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + static_cast<size_t>(rows[i]) * row_bytes));
  };
  __m512i four[4];
#pragma GCC unroll 4
  for (size_t j = 0; j < 4; j++) {
    four[j] = _mm512_inserti32x4(_mm512_castsi128_si512(row(j)), row(4 + j), 1);
    four[j] = _mm512_inserti32x4(_mm512_inserti32x4(four[j], row(8 + j), 2), row(12 + j), 3);
  }
  const __m512i a = _mm512_unpacklo_epi32(four[0], four[1]), b = _mm512_unpacklo_epi32(four[2], four[3]);
  const __m512i c = _mm512_unpackhi_epi32(four[0], four[1]), d = _mm512_unpackhi_epi32(four[2], four[3]);
  words[0] = _mm512_unpacklo_epi64(a, b), words[1] = _mm512_unpackhi_epi64(a, b);
  words[2] = _mm512_unpacklo_epi64(c, d), words[3] = _mm512_unpackhi_epi64(c, d);
}

// sums[g] += what two words of a band's fine codes add to 16 candidates.
template <int32_t G>
inline void add_fine(__m512 (&sums)[G], __m512i first, __m512i second, __m512 scale, const CodeShape& shape, const CodeQuery& query,
                     int32_t g0, int32_t band) {
  const __m512i two = _mm512_set1_epi8(3);
  const int8_t* const q = query.rows + static_cast<size_t>(g0) * query.row_bytes + band * kNibbleBand;
  __m512i acc[G];
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) acc[g] = _mm512_set1_epi32(query.fine[(g0 + g) * shape.bands + band]);
#pragma GCC unroll 4
  for (int32_t t = 0; t < 4; t++) {
    const __m512i x = _mm512_and_si512(first, two), y = _mm512_and_si512(second, two);
    first = _mm512_srli_epi16(first, 2), second = _mm512_srli_epi16(second, 2);
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) {
      const int8_t* const dims = q + static_cast<size_t>(g) * query.row_bytes + t * 4;
      add_products(acc[g], x, four_dims(dims)), add_products(acc[g], y, four_dims(dims + 16));
    }
  }
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) sums[g] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[g]), scale, sums[g]);
}

// SampleKernels::refine for a group of G: 16 candidates at a time, a lane each.
template <int32_t G>
inline void refine_keys(int16_t* out, const Candidates& of, int32_t count, const CodeShape& shape, const CodeQuery& query, int32_t g0,
                        const float* gains, const uint8_t* codes, const uint8_t* fine) {
  const size_t row_bytes = static_cast<size_t>(shape.bands * kFineBandBytes);
  const __m512i block_bytes = _mm512_set1_epi32(static_cast<int32_t>(shape.block_bytes));
  const uint8_t* const scales = codes + shape.bands * kCoarseBandBytes;
  for (int32_t from = 0; from < count; from += 16) {
    // Rows came to some cache while the next chunk was scanned: those of the next sixteen to the first one.
    for (int32_t i = from + 16; i < std::min(from + 32, count); i++) {
      prefetch_line(fine + static_cast<size_t>(of.keys[i]) * row_bytes);
    }
    const __mmask16 some = static_cast<__mmask16>(count - from < 16 ? (1 << (count - from)) - 1 : 0xffff);
    const __m512i keys = _mm512_maskz_loadu_epi32(some, of.keys + from);
    int32_t last[16];  // the first row where there is none
    if (count - from < 16) _mm512_storeu_si512(last, keys);
    const int32_t* const rows = count - from < 16 ? last : of.keys + from;
    // As coarse_scale_at: key 8t + 4h + r is slot 4t + r of half h.
    const __m512i slot = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(keys, 1), _mm512_set1_epi32(12)),
                                         _mm512_and_si512(keys, _mm512_set1_epi32(3)));
    const __m512i half = _mm512_slli_epi32(_mm512_and_si512(keys, _mm512_set1_epi32(4)), 2);
    const __m512i scale_at = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32(keys, 5), block_bytes),
                                              _mm512_slli_epi32(_mm512_or_si512(half, slot), 2));
    __m512 sums[G];
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) sums[g] = _mm512_setzero_ps();
    for (int32_t band = 0; band < shape.bands; band += 2) {
      const uint8_t* const at = fine + band * kFineBandBytes;
      const __m512i pair = _mm512_mask_i32gather_epi32(keys, some, scale_at, scales + band / 2 * 128, 1);
      __m512i words[4];
      if (band + 1 < shape.bands) {
        load_words(words, at, rows, row_bytes);
      } else {
        const __m512i row = _mm512_mullo_epi32(keys, _mm512_set1_epi32(static_cast<int32_t>(row_bytes)));
        words[0] = _mm512_mask_i32gather_epi32(keys, some, row, at, 1), words[1] = _mm512_mask_i32gather_epi32(keys, some, row, at + 4, 1);
      }
      add_fine<G>(sums, words[0], words[1], _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)), shape, query, g0, band);
      if (band + 1 == shape.bands) break;
      const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(-65536)));
      add_fine<G>(sums, words[2], words[3], odd, shape, query, g0, band + 1);
    }
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) {
      const size_t at = static_cast<size_t>(g0 + g) * of.stride + static_cast<size_t>(from);
      const __m512i logs = _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(of.logs + at)));
      const __m512i more = _mm512_cvtps_epi32(_mm512_mul_ps(sums[g], _mm512_set1_ps(gains[g0 + g])));
      const __m256i refined = _mm512_cvtsepi32_epi16(_mm512_max_epi32(_mm512_add_epi32(logs, more), _mm512_set1_epi32(kLogLeast)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + at), refined);
    }
  }
}

}  // namespace
}  // namespace kvasir
