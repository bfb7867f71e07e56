#include "draw.h"
#include "isa.h"
#include "nibble_scan_avx512.h"
#include "sample_kernels_body.h"

namespace kvasir {
namespace {

void scan_tiles(int16_t* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* gains,
                const float* bases, const uint8_t* codes, int32_t blocks, const uint8_t* next, float* sums) {
  // A group of more than four: a block at a time, so that it is read from memory once.
  const int32_t step = query.group <= 4 ? blocks : 1;
  for (int32_t b = 0; b < blocks; b += step) {
    const uint8_t* at = codes + static_cast<size_t>(b) * shape.block_bytes;
    const uint8_t* after = b + step < blocks ? at + shape.block_bytes : next;
    int16_t* to = out + b * kNibbleBlock;
    int32_t g = 0;
    for (; query.group - g >= 4; g += 4) scan_logs<4>(to, stride, shape, query, g, gains, bases, at, step, after, sums);
    if (query.group - g == 3) scan_logs<3>(to, stride, shape, query, g, gains, bases, at, step, after, sums);
    else if (query.group - g == 2) scan_logs<2>(to, stride, shape, query, g, gains, bases, at, step, after, sums);
    else if (query.group - g == 1) scan_logs<1>(to, stride, shape, query, g, gains, bases, at, step, after, sums);
  }
}

inline __m512i hash_lanes(__m512i x) {
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0x7feb352d));
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32(static_cast<int32_t>(0x846ca68bu)));
  return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}

// G: heads of the group, 0: any number.
template <int32_t G>
int32_t draw_group(int32_t* keys, int16_t* tops, const int16_t* logs, size_t stride, const int16_t* offsets, int32_t group,
                   int32_t block, int32_t blocks, uint32_t key) {
  constexpr int32_t kSome = 64;  // blocks whose survivors are listed before they are written
  const int32_t heads = G == 0 ? group : G;
  const __m512i mixed = _mm512_set1_epi32(static_cast<int32_t>(key)), low = _mm512_set1_epi32(0xffff);
  __m512i counter = _mm512_add_epi32(_mm512_set1_epi32(block * 16),
                                     _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  const __m256i lanes = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
                                         23, 24, 25, 26, 27, 28, 29, 30, 31);
  int32_t at[kSome + 1];
  uint32_t masks[kSome + 1];
  alignas(64) int16_t maxima[kSome + 1][kNibbleBlock];
  int32_t count = 0;
  for (int32_t from = 0; from < blocks; from += kSome) {
    const int32_t to = blocks - from < kSome ? blocks : from + kSome;
    int32_t listed = 0;
    for (int32_t b = from; b < to; b++) {
      __m512i top = _mm512_set1_epi16(kDrawLeast);
#pragma GCC unroll 4
      for (int32_t g = 0; g < heads; g++) {
        top = _mm512_max_epi16(top, _mm512_adds_epi16(_mm512_loadu_si512(logs + static_cast<size_t>(g) * stride + b * 32),
                                                      _mm512_set1_epi16(offsets[g])));
      }
      const __m512i hash = hash_lanes(_mm512_xor_si512(counter, mixed));
      counter = _mm512_add_epi32(counter, _mm512_set1_epi32(16));
      const __m512i even = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_and_si512(hash, low)));
      const __m512i odd = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_srli_epi32(hash, 16)));
      const __m512i uniform = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(even, 16), odd);
      const __mmask32 mask = _mm512_cmple_epi16_mask(uniform, top);
      // No branch: what is empty is written over.
      _mm512_store_si512(maxima[listed], top);
      at[listed] = b, masks[listed] = mask;
      listed += mask != 0;
    }
    for (int32_t i = 0; i < listed; i++) {
      const __mmask32 mask = masks[i];
      _mm512_storeu_si512(tops + count, _mm512_maskz_compress_epi16(mask, _mm512_load_si512(maxima[i])));
      const __m256i some = _mm256_maskz_compress_epi8(mask, lanes);
      const __m512i first = _mm512_set1_epi32(at[i] * 32);
      _mm512_storeu_si512(keys + count, _mm512_add_epi32(first, _mm512_cvtepu8_epi32(_mm256_castsi256_si128(some))));
      const int32_t found = __builtin_popcount(mask);
      if (found > 16) {
        _mm512_storeu_si512(keys + count + 16,
                            _mm512_add_epi32(first, _mm512_cvtepu8_epi32(_mm256_extracti128_si256(some, 1))));
      }
      count += found;
    }
  }
  return count;
}

int32_t draw_keys(int32_t* keys, int16_t* tops, const int16_t* logs, size_t stride, const int16_t* offsets, int32_t group,
                  int32_t block, int32_t blocks, uint32_t key) {
  switch (group) {
    case 1: return draw_group<1>(keys, tops, logs, stride, offsets, group, block, blocks, key);
    case 2: return draw_group<2>(keys, tops, logs, stride, offsets, group, block, blocks, key);
    case 3: return draw_group<3>(keys, tops, logs, stride, offsets, group, block, blocks, key);
    case 4: return draw_group<4>(keys, tops, logs, stride, offsets, group, block, blocks, key);
    default: return draw_group<0>(keys, tops, logs, stride, offsets, group, block, blocks, key);
  }
}

}  // namespace

const SampleKernels kSampleAvx512 = {scan_tiles, fold_scores, draw_keys};

}  // namespace kvasir
