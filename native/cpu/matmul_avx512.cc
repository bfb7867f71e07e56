// Prefill: 32 rows of w × 128 columns at a time as 16-bit integers in L1, all rows of x passing over them.
//
// Ladder: billions of products a second of one thread, all in L2 (Q4_1, n = 96, k = 768, m = 192), on a Sapphire
// Rapids whose vpdpwssd peak is 187. Sizes of real layers: native/bench/matmul_bench.cc.
//   1. 12 × 32 tile over integers of 128 columns, one scale per row of w and of x: gcc 12 spilled it (97 at n = 512)
//   2. do-while around it, so that gcc keeps sums in registers; the next tile's x fetched ahead: 125
//   3. the tile in assembly: 125, but no longer at the mercy of what surrounds it (78 at n = 512 when gcc slipped again)
//   4. integers by vpmulhrsw, norms from integer sums of codes, 0.2 instead of 0.5 clocks a weight: 137
//   5. the last tile writes out, a panel asks for its next columns: 1 to 8 % at n = 256, m = 3072
//   The tile alone runs at 182. Of the rest, at these sizes, most is rounding x, which wider weights share: a layer of
//   SmolLM2 at n = 512 runs at 159 (85 % of the peak), 311 with two threads, all types alike; F16, BF16, F32 at 138 of
//   the 164 that two threads' float multiply-adds allow.
//   No gain: the tile's loop unrolled four times; fetching the next tile's sums; panel_quantize by rows first.
//   A scale per 32 columns (exact codes, a conversion every 16 dot products) cannot pass 84 % of the peak.
#include <algorithm>
#include <cmath>

#include "matmul_codes_avx512.h"
#include "matmul_stream_avx512.h"

namespace kvasir {

namespace {

constexpr int kTile = 12;  // rows of x: 24 sums, two vectors of w, one broadcast

inline void dot(__m512i& sum, __m512i w, __m512i x) { asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x)); }

// The same 16-bit number twice in each 32-bit lane.
inline __m512i twice(__m512i v) { return _mm512_mask_blend_epi16(0xaaaaaaaa, v, _mm512_slli_epi32(v, 16)); }

