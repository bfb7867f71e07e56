#define KVASIR_VEC_BYTES 32
#include <immintrin.h>

#include "byte_kernels_body.h"
#include "isa.h"

namespace kvasir {
namespace {

// vpmaddubsw would saturate: even and odd bytes are widened to 16 bits, which all rows of a tile share.
template <int32_t R>
inline void dot_tile(float* out, const ByteTerms& rows, int32_t first, const uint8_t* panel, const float* column_scales,
                     int32_t units) {
  const size_t width = static_cast<size_t>(units) * 4;
  const __m256i low = _mm256_set1_epi16(0xff);
  for (int32_t v = 0; v < kPanelRows; v += 8) {
    __m256i sums[R];
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; r++) sums[r] = _mm256_set1_epi32(rows.shifts[first + r]);
    for (int32_t u = 0; u < units; u++) {
      const __m256i bytes =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + (static_cast<size_t>(u) * kPanelRows + static_cast<size_t>(v)) * 4));
      const __m256i even = _mm256_and_si256(bytes, low), odd = _mm256_srli_epi16(bytes, 8);
#pragma GCC unroll 8
      for (int32_t r = 0; r < R; r++) {
        const int8_t* q = rows.codes + static_cast<size_t>(first + r) * width + static_cast<size_t>(u) * 4;
        const int32_t evens = (q[0] & 0xffff) | q[2] * 65536, odds = (q[1] & 0xffff) | q[3] * 65536;
        sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(even, _mm256_set1_epi32(evens)));
        sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(odd, _mm256_set1_epi32(odds)));
      }
    }
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; r++) {
      const __m256 scale = _mm256_mul_ps(_mm256_set1_ps(rows.scales[first + r]), _mm256_loadu_ps(column_scales + v));
      const __m256 score = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sums[r]), _mm256_set1_ps(rows.bases[first + r]));
      _mm256_storeu_ps(out + static_cast<size_t>(first + r) * kPanelRows + static_cast<size_t>(v), score);
    }
  }
}

void dot_bytes(float* out, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* column_scales, int32_t units) {
  int32_t r = 0;
  for (; r + 4 <= count; r += 4) dot_tile<4>(out, rows, r, panel, column_scales, units);
  for (; r < count; r++) dot_tile<1>(out, rows, r, panel, column_scales, units);
}

void above_bytes(const BytePassed& passed, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* column_scales,
                 int32_t units) {
  pass_products(dot_bytes, passed, rows, count, panel, column_scales, units);
}

}  // namespace

const ByteKernels kBytesAvx2 = {pack_columns, dot_bytes, above_bytes, best_of_rows};

}  // namespace kvasir
