// Prefill on AVX2: the panels of matmul_avx512.cc in 3 × 32 tiles. The dot product is vpmaddwd + vpaddd (three ports:
// 24 multiplications a clock at best), or vpdpwssd of AVX-VNNI (32) on CPUs that have it: Alder Lake and later, Zen 5
// and later.
//
// Ladder (sizes and machine of matmul_avx512.cc, which reaches 137 there):
//   1. vpmaddwd + vpaddd: 44
//   2. vpdpwssd of AVX-VNNI: 65. A layer of SmolLM2 at n = 512, two threads: 146, 0.47 of AVX-512's 311.
// AMD Zen 3, a thread, which does 53 of vpmaddwd + vpaddd and nothing else; by instructions 3.6, 4.7, 5.7 multiplications each:
//   1. 28
//   3. sums added in assembly, so that none is spilt: 39
//   4. tiles of 3 × 32 with w from memory in place of 6 × 16: 43
#include <algorithm>
#include <cmath>

#include "matmul_codes_avx2.h"
#include "matmul_stream_avx2.h"

namespace kvasir {

namespace {

constexpr int kTile = 3;       // rows of x times 32 of w: 12 sums, one broadcast, one product; w comes from memory
constexpr int kPlainTile = 6;  // times 16 of w
constexpr int kExpanded = kPanelK * kPanelRows;  // integers of one panel

// The same 16-bit number twice in each 32-bit lane.
inline __m256i twice(__m256i v) { return _mm256_blend_epi16(v, _mm256_slli_epi32(v, 16), 0xaa); }

// Eight rows as in matmul_avx512.cc, expand().
template <int T>
void expand_half(const PackedWeight& w, int panel, int half_panel, int b, int kc, int16_t* out, float* scales) {
  using A = Traits<T>;
  constexpr int kVectors = 8 / A::kGroups, kHalf = 1 << (A::kBits - 1), kCount = 32 / A::kGroups;
  const __m256 half = _mm256_set1_ps(kHalf);
  __m256 s[kPanelK / 16], mid[kPanelK / 16], squares = _mm256_setzero_ps(), peak = squares;
  int group = 0;
  for (int at = 0; at < kc; at += 32) {
    const BlockAt block = block_at(w.layout, w.panel(panel), b + at / 32);
    __m256i c[8];
    load_codes<T>(block.codes, half_panel, c);
    const Scales<T> scale = load_scales<T>(block.header, block.in_unit, half_panel);
#pragma GCC unroll 2
    for (int g = 0; g < A::kGroups; ++g, ++group) {
      __m256i sum = _mm256_set1_epi32(-kCount * kHalf), square = _mm256_set1_epi32(-kCount * kHalf * kHalf);
      const __m256i one = _mm256_set1_epi16(1);
#pragma GCC unroll 8
      for (int v = g * kVectors; v < (g + 1) * kVectors; ++v) {
        const __m256i even = _mm256_and_si256(c[v], _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(c[v], 8);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(even, odd), one));
        square = _mm256_add_epi32(square, _mm256_add_epi32(_mm256_madd_epi16(even, even), _mm256_madd_epi16(odd, odd)));
      }
      // sum (code - half)^2 = sum code^2 - 2 half (sum code - n half) - n half^2, exact
      const __m256i centred = _mm256_sub_epi32(square, _mm256_mullo_epi32(sum, _mm256_set1_epi32(2 * kHalf)));
      const __m256 sg = scale.scale[g];
      const __m256 m =
          A::kMin ? _mm256_fmadd_ps(half, sg, scale.min) : _mm256_mul_ps(_mm256_set1_ps(kHalf - A::kOffset), sg);
      s[group] = sg;
      mid[group] = m;
      const __m256 first = _mm256_mul_ps(_mm256_mul_ps(sg, sg), _mm256_cvtepi32_ps(centred));
      const __m256 cross = _mm256_mul_ps(_mm256_mul_ps(_mm256_add_ps(sg, sg), m), _mm256_cvtepi32_ps(sum));
      const __m256 last = _mm256_mul_ps(_mm256_mul_ps(m, m), _mm256_set1_ps(kCount));
      const __m256 both = _mm256_add_ps(first, last);
      squares = _mm256_add_ps(squares, _mm256_add_ps(both, cross));
      if constexpr (A::kMin) {  // the terms may cancel: never less than the truth
        squares = _mm256_fmadd_ps(_mm256_set1_ps(1e-6f), _mm256_add_ps(both, abs256(cross)), squares);
      }
      peak = _mm256_max_ps(peak, _mm256_fmadd_ps(half, abs256(sg), abs256(m)));
    }
  }
  const __m256 finite = _mm256_cmp_ps(squares, _mm256_set1_ps(3e38f), _CMP_LE_OQ);
  const __m256 some = _mm256_and_ps(finite, _mm256_cmp_ps(squares, _mm256_set1_ps(1e-30f), _CMP_GT_OQ));
  const __m256 inverse =
      _mm256_and_ps(some, _mm256_min_ps(_mm256_div_ps(_mm256_set1_ps(kPanelNorm), _mm256_sqrt_ps(squares)),
                                        _mm256_div_ps(_mm256_set1_ps(32760.0f), peak)));
  const __m256 worth = _mm256_and_ps(some, _mm256_div_ps(_mm256_set1_ps(1.0f), inverse));
  _mm256_store_ps(scales, _mm256_blendv_ps(_mm256_set1_ps(__builtin_nanf("")), worth, finite));

