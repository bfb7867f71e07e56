#define KVASIR_VEC_BYTES 64
#include <immintrin.h>

#include "byte_kernels_body.h"
#include "isa.h"

namespace kvasir {
namespace {

// The intrinsic gets a broadcast of its own from gcc 12.
inline void multiply_add(__m512i& sum, __m512i bytes, const int8_t* four) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(bytes), "m"(*reinterpret_cast<const int32_t*>(four)));
}

// 2 R sums and two vectors of the panel fill the registers.
template <int32_t R>
inline void dot_tile(float* out, const ByteTerms& rows, int32_t first, const uint8_t* panel, const float* column_scales,
                     int32_t units) {
  const size_t width = static_cast<size_t>(units) * 4;
  const int8_t* codes = rows.codes + static_cast<size_t>(first) * width;
  __m512i sums[R][2];
#pragma GCC unroll 16
  for (int32_t r = 0; r < R; r++) sums[r][0] = sums[r][1] = _mm512_set1_epi32(rows.shifts[first + r]);
  for (int32_t u = 0; u < units; u++) {
    const __m512i a = _mm512_loadu_si512(panel + static_cast<size_t>(u) * 128);
    const __m512i b = _mm512_loadu_si512(panel + static_cast<size_t>(u) * 128 + 64);
#pragma GCC unroll 16
    for (int32_t r = 0; r < R; r++) {
      const int8_t* four = codes + static_cast<size_t>(r) * width + static_cast<size_t>(u) * 4;
      multiply_add(sums[r][0], a, four);
      multiply_add(sums[r][1], b, four);
    }
  }
#pragma GCC unroll 2
  for (int32_t v = 0; v < 2; v++) {
    const __m512 columns = _mm512_loadu_ps(column_scales + v * 16);
#pragma GCC unroll 16
    for (int32_t r = 0; r < R; r++) {
      const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(rows.scales[first + r]), columns);
      const __m512 score = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sums[r][v]), _mm512_set1_ps(rows.bases[first + r]));
      _mm512_storeu_ps(out + static_cast<size_t>(first + r) * kPanelRows + static_cast<size_t>(v) * 16, score);
    }
  }
}

void dot_bytes(float* out, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* column_scales, int32_t units) {
  int32_t r = 0;
  for (; r + 12 <= count; r += 12) dot_tile<12>(out, rows, r, panel, column_scales, units);
  for (; r < count; r++) dot_tile<1>(out, rows, r, panel, column_scales, units);
}

}  // namespace

const ByteKernels kBytesAvx512 = {dot_bytes, best_of_rows};

}  // namespace kvasir
