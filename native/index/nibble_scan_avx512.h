// Scores of 4-bit codes by vpdpbusd, 32 keys at a time. Include from *_avx512.cc only.
//
// Ladder (Sapphire Rapids vCPU on a shared machine, one thread, its CPU time; sampled_attention_bench, 32,768 keys, d 64 x 3 heads,
// cold, against a plain read loop on huge pages): 87 % with chunks in small pages and keys 6 KB ahead in L1; slabs of huge pages
// (chunk_memory.h) 8.0 to 10.2 GB/s; 12 KB ahead in L2 11.2 GB/s, 92 to 105 %. Warm 23 GB/s.
#pragma once
#include <immintrin.h>

#include "code_kernels.h"
#include "nibble_layout.h"
#include "sample_kernels.h"

namespace kvasir {
namespace {

constexpr size_t kNibblesAhead = 12 * 1024;  // bytes that a scan prefetches ahead, to L2

// The intrinsic gets two register copies a use from gcc 12.
inline void add_nibbles(__m512i& sum, __m512i nibbles, __m512i q) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(nibbles), "v"(q));
}

inline __m512i four_dims(const int8_t* q) {
  return _mm512_set1_epi32(*reinterpret_cast<const int32_t __attribute__((may_alias, aligned(1)))*>(q));
}

// sums[g][half] = scaled integer scores of 16 keys of a block for heads g0 .. g0 + G.
template <int32_t G>
inline void score_nibbles(__m512 (&sums)[G][2], const CodeShape& shape, const CodeQuery& query, int32_t g0,
                          const uint8_t* block, const char* ahead) {
  const __m512i low = _mm512_set1_epi8(15);
  const int8_t* const q = query.rows + static_cast<size_t>(g0) * query.row_bytes;
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) sums[g][0] = sums[g][1] = _mm512_setzero_ps();
  const uint8_t* scales_at = block + shape.bands * kNibbleBandBytes;
  for (int32_t band = 0; band < shape.bands; band++, block += kNibbleBandBytes, ahead += kNibbleBandBytes) {
    __m512i acc[G][2];
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) {
      acc[g][0] = acc[g][1] = _mm512_set1_epi32(query.offsets[(g0 + g) * shape.bands + band]);
    }
#pragma GCC unroll 4
    for (int32_t j = 0; j < 4; j++) {
      const __m512i first = _mm512_loadu_si512(block + j * 64), second = _mm512_loadu_si512(block + 256 + j * 64);
      _mm_prefetch(ahead + j * 64, _MM_HINT_T1);
      _mm_prefetch(ahead + 256 + j * 64, _MM_HINT_T1);
      const __m512i first_low = _mm512_and_si512(first, low), second_low = _mm512_and_si512(second, low);
      const __m512i first_high = _mm512_and_si512(_mm512_srli_epi16(first, 4), low);
      const __m512i second_high = _mm512_and_si512(_mm512_srli_epi16(second, 4), low);
#pragma GCC unroll 4
      for (int32_t g = 0; g < G; g++) {
        const int8_t* row = q + static_cast<size_t>(g) * query.row_bytes + band * kNibbleBand + j * 8;
        const __m512i q_low = four_dims(row), q_high = four_dims(row + 4);
        add_nibbles(acc[g][0], first_low, q_low), add_nibbles(acc[g][1], second_low, q_low);
        add_nibbles(acc[g][0], first_high, q_high), add_nibbles(acc[g][1], second_high, q_high);
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
  for (int32_t pair = 0; pair < shape.pairs; pair++) {
    _mm_prefetch(ahead + pair * 128, _MM_HINT_T1);
    _mm_prefetch(ahead + pair * 128 + 64, _MM_HINT_T1);
  }
}

// 32 logarithms of a block for head g of a tile, from what score_nibbles gave.
inline __m512i to_logs(const __m512 (&scores)[2], __m512 gain, __m512 base) {
  return _mm512_max_epi16(_mm512_packs_epi32(_mm512_cvtps_epi32(_mm512_fmadd_ps(scores[0], gain, base)),
                                             _mm512_cvtps_epi32(_mm512_fmadd_ps(scores[1], gain, base))),
                          _mm512_set1_epi16(kLogLeast));
}

// Where a scan of `blocks` blocks finds what it prefetches while it is at block b.
struct NibblesAhead {
  int32_t distance, blocks;
  const uint8_t* end;
  const uint8_t* next;

  NibblesAhead(const CodeShape& shape, const uint8_t* codes, int32_t count, const uint8_t* behind)
      : distance(static_cast<int32_t>((kNibblesAhead + shape.block_bytes - 1) / shape.block_bytes)), blocks(count),
        end(codes + static_cast<size_t>(count) * shape.block_bytes), next(behind) {}
  const char* at(int32_t b, const uint8_t* block, size_t block_bytes) const {
    const uint8_t* ahead = block + static_cast<size_t>(distance) * block_bytes;
    if (b + distance >= blocks) ahead = next == nullptr ? block : next + (ahead - end);
    return reinterpret_cast<const char*>(ahead);
  }
};

// Calls after(b, logs) for every block, logs [G] in registers.
template <int32_t G, class After>
inline void scan_logs(int16_t* out, size_t stride, const CodeShape& shape, const CodeQuery& query, int32_t g0,
                      const float* gains, const float* bases, const uint8_t* codes, int32_t blocks, const uint8_t* next,
                      float* sums, After&& after) {
  __m512 totals[G];
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) totals[g] = _mm512_setzero_ps();
  const NibblesAhead ahead(shape, codes, blocks, next);
  for (int32_t b = 0; b < blocks; b++, codes += shape.block_bytes) {
    __m512 scores[G][2];
    score_nibbles<G>(scores, shape, query, g0, codes, ahead.at(b, codes, shape.block_bytes));
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

}  // namespace
}  // namespace kvasir
