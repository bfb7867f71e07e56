// Bodies of GraphKernels; see graph_kernels.h. Included once per instruction set, after vec.h.
#pragma once
#include "graph_kernels.h"
#include "half.h"
#include "kvasir_abi.h"
#include "vec.h"

#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace kvasir {
namespace {

typedef uint16_t Halves __attribute__((vector_size(KVASIR_VEC_BYTES / 2)));
typedef int8_t Bytes __attribute__((vector_size(KVASIR_VEC_BYTES / 4)));

inline Floats load_wide(const float* row) { return load(row); }
inline Floats load_wide(const uint16_t* row) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row)));
#elif defined(__F16C__)
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
#else
  Floats v;
  for (size_t i = 0; i < kLanes; i++) v[i] = half_to_float(row[i]);
  return v;
#endif
}
inline Floats load_wide(const int8_t* row) { return __builtin_convertvector(load_as<Bytes>(row), Floats); }

inline float widen_one(float x) { return x; }
inline float widen_one(uint16_t x) { return half_to_float(x); }
inline float widen_one(int8_t x) { return static_cast<float>(x); }

inline float sum_lanes(Floats v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#elif defined(__AVX2__)
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  const __m128 two = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  float total = 0;
  for (size_t i = 0; i < kLanes; i++) total += v[i];
  return total;
#endif
}

// Four sums at once.
inline void sum_four(float* out, Floats a, Floats b, Floats c, Floats d) {
#if defined(__AVX512F__)
  const auto half = [](Floats v) {
    return _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
  };
  const __m256 two = _mm256_hadd_ps(_mm256_hadd_ps(half(a), half(b)), _mm256_hadd_ps(half(c), half(d)));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1)));
#elif defined(__AVX2__)
  const __m256 two = _mm256_hadd_ps(_mm256_hadd_ps((__m256)a, (__m256)b), _mm256_hadd_ps((__m256)c, (__m256)d));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1)));
#else
  out[0] = sum_lanes(a), out[1] = sum_lanes(b), out[2] = sum_lanes(c), out[3] = sum_lanes(d);
#endif
}

// R rows against G queries: sums stay in registers.
template <int32_t R, int32_t G, class T>
inline void score_tile(float* out, int32_t group, const float* q, const void* const* rows, int32_t dim) {
  Floats sums[R][G];
#pragma GCC unroll 8
  for (int32_t r = 0; r < R; r++) {
#pragma GCC unroll 8
    for (int32_t g = 0; g < G; g++) sums[r][g] = Floats{};
  }
  int32_t i = 0;
  for (; i + static_cast<int32_t>(kLanes) <= dim; i += kLanes) {
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; r++) {
      const Floats k = load_wide(static_cast<const T*>(rows[r]) + i);
#pragma GCC unroll 8
      for (int32_t g = 0; g < G; g++) sums[r][g] += k * load(q + static_cast<size_t>(g) * static_cast<size_t>(dim) + i);
    }
  }
  float totals[R * G];
  if constexpr (R == 4 && G == 1) {
    sum_four(totals, sums[0][0], sums[1][0], sums[2][0], sums[3][0]);
  } else if constexpr (G == 4) {
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; r++) sum_four(totals + 4 * r, sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
  } else {
#pragma GCC unroll 8
    for (int32_t r = 0; r < R; r++) {
#pragma GCC unroll 8
      for (int32_t g = 0; g < G; g++) totals[r * G + g] = sum_lanes(sums[r][g]);
    }
  }
#pragma GCC unroll 8
  for (int32_t r = 0; r < R; r++) {
#pragma GCC unroll 8
    for (int32_t g = 0; g < G; g++) {
      float sum = totals[r * G + g];
      for (int32_t j = i; j < dim; j++) {
        sum += widen_one(static_cast<const T*>(rows[r])[j]) * q[static_cast<size_t>(g) * static_cast<size_t>(dim) + j];
      }
      out[static_cast<size_t>(r) * static_cast<size_t>(group) + g] = sum;
    }
  }
}

template <int32_t G, class T>
void score_group(float* out, int32_t group, const float* q, const void* const* rows, int32_t count, int32_t dim) {
  int32_t r = 0;
  if constexpr (G == 1) {
    for (; r + 4 <= count; r += 4) score_tile<4, G, T>(out + static_cast<size_t>(r) * group, group, q, rows + r, dim);
  }
  for (; r + 2 <= count; r += 2) score_tile<2, G, T>(out + static_cast<size_t>(r) * group, group, q, rows + r, dim);
  if (r < count) score_tile<1, G, T>(out + static_cast<size_t>(r) * group, group, q, rows + r, dim);
}

template <class T>
void score_type(float* out, const float* q, const void* const* rows, int32_t count, int32_t group, int32_t dim) {
  for (int32_t g = 0; g < group;) {
    const float* from = q + static_cast<size_t>(g) * static_cast<size_t>(dim);
    switch (group - g) {
      case 1: score_group<1, T>(out + g, group, from, rows, count, dim), g += 1; break;
      case 2: score_group<2, T>(out + g, group, from, rows, count, dim), g += 2; break;
      case 3: score_group<3, T>(out + g, group, from, rows, count, dim), g += 3; break;
      default: score_group<4, T>(out + g, group, from, rows, count, dim), g += 4;
    }
  }
}

