// Scans of 4-bit codes as logits; nibble_scan_avx512.h does the work.
#include <vector>

#include "isa.h"
#include "nibble_scan_avx512.h"
// The vector first.
#include "nibble_kernels_body.h"
#include "nibble_encode_avx512.h"

namespace kvasir {
namespace {

// 16 keys as floats from each half: keys 8t + 4h + r are lane 4t + r of half h.
inline void store_logits(float* out, __m512 first, __m512 second, const uint16_t* errors, float bound) {
  const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  const __m512d a = _mm512_castps_pd(first), b = _mm512_castps_pd(second);
  __m512 x[2] = {_mm512_castpd_ps(_mm512_permutex2var_pd(a, low, b)), _mm512_castpd_ps(_mm512_permutex2var_pd(a, high, b))};
  for (int32_t half = 0; half < 2; half++) {
    if (errors != nullptr) {
      const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(errors + half * 16));
      const __m512 e = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
      x[half] = _mm512_fmadd_ps(e, _mm512_set1_ps(bound), x[half]);
    }
    _mm512_storeu_ps(out + half * 16, x[half]);
  }
}

// low: the second plane, or null.
template <int32_t G>
void scan_tile(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const CodeQuery* low, int32_t g0,
               const float* base, const uint8_t* block, const uint16_t* errors) {
  __m512 scores[G][2], rest[G][2];
  score_nibbles<G>(scores, shape, query, g0, block);
  if (low != nullptr) score_nibbles<G>(rest, shape, *low, g0, block);
  for (int32_t g = 0; g < G; g++) {
    for (int32_t half = 0; half < 2; half++) {
      if (low != nullptr) {
        scores[g][half] = _mm512_fmadd_ps(scores[g][half], _mm512_set1_ps(1 << kNibbleShift), rest[g][half]);
      }
      scores[g][half] = _mm512_fmadd_ps(scores[g][half], _mm512_set1_ps(query.factors[g0 + g]), _mm512_set1_ps(base[g0 + g]));
    }
    store_logits(out + static_cast<size_t>(g0 + g) * stride, scores[g][0], scores[g][1], errors, query.bounds[g0 + g]);
  }
}

void scan_nibbles(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* base,
                  const uint8_t* codes, const uint16_t* errors, int32_t blocks, const ScanAhead&) {
  CodeQuery planes[2] = {query, query};
  std::vector<int32_t> offsets;
  if (query.planes == 2) {
    // Each plane takes back its own offset: sums stay as small as the result.
    offsets.assign(static_cast<size_t>(2 * query.group * shape.bands), 0);
    for (int32_t row = 0; row < 2 * query.group; row++) {
      for (int32_t i = 0; i < shape.bands * kBand; i++) {
        offsets[static_cast<size_t>(row * shape.bands + i / kBand)] -=
            kNibbleOffset * query.rows[static_cast<size_t>(row) * query.row_bytes + static_cast<size_t>(i)];
      }
    }
    planes[0].offsets = offsets.data();
    planes[1].offsets = offsets.data() + query.group * shape.bands;
    planes[1].rows = query.rows + static_cast<size_t>(query.group) * query.row_bytes;
  }
  const CodeQuery* low = query.planes == 2 ? planes + 1 : nullptr;
  for (int32_t b = 0; b < blocks; b++, codes += shape.block_bytes, out += kBlockKeys) {
    const uint16_t* e = errors == nullptr ? nullptr : errors + static_cast<size_t>(b) * kBlockKeys;
    int32_t g = 0;
    for (; query.group - g >= 4; g += 4) scan_tile<4>(out, stride, shape, planes[0], low, g, base, codes, e);
    if (query.group - g == 3) scan_tile<3>(out, stride, shape, planes[0], low, g, base, codes, e);
    else if (query.group - g == 2) scan_tile<2>(out, stride, shape, planes[0], low, g, base, codes, e);
    else if (query.group - g == 1) scan_tile<1>(out, stride, shape, planes[0], low, g, base, codes, e);
  }
}

}  // namespace

const CodeKernels kNibblesAvx512 = {kNibbleOffset, kNibbleShift, add_code_rows, encode_nibbles_fast, encode_rotated,
                                     scan_nibbles, nullptr};

}  // namespace kvasir
