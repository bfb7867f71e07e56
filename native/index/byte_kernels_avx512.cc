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

// put(row, half, scores) gets the products. 2 R sums and two vectors of the panel fill the registers.
template <int32_t R, class Put>
inline void multiply_tile(const Put& put, const ByteTerms& rows, int32_t first, const uint8_t* panel, const float* column_scales,
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
  const __m512 low = _mm512_loadu_ps(column_scales), high = _mm512_loadu_ps(column_scales + 16);
#pragma GCC unroll 16
  for (int32_t r = 0; r < R; r++) {
    const __m512 scale = _mm512_set1_ps(rows.scales[first + r]), base = _mm512_set1_ps(rows.bases[first + r]);
    put(first + r, _mm512_fmadd_ps(_mm512_mul_ps(scale, low), _mm512_cvtepi32_ps(sums[r][0]), base),
        _mm512_fmadd_ps(_mm512_mul_ps(scale, high), _mm512_cvtepi32_ps(sums[r][1]), base));
  }
}

template <class Put>
void multiply(const Put& put, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* column_scales, int32_t units) {
  int32_t r = 0;
  for (; r + 12 <= count; r += 12) multiply_tile<12>(put, rows, r, panel, column_scales, units);
  for (; r + 4 <= count; r += 4) multiply_tile<4>(put, rows, r, panel, column_scales, units);
  for (; r < count; r++) multiply_tile<1>(put, rows, r, panel, column_scales, units);
}

void dot_bytes(float* out, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* column_scales, int32_t units) {
  const auto put = [out](int32_t row, __m512 low, __m512 high) {
    _mm512_storeu_ps(out + static_cast<size_t>(row) * kPanelRows, low);
    _mm512_storeu_ps(out + static_cast<size_t>(row) * kPanelRows + 16, high);
  };
  multiply(put, rows, count, panel, column_scales, units);
}

// Without a branch, as about every second row of a panel lets some pass. What is compressed is stored whole, and what is not counted
// overwritten by the next.
void above_bytes(const BytePassed& passed, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* column_scales,
                 int32_t units) {
  const auto put = [&passed](int32_t row, __m512 low, __m512 high) {
    const size_t r = static_cast<size_t>(row);
    const __m512 bar = _mm512_set1_ps(passed.thresholds[r]);
    const __mmask16 a = _mm512_cmp_ps_mask(low, bar, _CMP_GE_OQ), b = _mm512_cmp_ps_mask(high, bar, _CMP_GE_OQ);
    const uint32_t mask = static_cast<uint32_t>(a) | static_cast<uint32_t>(b) << 16;
    float* kept = passed.scores + r * passed.room + static_cast<size_t>(passed.counts[r]);
    _mm512_storeu_ps(kept, _mm512_maskz_compress_ps(a, low));
    _mm512_storeu_ps(kept + __builtin_popcount(a), _mm512_maskz_compress_ps(b, high));
    passed.masks[r * passed.stride] = mask;
    passed.counts[r] += __builtin_popcount(mask);
  };
  multiply(put, rows, count, panel, column_scales, units);
}

}  // namespace

const ByteKernels kBytesAvx512 = {pack_columns, dot_bytes, above_bytes, best_of_rows};

}  // namespace kvasir
