#include <immintrin.h>

#include "isa.h"
#include "select_kernels_body.h"

namespace kvasir {
namespace {

int32_t count_masks(const float* scores, int32_t count, float threshold) {
  const __m512 t = _mm512_set1_ps(threshold);
  uint64_t a = 0, b = 0;
  for (int32_t i = 0; i < count; i += 32) {
    a += static_cast<uint64_t>(__builtin_popcount(_mm512_cmp_ps_mask(_mm512_loadu_ps(scores + i), t, _CMP_GE_OQ)));
    b += static_cast<uint64_t>(__builtin_popcount(_mm512_cmp_ps_mask(_mm512_loadu_ps(scores + i + 16), t, _CMP_GE_OQ)));
  }
  return static_cast<int32_t>(a + b);
}

// Compressed in registers and stored whole: a compressing store costs several times as much on some CPUs.
int32_t compress_masks(int32_t* ids, float* values, const float* scores, int32_t count, float threshold) {
  const __m512 t = _mm512_set1_ps(threshold);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int32_t found = 0;
  const auto put = [&](__m512 x, __mmask16 mask, int32_t at) {
    _mm512_storeu_si512(ids + found, _mm512_maskz_compress_epi32(mask, _mm512_add_epi32(lanes, _mm512_set1_epi32(at))));
    _mm512_storeu_ps(values + found, _mm512_maskz_compress_ps(mask, x));
    found += __builtin_popcount(mask);
  };
  for (int32_t i = 0; i < count; i += 32) {
    const __m512 x = _mm512_loadu_ps(scores + i), y = _mm512_loadu_ps(scores + i + 16);
    const __mmask16 a = _mm512_cmp_ps_mask(x, t, _CMP_GE_OQ), b = _mm512_cmp_ps_mask(y, t, _CMP_GE_OQ);
    if (_kortestz_mask16_u8(a, b)) continue;
    put(x, a, i);
    put(y, b, i + 16);
  }
  return found;
}

}  // namespace

const SelectKernels kSelectAvx512 = {max_score_cells, range_scores, count_masks, compress_masks, draw_score_noise, add_scores, rescore_any};

}  // namespace kvasir