// columns [32 * b, + kc) of one panel: integers [kc / 2][16][2], columns paired 0 2, 1 3 of each four, and what one of
// them is worth. value = s * (code - half) + mid; first pass: norm and range of each row, second: integers by
// vpmulhrsw, off by at most 0.5 (product) + 0.5 (s, at the ends of the codes' range) + 0.5 (mid).
template <int T>
void expand(const PackedWeight& w, int panel, int b, int kc, int16_t* out, float* scales) {
  using A = Traits<T>;
  constexpr int kVectors = 8 / A::kGroups, kHalf = 1 << (A::kBits - 1), kCount = 32 / A::kGroups;
  const __m512 half = _mm512_set1_ps(kHalf);
  __m512 s[kPanelK / 16], mid[kPanelK / 16], squares = _mm512_setzero_ps(), peak = squares;
  int group = 0;
  for (int at = 0; at < kc; at += 32) {
    const BlockAt block = block_at(w.layout, w.panel(panel), b + at / 32);
    __m512i c[8];
    load_codes<T>(block.codes, c);
    const Scales<T> scale = load_scales<T>(block.header, block.in_unit);
#pragma GCC unroll 2
    for (int g = 0; g < A::kGroups; ++g, ++group) {
      __m512i sum = _mm512_set1_epi32(-kCount * kHalf), square = _mm512_set1_epi32(-kCount * kHalf * kHalf);
#pragma GCC unroll 8
      for (int v = g * kVectors; v < (g + 1) * kVectors; ++v) {
        if constexpr (A::kBits == 8) {
          const __m512i even = _mm512_and_si512(c[v], _mm512_set1_epi16(255)), odd = _mm512_srli_epi16(c[v], 8);
          sum = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(sum, even, _mm512_set1_epi16(1)), odd, _mm512_set1_epi16(1));
          square = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(square, even, even), odd, odd);
        } else {
          sum = _mm512_dpbusd_epi32(sum, c[v], _mm512_set1_epi8(1));
          square = _mm512_dpbusd_epi32(square, c[v], c[v]);
        }
      }
      // sum (code - half)^2 = sum code^2 - 2 half (sum code - n half) - n half^2, exact
      const __m512i centred = _mm512_sub_epi32(square, _mm512_mullo_epi32(sum, _mm512_set1_epi32(2 * kHalf)));
      const __m512 sg = scale.scale[g];
      const __m512 m =
          A::kMin ? _mm512_fmadd_ps(half, sg, scale.min) : _mm512_mul_ps(_mm512_set1_ps(kHalf - A::kOffset), sg);
      s[group] = sg;
      mid[group] = m;
      const __m512 first = _mm512_mul_ps(_mm512_mul_ps(sg, sg), _mm512_cvtepi32_ps(centred));
      const __m512 cross = _mm512_mul_ps(_mm512_mul_ps(_mm512_add_ps(sg, sg), m), _mm512_cvtepi32_ps(sum));
      const __m512 last = _mm512_mul_ps(_mm512_mul_ps(m, m), _mm512_set1_ps(kCount));
      const __m512 both = _mm512_add_ps(first, last);
      squares = _mm512_add_ps(squares, _mm512_add_ps(both, cross));
      if constexpr (A::kMin) {  // the terms may cancel: never less than the truth
        squares = _mm512_fmadd_ps(_mm512_set1_ps(1e-6f), _mm512_add_ps(both, _mm512_abs_ps(cross)), squares);
      }
      peak = _mm512_max_ps(peak, _mm512_fmadd_ps(half, _mm512_abs_ps(sg), _mm512_abs_ps(m)));
    }
  }
  const __mmask16 finite = _mm512_cmp_ps_mask(squares, _mm512_set1_ps(3e38f), _CMP_LE_OQ);
  const __mmask16 some = finite & _mm512_cmp_ps_mask(squares, _mm512_set1_ps(1e-30f), _CMP_GT_OQ);
  const __m512 inverse = _mm512_maskz_min_ps(some, _mm512_div_ps(_mm512_set1_ps(kPanelNorm), _mm512_sqrt_ps(squares)),
                                             _mm512_div_ps(_mm512_set1_ps(32760.0f), peak));
  const __m512 worth = _mm512_maskz_div_ps(some, _mm512_set1_ps(1.0f), inverse);
  _mm512_store_ps(scales, _mm512_mask_mov_ps(_mm512_set1_ps(__builtin_nanf("")), finite, worth));

  const __m512i flip = _mm512_set1_epi16(INT16_MIN),
                top = _mm512_set1_epi16(static_cast<int16_t>(0xffff << (16 - A::kBits)));
  group = 0;
  for (int at = 0; at < kc; at += 32, out += 16 * 32) {
    __m512i c[8];
    load_codes<T>(block_at(w.layout, w.panel(panel), b + at / 32).codes, c);
#pragma GCC unroll 2
    for (int g = 0; g < A::kGroups; ++g, ++group) {
      const __m512i by = twice(_mm512_cvtps_epi32(_mm512_maskz_mul_ps(some, _mm512_mul_ps(s[group], half), inverse)));
      const __m512i plus = twice(_mm512_cvtps_epi32(_mm512_maskz_mul_ps(some, mid[group], inverse)));
#pragma GCC unroll 8
      for (int v = g * kVectors; v < (g + 1) * kVectors; ++v) {
        // (code - half) << (16 - bits): the shift drops the other byte, flipping the sign bit subtracts half
        const __m512i even = _mm512_xor_si512(_mm512_slli_epi16(c[v], 16 - A::kBits), flip);
        const __m512i odd =
            _mm512_ternarylogic_epi32(_mm512_slli_epi16(c[v], 8 - A::kBits), top, flip, 0x6a);  // (a & b) ^ c
        _mm512_store_si512(out + 64 * v, _mm512_adds_epi16(_mm512_mulhrs_epi16(even, by), plus));
        _mm512_store_si512(out + 64 * v + 32, _mm512_adds_epi16(_mm512_mulhrs_epi16(odd, by), plus));
      }
    }
  }
}