  const __m256i flip = _mm256_set1_epi16(INT16_MIN),
                top = _mm256_set1_epi16(static_cast<int16_t>(0xffff << (16 - A::kBits)));
  group = 0;
  for (int at = 0; at < kc; at += 32, out += 16 * 32) {
    __m256i c[8];
    load_codes<T>(block_at(w.layout, w.panel(panel), b + at / 32).codes, half_panel, c);
#pragma GCC unroll 2
    for (int g = 0; g < A::kGroups; ++g, ++group) {
      // and: what is not finite becomes zero
      const __m256i by =
          twice(_mm256_cvtps_epi32(_mm256_and_ps(some, _mm256_mul_ps(_mm256_mul_ps(s[group], half), inverse))));
      const __m256i plus = twice(_mm256_cvtps_epi32(_mm256_and_ps(some, _mm256_mul_ps(mid[group], inverse))));
#pragma GCC unroll 8
      for (int v = g * kVectors; v < (g + 1) * kVectors; ++v) {
        const __m256i even = _mm256_xor_si256(_mm256_slli_epi16(c[v], 16 - A::kBits), flip);
        const __m256i odd = _mm256_xor_si256(_mm256_and_si256(_mm256_slli_epi16(c[v], 8 - A::kBits), top), flip);
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + 64 * v),
                           _mm256_adds_epi16(_mm256_mulhrs_epi16(even, by), plus));
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + 64 * v + 32),
                           _mm256_adds_epi16(_mm256_mulhrs_epi16(odd, by), plus));
      }
    }
  }
}

// columns [32 * b, + kc) of one panel: integers [kc / 2][16][2] and what one of them is worth; see matmul_avx512.cc.
template <int T>
void expand(const PackedWeight& w, int panel, int b, int kc, int16_t* out, float* scales) {
  for (int half = 0; half < 2; ++half) expand_half<T>(w, panel, half, b, kc, out + 16 * half, scales + 8 * half);
}

// sums [R][32] += (first: =) R rows of x times the 16 rows of each of P panels.
template <int R, int P, bool kVnni>
void tile(const int16_t* w, const int16_t* x, int pairs, const float* w_scales, const float* x_scales, float* sums,
          bool first) {
  __m256i a[R][2 * P];
#pragma GCC unroll 3
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int h = 0; h < 2 * P; ++h) a[i][h] = _mm256_setzero_si256();
  }
  const int16_t* end = x + 2 * pairs;
  do {
#pragma GCC unroll 3
    for (int i = 0; i < R; ++i) {
      const __m256i xi = pair_at(x + i * kPanelK);
#pragma GCC unroll 4
      for (int h = 0; h < 2 * P; ++h) dot_at<kVnni>(a[i][h], xi, w + h / 2 * kExpanded + h % 2 * 16);
    }
    x += 2;
    w += 32;
  } while (x != end);
#pragma GCC unroll 3
  for (int i = 0; i < R; ++i) {
    const __m256 xs = _mm256_set1_ps(x_scales[i]);
    float* to = sums + 32 * i;
#pragma GCC unroll 4
    for (int h = 0; h < 2 * P; ++h, to += 8) {
      const __m256 f = _mm256_mul_ps(_mm256_cvtepi32_ps(a[i][h]), xs);
      _mm256_store_ps(to, _mm256_fmadd_ps(f, _mm256_load_ps(w_scales + 8 * h), first ? _mm256_setzero_ps() : _mm256_load_ps(to)));
    }
  }
}

