// Decode on AVX2: as matmul_stream_avx512.cc, but codes widen to 16 bits in place (even and odd bytes of each 32-bit
// lane) and meet 16-bit x by vpmaddwd, so x needs no planes. precision=fast is exact here: fewer bits would save
// nothing.
#include "matmul_stream_avx2.h"

#include <algorithm>

#include "matmul_codes_avx2.h"

namespace kvasir {

namespace {

constexpr int kAhead = 4096;  // bytes; products take longer than in matmul_stream_avx512.cc, and 16 KB took 1.06 of the time

inline __m256i pair_at(const int16_t* q) {
  int32_t pair;
  __builtin_memcpy(&pair, q, 4);
  return _mm256_set1_epi32(pair);
}

template <int T, int N>
inline void block_rows(const uint8_t* codes, const Scales<T>& s, int half, const StreamBlock* q, size_t stride,
                       __m256* sums) {
  using A = Traits<T>;
  __m256i c[8];
  load_codes<T>(codes, half, c);
  const __m256i low_bytes = _mm256_set1_epi16(255);
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    const StreamBlock& x = q[static_cast<size_t>(i) * stride];
#pragma GCC unroll 2
    for (int g = 0; g < A::kGroups; ++g) {
      constexpr int kVectors = 8 / A::kGroups;
      // 255 * 32767 * 32 and the offset's share stay under 2^29.
      const int32_t sum = A::kGroups == 2 ? x.sum[g] : x.sum[0] + x.sum[1];
      __m256i even = _mm256_set1_epi32(-A::kOffset * sum), odd = _mm256_setzero_si256();
#pragma GCC unroll 8
      for (int v = g * kVectors; v < (g + 1) * kVectors; ++v) {
        even = _mm256_add_epi32(even, _mm256_madd_epi16(_mm256_and_si256(c[v], low_bytes), pair_at(x.q + 4 * v)));
        odd = _mm256_add_epi32(odd, _mm256_madd_epi16(_mm256_srli_epi16(c[v], 8), pair_at(x.q + 4 * v + 2)));
      }
      const __m256 product = _mm256_cvtepi32_ps(_mm256_add_epi32(even, odd));
      sums[2 * i + half] =
          _mm256_fmadd_ps(_mm256_mul_ps(product, _mm256_set1_ps(x.scale)), s.scale[g], sums[2 * i + half]);
    }
    if constexpr (A::kMin) sums[2 * i + half] = _mm256_fmadd_ps(s.min, _mm256_set1_ps(x.total), sums[2 * i + half]);
  }
}

template <int T, int N>
inline void panel_rows(const PackedWeight& w, const uint8_t* panel, const StreamBlock* q, int blocks, __m256* sums) {
  const int per_unit = w.layout.unit_k / 32;
  const uint8_t* p = panel;
#pragma GCC unroll 8
  for (int i = 0; i < 2 * N; ++i) sums[i] = _mm256_setzero_ps();
  for (int first = 0; first < blocks; first += per_unit) {
    const uint8_t* header = p;
    p += w.layout.header_bytes;
    const int count = std::min(per_unit, blocks - first);
    for (int at = 0; at < w.layout.header_bytes; at += 64) __builtin_prefetch(header + kAhead + at);
    for (int b = 0; b < count; ++b, p += w.layout.block_bytes) {
      for (int at = 0; at < w.layout.block_bytes; at += 64) __builtin_prefetch(p + kAhead + at);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        block_rows<T, N>(p, load_scales<T>(header, b, half), half, q + first + b, static_cast<size_t>(blocks), sums);
      }
    }
  }
}

template <int T, int N>
inline void plain_rows(const uint8_t* panel, const float* x, int k, __m256* sums) {
  constexpr int kSize = T == KVASIR_F32 ? 64 : 32;
  const size_t stride = static_cast<size_t>(k);
  __m256 part[2][2 * N];
#pragma GCC unroll 8
  for (int i = 0; i < 2 * N; ++i) part[0][i] = part[1][i] = _mm256_setzero_ps();
  for (int at = 0; at < k; ++at) {
    const uint8_t* p = panel + static_cast<size_t>(at) * kSize;
    if (kSize == 64 || at % 2 == 0) __builtin_prefetch(p + kAhead);
    const __m256 w0 = load_plain<T>(p, 0), w1 = load_plain<T>(p, 1);
    __m256* to = part[at % 2];
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const __m256 xi = _mm256_set1_ps(x[static_cast<size_t>(i) * stride + static_cast<size_t>(at)]);
      to[2 * i] = _mm256_fmadd_ps(w0, xi, to[2 * i]);
      to[2 * i + 1] = _mm256_fmadd_ps(w1, xi, to[2 * i + 1]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < 2 * N; ++i) sums[i] = _mm256_add_ps(part[0][i], part[1][i]);
}

template <int T, int N>
inline void one_panel(const PackedWeight& w, int p, const StreamInput& in, int row, float* out, int64_t ldo) {
  __m256 sums[2 * N];
  const size_t at = static_cast<size_t>(row);
  if constexpr (T == KVASIR_F32 || T == KVASIR_F16 || T == KVASIR_BF16) {
    plain_rows<T, N>(w.panel(p), in.x + at * static_cast<size_t>(in.k), in.k, sums);
  } else {
    panel_rows<T, N>(w, w.panel(p), in.q + at * static_cast<size_t>(in.k / 32), in.k / 32, sums);
  }
  const int r = p * kPanelRows, left = std::min(kPanelRows, w.rows - r);
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    float* to = out + (row + i) * ldo + r;
    _mm256_maskstore_ps(to, lane_mask(left), sums[2 * i]);
    if (left > 8) _mm256_maskstore_ps(to + 8, lane_mask(left - 8), sums[2 * i + 1]);
  }
}