// One row of x, `at` bytes from it, with both vectors of w into sums `a` and `b`.
#define KVASIR_ROW(at, a, b)                 \
  "vpbroadcastd " #at "(%[x]), %%zmm31\n\t"  \
  "vpdpwssd %%zmm31, %%zmm29, %" #a "\n\t"   \
  "vpdpwssd %%zmm31, %%zmm30, %" #b "\n\t"
#define KVASIR_ZERO(a, b) "vpxord %" #a ", %" #a ", %" #a "\n\tvpxord %" #b ", %" #b ", %" #b "\n\t"

// a [12][2] = pairs of integers of 12 rows of x and 32 rows of w. Assembly, because gcc 12 spills or copies the sums
// whenever the loop around changes (1.1 to 2 times slower). The next tile's x is fetched on the way: it is in L2.
inline void dot_tile(const int16_t* w, const int16_t* x, int pairs, __m512i a[kTile][2]) {
  const int16_t* end = x + 2 * pairs;
  const ptrdiff_t next = reinterpret_cast<intptr_t>(x + kTile * kPanelK) - reinterpret_cast<intptr_t>(w);
  static_assert(kPanelK == 128 && kTile == 12, "offsets below are rows of x and the second panel of w in bytes");
  asm(KVASIR_ZERO(0, 1) KVASIR_ZERO(2, 3) KVASIR_ZERO(4, 5) KVASIR_ZERO(6, 7) KVASIR_ZERO(8, 9) KVASIR_ZERO(10, 11)
      KVASIR_ZERO(12, 13) KVASIR_ZERO(14, 15) KVASIR_ZERO(16, 17) KVASIR_ZERO(18, 19) KVASIR_ZERO(20, 21)
      KVASIR_ZERO(22, 23)
      ".p2align 5\n"
      "1:\n\t"
      "vmovdqa64 (%[w]), %%zmm29\n\t"
      "vmovdqa64 4096(%[w]), %%zmm30\n\t"
      "prefetcht0 (%[w], %[next])\n\t"
      KVASIR_ROW(0, 0, 1) KVASIR_ROW(256, 2, 3) KVASIR_ROW(512, 4, 5) KVASIR_ROW(768, 6, 7)
      KVASIR_ROW(1024, 8, 9) KVASIR_ROW(1280, 10, 11) KVASIR_ROW(1536, 12, 13) KVASIR_ROW(1792, 14, 15)
      KVASIR_ROW(2048, 16, 17) KVASIR_ROW(2304, 18, 19) KVASIR_ROW(2560, 20, 21) KVASIR_ROW(2816, 22, 23)
      "add $4, %[x]\n\t"
      "add $64, %[w]\n\t"
      "cmp %[end], %[x]\n\t"
      "jne 1b"
      : "=&v"(a[0][0]), "=&v"(a[0][1]), "=&v"(a[1][0]), "=&v"(a[1][1]), "=&v"(a[2][0]), "=&v"(a[2][1]),
        "=&v"(a[3][0]), "=&v"(a[3][1]), "=&v"(a[4][0]), "=&v"(a[4][1]), "=&v"(a[5][0]), "=&v"(a[5][1]),
        "=&v"(a[6][0]), "=&v"(a[6][1]), "=&v"(a[7][0]), "=&v"(a[7][1]), "=&v"(a[8][0]), "=&v"(a[8][1]),
        "=&v"(a[9][0]), "=&v"(a[9][1]), "=&v"(a[10][0]), "=&v"(a[10][1]), "=&v"(a[11][0]), "=&v"(a[11][1]),
        [x] "+r"(x), [w] "+r"(w)
      : [next] "r"(next), [end] "r"(end)
      : "xmm29", "xmm30", "xmm31", "cc", "memory");
}