template <int P, bool kVnni>
void tiles(const int16_t* w, const int16_t* x, int pairs, const float* w_scales, const float* x_scales, float* sums,
           int rows, bool first) {
  int i = 0;
  for (; i + kTile <= rows; i += kTile) {
    tile<kTile, P, kVnni>(w, x + i * kPanelK, pairs, w_scales, x_scales + i, sums + 32 * i, first);
  }
  if (rows - i == 2) tile<2, P, kVnni>(w, x + i * kPanelK, pairs, w_scales, x_scales + i, sums + 32 * i, first);
  if (rows - i == 1) tile<1, P, kVnni>(w, x + i * kPanelK, pairs, w_scales, x_scales + i, sums + 32 * i, first);
}

template <int R>
void plain_tile(const float* w, const float* x, int64_t ldx, int kc, float* sums, bool first) {
  __m256 a[R][2];
#pragma GCC unroll 6
  for (int i = 0; i < R; ++i) {
    a[i][0] = first ? _mm256_setzero_ps() : _mm256_load_ps(sums + 32 * i);
    a[i][1] = first ? _mm256_setzero_ps() : _mm256_load_ps(sums + 32 * i + 8);
  }
  const float* end = x + kc;
  do {
    const __m256 w0 = _mm256_load_ps(w), w1 = _mm256_load_ps(w + 8);
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i) {
      const __m256 xi = _mm256_set1_ps(x[i * ldx]);
      a[i][0] = _mm256_fmadd_ps(w0, xi, a[i][0]);
      a[i][1] = _mm256_fmadd_ps(w1, xi, a[i][1]);
    }
    ++x;
    w += 16;
  } while (x != end);
#pragma GCC unroll 6
  for (int i = 0; i < R; ++i) {
    _mm256_store_ps(sums + 32 * i, a[i][0]);
    _mm256_store_ps(sums + 32 * i + 8, a[i][1]);
  }
}

void plain_tiles(const float* w, const float* x, int64_t ldx, int kc, float* sums, int rows, bool first) {
  int i = 0;
  for (; i + kPlainTile <= rows; i += kPlainTile) plain_tile<kPlainTile>(w, x + i * ldx, ldx, kc, sums + 32 * i, first);
  for (; i + 2 <= rows; i += 2) plain_tile<2>(w, x + i * ldx, ldx, kc, sums + 32 * i, first);
  if (i < rows) plain_tile<1>(w, x + i * ldx, ldx, kc, sums + 32 * i, first);
}

template <int T>
void expand_plain(const PackedWeight& w, int panel, int k, int kc, float* out) {
  const size_t step = static_cast<size_t>(w.layout.block_bytes);
  const uint8_t* p = w.panel(panel) + static_cast<size_t>(k) * step;
  for (int i = 0; i < kc; ++i, p += step) {
    _mm256_store_ps(out + 16 * i, load_plain<T>(p, 0));
    _mm256_store_ps(out + 16 * i + 8, load_plain<T>(p, 1));
  }
}

// Floats [kc][16] of plain types, integers and scales of block types.
void expand_any(const PackedWeight& w, int panel, int k, int kc, float* plain, int16_t* out, float* scales) {
  switch (w.dtype) {
    case KVASIR_F32: return expand_plain<KVASIR_F32>(w, panel, k, kc, plain);
    case KVASIR_F16: return expand_plain<KVASIR_F16>(w, panel, k, kc, plain);
    case KVASIR_BF16: return expand_plain<KVASIR_BF16>(w, panel, k, kc, plain);
    case KVASIR_Q4_0: return expand<KVASIR_Q4_0>(w, panel, k / 32, kc, out, scales);
    case KVASIR_Q4_1: return expand<KVASIR_Q4_1>(w, panel, k / 32, kc, out, scales);
    case KVASIR_Q5_0: return expand<KVASIR_Q5_0>(w, panel, k / 32, kc, out, scales);
    case KVASIR_Q5_1: return expand<KVASIR_Q5_1>(w, panel, k / 32, kc, out, scales);
    case KVASIR_Q8_0: return expand<KVASIR_Q8_0>(w, panel, k / 32, kc, out, scales);
    case KVASIR_Q3_K: return expand<KVASIR_Q3_K>(w, panel, k / 32, kc, out, scales);
    case KVASIR_Q4_K: return expand<KVASIR_Q4_K>(w, panel, k / 32, kc, out, scales);
    case KVASIR_Q5_K: return expand<KVASIR_Q5_K>(w, panel, k / 32, kc, out, scales);
    case KVASIR_Q6_K: return expand<KVASIR_Q6_K>(w, panel, k / 32, kc, out, scales);
    case KVASIR_IQ4_NL: return expand<KVASIR_IQ4_NL>(w, panel, k / 32, kc, out, scales);
    default: return;
  }
}

