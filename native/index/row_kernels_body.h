// Bodies of RowKernels; see row_kernels.h. Included once per instruction set, after its half conversion.
#pragma once
#include <cstring>

#include "half.h"
#include "row_kernels.h"

namespace kvasir {
namespace {

#if defined(__F16C__)
inline float widen_half(uint16_t h) { return static_cast<float>(_cvtsh_ss(h)); }
#else
inline float widen_half(uint16_t h) { return half_to_float(h); }
#endif

constexpr int32_t kDotLanes = 16;
typedef float DotLanes __attribute__((vector_size(4 * kDotLanes)));

template <class T>
inline void widen_lanes(float* out, const T* row) {
  for (int32_t i = 0; i < kDotLanes; i++) {
    if constexpr (sizeof(T) == 2) out[i] = widen_half(row[i]);
    else out[i] = static_cast<float>(row[i]);
  }
}
#if defined(__AVX512F__)
template <>
inline void widen_lanes<uint16_t>(float* out, const uint16_t* row) {
  _mm512_storeu_ps(out, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row))));
}
#elif defined(__F16C__)
template <>
inline void widen_lanes<uint16_t>(float* out, const uint16_t* row) {
  for (int32_t i = 0; i < kDotLanes; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + i))));
  }
}
#endif

inline float sum_dot_lanes(const DotLanes& v) {
#if defined(__AVX512F__)
  __m512 x;
  std::memcpy(&x, &v, sizeof x);
  return _mm512_reduce_add_ps(x);  // halves on halves, as below
#elif defined(__AVX2__)
  __m256 low, high;
  std::memcpy(&low, &v, sizeof low);
  std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
  low = _mm256_add_ps(low, high);
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(low), _mm256_extractf128_ps(low, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
#else
  float part[kDotLanes];
  std::memcpy(part, &v, sizeof v);
  for (int32_t n = kDotLanes / 2; n > 0; n /= 2) {
    for (int32_t i = 0; i < n; i++) part[i] += part[i + n];
  }
  return part[0];
#endif
}

template <int32_t G, class T>
inline void dot_tile(float* out, const float* q, const T* row, int32_t dim) {
  DotLanes sums[G];
#pragma GCC unroll 8
  for (int32_t g = 0; g < G; g++) sums[g] = DotLanes{};
  int32_t i = 0;
  for (; i + kDotLanes <= dim; i += kDotLanes) {
    float wide[kDotLanes];
    widen_lanes(wide, row + i);
    DotLanes k;
    std::memcpy(&k, wide, sizeof k);
#pragma GCC unroll 8
    for (int32_t g = 0; g < G; g++) {
      DotLanes x;
      std::memcpy(&x, q + static_cast<size_t>(g) * dim + i, sizeof x);
      sums[g] += x * k;
    }
  }
#pragma GCC unroll 8
  for (int32_t g = 0; g < G; g++) {
    float sum = sum_dot_lanes(sums[g]);
    for (int32_t j = i; j < dim; j++) {
      float k;
      if constexpr (sizeof(T) == 2) k = widen_half(row[j]);
      else k = static_cast<float>(row[j]);
      sum += q[static_cast<size_t>(g) * dim + j] * k;
    }
    out[g] = sum;
  }
}

template <class T>
void dot_rows(float* out, const float* q, const T* row, int32_t group, int32_t dim) {
  for (; group >= 4; group -= 4, out += 4, q += 4 * static_cast<size_t>(dim)) dot_tile<4>(out, q, row, dim);
  if (group == 3) dot_tile<3>(out, q, row, dim);
  else if (group == 2) dot_tile<2>(out, q, row, dim);
  else if (group == 1) dot_tile<1>(out, q, row, dim);
}

}  // namespace
}  // namespace kvasir