template <int T>
void panels_of(const PackedWeight& w, int panel, int panels, const StreamInput& in, float* out, int64_t ldo) {
  for (int p = panel; p < panel + panels; ++p) {
    int i = 0;
    for (; i + 4 <= in.n; i += 4) one_panel<T, 4>(w, p, in, i, out, ldo);
    if (in.n - i >= 2) {
      one_panel<T, 2>(w, p, in, i, out, ldo);
      i += 2;
    }
    if (in.n - i == 1) one_panel<T, 1>(w, p, in, i, out, ldo);
  }
}

}  // namespace

void stream_avx2(const PackedWeight& w, int panel, int panels, const StreamInput& in, float* out, int64_t ldo) {
  switch (w.dtype) {
    case KVASIR_F32: return panels_of<KVASIR_F32>(w, panel, panels, in, out, ldo);
    case KVASIR_F16: return panels_of<KVASIR_F16>(w, panel, panels, in, out, ldo);
    case KVASIR_BF16: return panels_of<KVASIR_BF16>(w, panel, panels, in, out, ldo);
    case KVASIR_Q4_0: return panels_of<KVASIR_Q4_0>(w, panel, panels, in, out, ldo);
    case KVASIR_Q4_1: return panels_of<KVASIR_Q4_1>(w, panel, panels, in, out, ldo);
    case KVASIR_Q5_0: return panels_of<KVASIR_Q5_0>(w, panel, panels, in, out, ldo);
    case KVASIR_Q5_1: return panels_of<KVASIR_Q5_1>(w, panel, panels, in, out, ldo);
    case KVASIR_Q8_0: return panels_of<KVASIR_Q8_0>(w, panel, panels, in, out, ldo);
    case KVASIR_Q3_K: return panels_of<KVASIR_Q3_K>(w, panel, panels, in, out, ldo);
    case KVASIR_Q4_K: return panels_of<KVASIR_Q4_K>(w, panel, panels, in, out, ldo);
    case KVASIR_Q5_K: return panels_of<KVASIR_Q5_K>(w, panel, panels, in, out, ldo);
    case KVASIR_Q6_K: return panels_of<KVASIR_Q6_K>(w, panel, panels, in, out, ldo);
    case KVASIR_IQ4_NL: return panels_of<KVASIR_IQ4_NL>(w, panel, panels, in, out, ldo);
    default: return;
  }
}

// Each four columns as 0, 2, 1, 3: the order in which even and odd bytes of a code's lane meet them.
void stream_quantize_avx2(StreamBlock* q, const float* x, int k, bool) {
  constexpr float kLimit = 32767.0f;
  for (int b = 0; b < k / 32; ++b, ++q, x += 32) {
    __m256 v[4], peak = _mm256_setzero_ps();
    bool finite = true;
    for (int j = 0; j < 4; ++j) {
      v[j] = _mm256_loadu_ps(x + 8 * j);
      peak = _mm256_max_ps(peak, abs256(v[j]));
      finite = finite && _mm256_movemask_ps(_mm256_cmp_ps(abs256(v[j]), _mm256_set1_ps(3e38f), _CMP_NLE_UQ)) == 0;
    }
    // A block with NaN or infinity has no integers: its scale carries the NaN into every output. Below 1e-30 it is
    // zero.
    const float top = max_of(peak), inverse = finite && top > 1e-30f ? kLimit / top : 0.0f;
    q->scale = !finite ? __builtin_nanf("") : inverse > 0 ? top / kLimit : 0.0f;
    alignas(32) int32_t integers[32];
    for (int j = 0; j < 4; ++j) {
      const __m256 scaled = inverse > 0 ? _mm256_mul_ps(v[j], _mm256_set1_ps(inverse)) : _mm256_setzero_ps();
      _mm256_store_si256(reinterpret_cast<__m256i*>(integers + 8 * j), _mm256_cvtps_epi32(scaled));
    }
    q->sum[0] = q->sum[1] = 0;
    for (int j = 0; j < 32; j += 4) {
      for (int i = 0; i < 4; ++i) {
        q->sum[j / 16] += integers[j + i];
        q->q[j + (i % 2) * 2 + i / 2] = static_cast<int16_t>(integers[j + i]);
      }
    }
    q->total = q->scale * static_cast<float>(q->sum[0] + q->sum[1]);
  }
}

}  // namespace kvasir