template <int R>
inline void dot_rows(const int16_t* w, const int16_t* x, int pairs, __m512i a[R][2]) {
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) a[i][0] = a[i][1] = _mm512_setzero_si512();
  const int16_t* end = x + 2 * pairs;
  do {
    const __m512i w0 = load512(w), w1 = load512(w + 16 * kPanelK);
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i) {
      int32_t pair;
      __builtin_memcpy(&pair, x + i * kPanelK, 4);
      const __m512i xi = _mm512_set1_epi32(pair);
      dot(a[i][0], w0, xi);
      dot(a[i][1], w1, xi);
    }
    x += 2;
    w += 32;
  } while (x != end);
}

// Where a tile's products go: to sums [rows][32] (first: overwritten), or with them to out.
struct Sink {
  float* sums;
  bool first;
  float* out;  // null but for the last columns: stores that miss the cache then overlap the next tile
  int64_t ldo;
  __mmask16 low, high;  // columns of out that exist
};

// R rows of x from row `row` on times 32 rows of w, in units of both scales.
template <int R>
void tile(const int16_t* w, const int16_t* x, int pairs, const float* w_scales, const float* x_scales, const Sink& sink,
          int row) {
  __m512i a[R][2];
  x += row * kPanelK;
  if constexpr (R == kTile) {
    dot_tile(w, x, pairs, a);
  } else {
    dot_rows<R>(w, x, pairs, a);
  }
  const __m512 s0 = _mm512_load_ps(w_scales), s1 = _mm512_load_ps(w_scales + 16);
  __m512 f[R][2];
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    const __m512 xs = _mm512_set1_ps(x_scales[row + i]);
    const float* from = sink.sums + 32 * (row + i);
    const __m512 z0 = sink.first ? _mm512_setzero_ps() : _mm512_load_ps(from);
    const __m512 z1 = sink.first ? _mm512_setzero_ps() : _mm512_load_ps(from + 16);
    f[i][0] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(a[i][0]), xs), s0, z0);
    f[i][1] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(a[i][1]), xs), s1, z1);
  }
  if (sink.out) {
    float* to = sink.out + row * sink.ldo;
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i, to += sink.ldo) {
      _mm512_mask_storeu_ps(to, sink.low, f[i][0]);
      if (sink.high) _mm512_mask_storeu_ps(to + 16, sink.high, f[i][1]);
    }
    return;
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    _mm512_store_ps(sink.sums + 32 * (row + i), f[i][0]);
    _mm512_store_ps(sink.sums + 32 * (row + i) + 16, f[i][1]);
  }
}

void tiles(const int16_t* w, const int16_t* x, int pairs, const float* w_scales, const float* x_scales, int rows,
           const Sink& sink) {
  int i = 0;
  for (; i + kTile <= rows; i += kTile) tile<kTile>(w, x, pairs, w_scales, x_scales, sink, i);
#define KVASIR_REST(R) \
  case R: return tile<R>(w, x, pairs, w_scales, x_scales, sink, i)
  switch (rows - i) {
    KVASIR_REST(1);
    KVASIR_REST(2);
    KVASIR_REST(3);
    KVASIR_REST(4);
    KVASIR_REST(5);
    KVASIR_REST(6);
    KVASIR_REST(7);
    KVASIR_REST(8);
    KVASIR_REST(9);
    KVASIR_REST(10);
    KVASIR_REST(11);
    default: return;
  }
#undef KVASIR_REST
}

