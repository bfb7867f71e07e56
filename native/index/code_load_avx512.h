// Units of rows in registers, for the encoders of AVX-512.
#pragma once
#include <immintrin.h>

#include "code_kernels.h"

namespace kvasir {
namespace {

// Unit `unit` of a row as floats, without a row's scale; zeros behind its end.
template <class T>
inline __m512 load_unit(const T* row, int32_t dim, int32_t unit) {
  const int32_t left = dim - unit * kUnit;
  const __mmask16 mask = static_cast<__mmask16>(left >= kUnit ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
  const T* p = row + unit * kUnit;
  if constexpr (sizeof(T) == 4) return _mm512_maskz_loadu_ps(mask, p);
  else if constexpr (sizeof(T) == 2) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
  else return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, p)));
}

}  // namespace
}  // namespace kvasir