void panel_avx2(const PackedWeight& w, int panel, const PanelInput& in, int row, int rows, float* scratch, float* out,
                int64_t ldo) {
  static const bool has_vnni = cpu_has_avx_vnni();
  const bool plain = w.layout.unit_k == 1;
  const int panels = std::min(2, w.panels() - panel), width = std::min(32, w.rows - panel * kPanelRows);
  float* sums = scratch;
  float* expanded = scratch + static_cast<size_t>(rows) * 32;
  float* scales = expanded + kPanelK * 32;
  for (int k = 0; k < in.k; k += kPanelK) {
    const int kc = std::min(kPanelK, in.k - k);
    const float* x = in.x + static_cast<int64_t>(row) * in.k + k;
    int16_t* integers = reinterpret_cast<int16_t*>(expanded);
    for (int p = 0; p < panels; ++p) {
      expand_any(w, panel + p, k, kc, expanded, integers + p * kExpanded, scales + 16 * p);
      if (plain) plain_tiles(expanded, x, in.k, kc, sums + 16 * p, rows, k == 0);
    }
    if (plain) continue;
    const size_t at = static_cast<size_t>(k / kPanelK) * static_cast<size_t>(in.n) + static_cast<size_t>(row);
    const auto multiply = panels == 2 ? (has_vnni ? tiles<2, true> : tiles<2, false>) : has_vnni ? tiles<1, true> : tiles<1, false>;
    multiply(integers, in.q + at * kPanelK, kc / 2, scales, in.scales + at, sums, rows, k == 0);
  }
  float* to = out + static_cast<int64_t>(row) * ldo + panel * kPanelRows;
  for (int i = 0; i < rows; ++i, to += ldo) {
    for (int c = 0; c < width; c += 8)
      _mm256_maskstore_ps(to + c, lane_mask(width - c), _mm256_load_ps(sums + 32 * i + c));
  }
}

void panel_quantize_avx2(int16_t* q, float* scales, const float* x, int row, int rows, int n, int k) {
  for (int k0 = 0; k0 < k; k0 += kPanelK) {
    const int kc = std::min(kPanelK, k - k0);
    const size_t at = static_cast<size_t>(k0 / kPanelK) * static_cast<size_t>(n);
    for (int i = row; i < row + rows; ++i) {
      const float* from = x + static_cast<int64_t>(i) * k + k0;
      __m256 squares = _mm256_setzero_ps(), peak = squares;
      for (int j = 0; j < kc; j += 8) {
        const __m256 v = _mm256_loadu_ps(from + j);
        squares = _mm256_fmadd_ps(v, v, squares);
        peak = _mm256_max_ps(peak, abs256(v));
      }
      const float sum = sum_of(squares);
      const float most = max_of(peak);
      const float inverse =
          sum <= 3e38f && most > 1e-18f ? std::min(kPanelNorm / std::sqrt(sum), 32767.0f / most) : 0.0f;
      scales[at + static_cast<size_t>(i)] = !(sum <= 3e38f) ? __builtin_nanf("") : inverse > 0 ? 1.0f / inverse : 0.0f;
      int16_t* to = q + (at + static_cast<size_t>(i)) * kPanelK;
      const __m256 some = inverse > 0 ? _mm256_castsi256_ps(_mm256_set1_epi32(-1)) : _mm256_setzero_ps();
      for (int j = 0; j < kc; j += 16) {
        const __m256 by = _mm256_set1_ps(inverse);
        const __m256 low = _mm256_and_ps(some, _mm256_mul_ps(_mm256_loadu_ps(from + j), by));
        const __m256 high = _mm256_and_ps(some, _mm256_mul_ps(_mm256_loadu_ps(from + j + 8), by));
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + j), pack_paired(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high)));
      }
    }
  }
}

}  // namespace

const MatmulKernels kMatmulAvx2 = {16, true, stream_quantize_avx2, stream_avx2, panel_quantize_avx2, panel_avx2};

}  // namespace kvasir