// Plain weights in float: a 12 × 32 tile over w expanded to [kc][32].
template <int R>
void plain_tile(const float* w, const float* x, int64_t ldx, int kc, float* sums, bool first) {
  __m512 a[R][2];
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    a[i][0] = first ? _mm512_setzero_ps() : _mm512_load_ps(sums + 32 * i);
    a[i][1] = first ? _mm512_setzero_ps() : _mm512_load_ps(sums + 32 * i + 16);
  }
  for (int p = 0; p < kc; ++p) {
    const __m512 w0 = _mm512_load_ps(w + 32 * p), w1 = _mm512_load_ps(w + 32 * p + 16);
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i) {
      const __m512 xi = _mm512_set1_ps(x[i * ldx + p]);
      a[i][0] = _mm512_fmadd_ps(w0, xi, a[i][0]);
      a[i][1] = _mm512_fmadd_ps(w1, xi, a[i][1]);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    _mm512_store_ps(sums + 32 * i, a[i][0]);
    _mm512_store_ps(sums + 32 * i + 16, a[i][1]);
  }
}

void plain_tiles(const float* w, const float* x, int64_t ldx, int kc, float* sums, int rows, bool first) {
  int i = 0;
  for (; i + kTile <= rows; i += kTile) plain_tile<kTile>(w, x + i * ldx, ldx, kc, sums + 32 * i, first);
  for (; i + 4 <= rows; i += 4) plain_tile<4>(w, x + i * ldx, ldx, kc, sums + 32 * i, first);
  for (; i < rows; ++i) plain_tile<1>(w, x + i * ldx, ldx, kc, sums + 32 * i, first);
}

void expand_plain(const PackedWeight& w, int panel, int k, int kc, float* out) {
  const size_t step = static_cast<size_t>(w.layout.block_bytes);
  const uint8_t* p = w.panel(panel) + static_cast<size_t>(k) * step;
  for (int i = 0; i < kc; ++i, p += step) {
    __m512 v;
    if (w.dtype == KVASIR_F32) {
      v = _mm512_load_ps(p);
    } else {
      const __m256i h = _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
      v = w.dtype == KVASIR_F16 ? _mm512_cvtph_ps(h)
                                : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
    }
    _mm512_store_ps(out + 32 * i, v);
  }
}

void expand_any(const PackedWeight& w, int panel, int b, int kc, int16_t* out, float* scales) {
  switch (w.dtype) {
    case KVASIR_Q4_0: return expand<KVASIR_Q4_0>(w, panel, b, kc, out, scales);
    case KVASIR_Q4_1: return expand<KVASIR_Q4_1>(w, panel, b, kc, out, scales);
    case KVASIR_Q5_0: return expand<KVASIR_Q5_0>(w, panel, b, kc, out, scales);
    case KVASIR_Q5_1: return expand<KVASIR_Q5_1>(w, panel, b, kc, out, scales);
    case KVASIR_Q8_0: return expand<KVASIR_Q8_0>(w, panel, b, kc, out, scales);
    case KVASIR_Q3_K: return expand<KVASIR_Q3_K>(w, panel, b, kc, out, scales);
    case KVASIR_Q4_K: return expand<KVASIR_Q4_K>(w, panel, b, kc, out, scales);
    case KVASIR_Q5_K: return expand<KVASIR_Q5_K>(w, panel, b, kc, out, scales);
    case KVASIR_Q6_K: return expand<KVASIR_Q6_K>(w, panel, b, kc, out, scales);
    case KVASIR_IQ4_NL: return expand<KVASIR_IQ4_NL>(w, panel, b, kc, out, scales);
    default: return;
  }
}