void score_rows(float* out, const float* q, const void* const* rows, int32_t count, int32_t dtype, int32_t group, int32_t dim) {
  if (dtype == KVASIR_F32) score_type<float>(out, q, rows, count, group, dim);
  else if (dtype == KVASIR_F16) score_type<uint16_t>(out, q, rows, count, group, dim);
  else score_type<int8_t>(out, q, rows, count, group, dim);
}

template <class T>
void widen_type(float* out, const T* row, int32_t dim) {
  int32_t i = 0;
  for (; i + static_cast<int32_t>(kLanes) <= dim; i += kLanes) store(out + i, load_wide(row + i));
  for (; i < dim; i++) out[i] = widen_one(row[i]);
}

void widen_row(float* out, const void* row, int32_t dtype, int32_t dim) {
  if (dtype == KVASIR_F32) widen_type(out, static_cast<const float*>(row), dim);
  else if (dtype == KVASIR_F16) widen_type(out, static_cast<const uint16_t*>(row), dim);
  else widen_type(out, static_cast<const int8_t*>(row), dim);
}

// Sums of lanes first, so that wide rows are one dependent addition a lane.
template <class T>
float widen_type_less(float* out, const T* row, int32_t dim, const float* less) {
  Floats sums = {};
  int32_t i = 0;
  for (; i + static_cast<int32_t>(kLanes) <= dim; i += kLanes) {
    const Floats x = load_wide(row + i) - load(less + i);
    store(out + i, x);
    sums += x * x;
  }
  float square = sum_lanes(sums);
  for (; i < dim; i++) {
    out[i] = widen_one(row[i]) - less[i];
    square += out[i] * out[i];
  }
  return square;
}

float widen_row_less(float* out, const void* row, int32_t dtype, int32_t dim, const float* less) {
  if (dtype == KVASIR_F32) return widen_type_less(out, static_cast<const float*>(row), dim, less);
  if (dtype == KVASIR_F16) return widen_type_less(out, static_cast<const uint16_t*>(row), dim, less);
  return widen_type_less(out, static_cast<const int8_t*>(row), dim, less);
}

int32_t above_threshold(float* kept, int32_t* ids, const float* scores, float threshold, int32_t first) {
  int32_t count = 0;
#if defined(__AVX512F__)
  const __m512i step = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512 bar = _mm512_set1_ps(threshold);
  for (int32_t i = 0; i < 32; i += 16) {
    const __m512 s = _mm512_loadu_ps(scores + i);
    const __mmask16 mask = _mm512_cmp_ps_mask(s, bar, _CMP_GE_OQ);
    if (mask == 0) continue;
    // Compressed in registers and stored whole: a compressing store is slow on some processors. Only what is counted matters, and
    // the buffers have room for all 32.
    const int32_t some = __builtin_popcount(mask);
    float s16[16];
    int32_t i16[16];
    _mm512_storeu_ps(s16, _mm512_maskz_compress_ps(mask, s));
    _mm512_storeu_si512(i16, _mm512_maskz_compress_epi32(mask, _mm512_add_epi32(step, _mm512_set1_epi32(first + i))));
    std::memcpy(kept + count, s16, static_cast<size_t>(some) * sizeof(float));
    std::memcpy(ids + count, i16, static_cast<size_t>(some) * sizeof(int32_t));
    count += some;
  }
#elif defined(__AVX2__)
  for (int32_t i = 0; i < 32; i += 8) {
    const __m256 s = _mm256_loadu_ps(scores + i);
    uint32_t mask = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(s, _mm256_set1_ps(threshold), _CMP_GE_OQ)));
    for (; mask != 0; mask &= mask - 1) {
      const int32_t lane = __builtin_ctz(mask);
      kept[count] = scores[i + lane];
      ids[count++] = first + i + lane;
    }
  }
#else
  for (int32_t i = 0; i < 32; i++) {
    if (!(scores[i] >= threshold)) continue;
    kept[count] = scores[i];
    ids[count++] = first + i;
  }
#endif
  return count;
}

// Stored by 16 without asking how many there are: more is rare where keys are few of all.
int32_t list_bits(int32_t* ids, const uint64_t* words, int32_t count) {
  int32_t found = 0;
  for (int32_t w = 0; w < count; w++) {
    uint64_t word = words[w];
    const int32_t some = __builtin_popcountll(word);
#if defined(__AVX512VBMI2__)
    alignas(64) static constexpr uint8_t kPlaces[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                        22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
                                                        44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
    alignas(64) uint8_t places[64];
    const __m512i packed = _mm512_maskz_compress_epi8(word, _mm512_load_si512(kPlaces));
    const __m512i base = _mm512_set1_epi32(w * 64);
    _mm512_storeu_si512(ids + found, _mm512_add_epi32(base, _mm512_cvtepu8_epi32(_mm512_castsi512_si128(packed))));
    if (some > 16) {
      _mm512_store_si512(places, packed);
      for (int32_t i = 16; i < some; i += 16) {
        const __m128i next = _mm_load_si128(reinterpret_cast<const __m128i*>(places + i));
        _mm512_storeu_si512(ids + found + i, _mm512_add_epi32(base, _mm512_cvtepu8_epi32(next)));
      }
    }
#else
    constexpr int32_t kAtOnce = 8;
    for (int32_t from = 0; from < some; from += kAtOnce) {
#pragma GCC unroll 8
      for (int32_t i = 0; i < kAtOnce; i++) {
        ids[found + from + i] = w * 64 + (word == 0 ? 0 : __builtin_ctzll(word));
        word &= word - 1;
      }
    }
#endif
    found += some;
  }
  return found;
}

}  // namespace
}  // namespace kvasir