void panel_avx512(const PackedWeight& w, int panel, const PanelInput& in, int row, int rows, float* scratch, float* out,
                  int64_t ldo) {
  const bool plain = w.layout.unit_k == 1;
  const int panels = std::min(2, w.panels() - panel), width = std::min(32, w.rows - panel * kPanelRows);
  float* sums = scratch;
  float* expanded = scratch + static_cast<size_t>(rows) * 32;
  float* scales = expanded + kPanelK * 32;
  int16_t* integers = reinterpret_cast<int16_t*>(expanded);
  if (panels == 1) std::fill(expanded, scales + 32, 0.0f);
  Sink sink = {sums, true, nullptr, ldo, static_cast<__mmask16>((1u << std::min(width, 16)) - 1),
               static_cast<__mmask16>(width > 16 ? (1u << (width - 16)) - 1 : 0)};
  float* to = out + static_cast<int64_t>(row) * ldo + panel * kPanelRows;
  for (int k = 0; k < in.k; k += kPanelK) {
    const int kc = std::min(kPanelK, in.k - k);
    for (int p = 0; p < panels; ++p) {
      if (plain) {
        expand_plain(w, panel + p, k, kc, expanded + 16 * p);
      } else {
        expand_any(w, panel + p, k / 32, kc, integers + p * 16 * kPanelK, scales + 16 * p);
      }
      fetch_ahead(w, panel + p, k + kPanelK);
    }
    if (plain) {
      plain_tiles(expanded, in.x + static_cast<int64_t>(row) * in.k + k, in.k, kc, sums, rows, k == 0);
    } else {
      const size_t at = static_cast<size_t>(k / kPanelK) * static_cast<size_t>(in.n) + static_cast<size_t>(row);
      sink.first = k == 0;
      if (k + kPanelK >= in.k) sink.out = to;
      tiles(integers, in.q + at * kPanelK, kc / 2, scales, in.scales + at, rows, sink);
    }
  }
  for (int i = 0; plain && i < rows; ++i, to += ldo) {
    _mm512_mask_storeu_ps(to, sink.low, _mm512_load_ps(sums + 32 * i));
    if (sink.high) _mm512_mask_storeu_ps(to + 16, sink.high, _mm512_load_ps(sums + 32 * i + 16));
  }
}

void panel_quantize_avx512(int16_t* q, float* scales, const float* x, int row, int rows, int n, int k) {
  // Undoes the packing by 128-bit lanes, and pairs columns 0 2, 1 3 of each four as expand() does.
  alignas(64) static const int16_t kPaired[32] = {0,  2,  1,  3,  8,  10, 9,  11, 16, 18, 17, 19, 24, 26, 25, 27,
                                                  4,  6,  5,  7,  12, 14, 13, 15, 20, 22, 21, 23, 28, 30, 29, 31};
  const __m512i paired = load512(kPaired);
  for (int k0 = 0; k0 < k; k0 += kPanelK) {
    const int kc = std::min(kPanelK, k - k0);
    const size_t at = static_cast<size_t>(k0 / kPanelK) * static_cast<size_t>(n);
    for (int i = row; i < row + rows; ++i) {
      const float* from = x + static_cast<int64_t>(i) * k + k0;
      __m512 squares = _mm512_setzero_ps(), peak = squares;
      for (int j = 0; j < kc; j += 16) {
        const __m512 v = _mm512_loadu_ps(from + j);
        squares = _mm512_fmadd_ps(v, v, squares);
        peak = _mm512_max_ps(peak, _mm512_abs_ps(v));
      }
      const float sum = _mm512_reduce_add_ps(squares), top = _mm512_reduce_max_ps(peak);
      const bool finite = sum <= 3e38f;
      const float inverse = finite && top > 1e-18f ? std::min(kPanelNorm / std::sqrt(sum), 32767.0f / top) : 0.0f;
      int16_t* to = q + (at + static_cast<size_t>(i)) * kPanelK;
      scales[at + static_cast<size_t>(i)] = !finite ? __builtin_nanf("") : inverse > 0 ? 1.0f / inverse : 0.0f;
      const __mmask16 some = inverse > 0 ? 0xffff : 0;
      const __m512 by = _mm512_set1_ps(inverse);
      for (int j = 0; j < kc; j += 32) {
        const __m512i low = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(some, _mm512_loadu_ps(from + j), by));
        const __m512i high = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(some, _mm512_loadu_ps(from + j + 16), by));
        _mm512_store_si512(to + j, _mm512_permutexvar_epi16(paired, _mm512_packs_epi32(low, high)));
      }
    }
  }
}

}  // namespace

const MatmulKernels kMatmulAvx512 = {16,          true, stream_quantize_avx512, stream_avx512, panel_quantize_avx512,
                                     panel_avx512};

}  // namespace kvasir
