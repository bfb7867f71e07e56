// Decode: the weight streams through registers once for up to eight rows of x.
//
// Ladder: a step of SmolLM2's matrices in Q4_0 (90 MB), two threads, read bandwidth of the idle machine 27 GB/s.
//   1. two int8 planes of x (x = scale * (256 hi + lo)), vpdpbusd against unsigned codes, 16 rows a register: no
//      horizontal sums, codes exact, offsets and mins by the block's sum of x: 28.8 GB/s from memory, 43 when the
//      host's L3 holds the weights. From L2 one thread takes 25 to 35 GB/s, twice what memory gives it.
//   2. products of four rows take turns, eight sums in flight (an instruction takes 5 clocks, two begin in each): eight
//      rows .84 of the processor time where another machine shares the core, .97 where none does; bits as before
//   3. neighbouring tasks go to one thread, and weights are fetched 16 KB ahead in place of 4: on AMD Zen 5 .78 of the time for one
//      row, .80 for eight (from memory, two threads). 8 KB: .87, but for eight rows .98 of 16;
//      32 KB: no change; to L2 alone: 1.02; 16 KB without the first: slower
//   Lost, eight rows: one sum a row, the low plane added to the shifted high one, rows one after another 1.2; in turns
//   no change; two panels a pass that share what is broadcast of x, sixteen sums in flight: no change hot (37 ns a block),
//   slower from memory.
//   Not built: 16-bit codes and vpdpwssd, 44 vector instructions a block where planes need 30.
#include "matmul_stream_avx512.h"

#include <algorithm>

#include "matmul_codes_avx512.h"

namespace kvasir {

namespace {

// Compilers copy the accumulator of the intrinsic; the broadcast operand saves a register and an instruction. Volatile:
// they would put products of one sum behind each other, each of which waits for the last.
inline void dot(__m512i& sum, __m512i codes, const void* x4) {
  asm volatile("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(codes), "m"(*static_cast<const int32_t*>(x4)));
}

// Bytes: hardware prefetch stops at page borders. Where a byte takes longer, less is far enough, and L1 has x to hold as well.
constexpr int ahead(int rows) { return rows == 8 ? 8192 : 16384; }

// One 16-row panel times N rows of x; sums [N] start at zero.
template <int T, int N, bool kBytes>
inline void panel_rows(const uint8_t* panel, const StreamBlock* q, int blocks, __m512 sums[N]) {
  using A = Traits<T>;
  constexpr int kAhead = ahead(N);
  constexpr int kTogether = N < 4 ? N : 4;  // rows whose products take turns
  static_assert(N % kTogether == 0, "Rows come in fours");
  const uint8_t* p = panel;
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) sums[i] = _mm512_setzero_ps();
  for (int first = 0; first < blocks; first += A::kUnitBlocks) {
    const uint8_t* header = p;
    p += A::kHeader;
    const int count = std::min(A::kUnitBlocks, blocks - first);
    for (int at = 0; at < A::kHeader; at += 64) __builtin_prefetch(header + kAhead + at);
    for (int b = 0; b < count; ++b, p += A::kBlock) {
#pragma GCC unroll 8
      for (int at = 0; at < A::kBlock; at += 64) __builtin_prefetch(p + kAhead + at);
      __m512i c[8];
      load_codes<T>(p, c);
      const Scales<T> s = load_scales<T>(header, b);
#pragma GCC unroll 8
      for (int i = 0; i < N; i += kTogether) {
        const StreamBlock* x[kTogether];
#pragma GCC unroll 4
        for (int j = 0; j < kTogether; ++j) {
          x[j] = q + static_cast<size_t>(i + j) * static_cast<size_t>(blocks) + static_cast<size_t>(first + b);
        }
#pragma GCC unroll 2
        for (int g = 0; g < A::kGroups; ++g) {
          constexpr int kVectors = 8 / A::kGroups;
          __m512i low[kTogether], high[kTogether];
#pragma GCC unroll 4
          for (int j = 0; j < kTogether; ++j) {
            // 255 * 32639 * 32 and the offset's share stay under 2^29.
            const int32_t sum = A::kGroups == 2 ? x[j]->sum[g] : x[j]->sum[0] + x[j]->sum[1];
            low[j] = _mm512_set1_epi32(-A::kOffset * sum), high[j] = _mm512_setzero_si512();
          }
#pragma GCC unroll 8
          for (int v = g * kVectors; v < (g + 1) * kVectors; ++v) {
#pragma GCC unroll 4
            for (int j = 0; j < kTogether; ++j) {
              const int8_t* hi = reinterpret_cast<const int8_t*>(x[j]->q);
              dot(kBytes ? low[j] : high[j], c[v], hi + 4 * v);
              if constexpr (!kBytes) dot(low[j], c[v], hi + 32 + 4 * v);
            }
          }
#pragma GCC unroll 4
          for (int j = 0; j < kTogether; ++j) {
            if constexpr (!kBytes) low[j] = _mm512_add_epi32(low[j], _mm512_slli_epi32(high[j], 8));
            const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(low[j]), _mm512_set1_ps(x[j]->scale));
            sums[i + j] = _mm512_fmadd_ps(scaled, s.scale[g], sums[i + j]);
          }
        }
#pragma GCC unroll 4
        for (int j = 0; A::kMin && j < kTogether; ++j) {
          sums[i + j] = _mm512_fmadd_ps(s.min, _mm512_set1_ps(x[j]->total), sums[i + j]);
        }
      }
    }
  }
}

template <int T>
constexpr bool is_plain = T == KVASIR_F32 || T == KVASIR_F16 || T == KVASIR_BF16;

// Plain types: [k][16] elements times floats, four chains.
template <int T>
inline __m512 load_plain(const uint8_t* p) {
  if constexpr (T == KVASIR_F32) return _mm512_load_ps(p);
  const __m256i h = _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
  if constexpr (T == KVASIR_F16) return _mm512_cvtph_ps(h);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

template <int T, int N>
inline void plain_rows(const uint8_t* panel, const float* x, int k, __m512 sums[N]) {
  constexpr int kSize = T == KVASIR_F32 ? 64 : 32, kAhead = ahead(N);
  __m512 part[N][4];
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) part[i][u] = _mm512_setzero_ps();
  }
  int at = 0;
  for (; at + 4 <= k; at += 4) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      const uint8_t* p = panel + static_cast<size_t>(at + u) * kSize;
      if (kSize == 64 || u % 2 == 0) __builtin_prefetch(p + kAhead);
      const __m512 w = load_plain<T>(p);
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        part[i][u] = _mm512_fmadd_ps(
            w, _mm512_set1_ps(x[static_cast<size_t>(i) * static_cast<size_t>(k) + static_cast<size_t>(at + u)]),
            part[i][u]);
      }
    }
  }
  for (; at < k; ++at) {
    const __m512 w = load_plain<T>(panel + static_cast<size_t>(at) * kSize);
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      part[i][0] = _mm512_fmadd_ps(
          w, _mm512_set1_ps(x[static_cast<size_t>(i) * static_cast<size_t>(k) + static_cast<size_t>(at)]), part[i][0]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    sums[i] = _mm512_add_ps(_mm512_add_ps(part[i][0], part[i][1]), _mm512_add_ps(part[i][2], part[i][3]));
  }
}

template <int T, int N, bool kBytes>
inline void one_panel(const PackedWeight& w, int p, const StreamInput& in, int row, float* out, int64_t ldo) {
  __m512 sums[N];
  const size_t at = static_cast<size_t>(row);
  if constexpr (is_plain<T>) {
    plain_rows<T, N>(w.panel(p), in.x + at * static_cast<size_t>(in.k), in.k, sums);
  } else {
    panel_rows<T, N, kBytes>(w.panel(p), (kBytes ? in.bytes : in.words) + at * static_cast<size_t>(in.k / 32), in.k / 32, sums);
  }
  const int r = p * kPanelRows, left = std::min(kPanelRows, w.rows - r);
  const __mmask16 mask = static_cast<__mmask16>((1u << left) - 1);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) _mm512_mask_storeu_ps(out + (row + i) * ldo + r, mask, sums[i]);
}

// A panel is a few KB: it stays in L1 or L2 while further groups of rows pass over it.
template <int T, bool kBytes>
void panels_of(const PackedWeight& w, int panel, int panels, const StreamInput& in, float* out, int64_t ldo) {
  for (int p = panel; p < panel + panels; ++p) {
    int i = 0;
    if constexpr (!is_plain<T>) {
      for (; i + 8 <= in.n; i += 8) one_panel<T, 8, kBytes>(w, p, in, i, out, ldo);
    }
    for (; i + 4 <= in.n; i += 4) one_panel<T, 4, kBytes>(w, p, in, i, out, ldo);
    if (in.n - i == 3) one_panel<T, 3, kBytes>(w, p, in, i, out, ldo);
    if (in.n - i == 2) one_panel<T, 2, kBytes>(w, p, in, i, out, ldo);
    if (in.n - i == 1) one_panel<T, 1, kBytes>(w, p, in, i, out, ldo);
  }
}

template <int T>
void panels_of(const PackedWeight& w, int panel, int panels, const StreamInput& in, float* out, int64_t ldo) {
  if constexpr (takes_bytes(T)) {
    if (in.bytes != nullptr) return panels_of<T, true>(w, panel, panels, in, out, ldo);
  }
  panels_of<T, false>(w, panel, panels, in, out, ldo);
}

}  // namespace

void stream_avx512(const PackedWeight& w, int panel, int panels, const StreamInput& in, float* out, int64_t ldo) {
  switch (w.dtype) {
    case KVASIR_F32: return panels_of<KVASIR_F32, false>(w, panel, panels, in, out, ldo);
    case KVASIR_F16: return panels_of<KVASIR_F16, false>(w, panel, panels, in, out, ldo);
    case KVASIR_BF16: return panels_of<KVASIR_BF16, false>(w, panel, panels, in, out, ldo);
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

// Words: integers of at most 32639 = 127 * 256 + 127 as planes hi [32] in -127..127, lo [32] in -128..127. Bytes: hi
// alone, at most 127.
void stream_quantize_avx512(StreamBlock* q, const float* x, int k, bool bytes) {
  const float limit = bytes ? 127.0f : 32639.0f;
  for (int b = 0; b < k / 32; ++b, ++q, x += 32) {
    const __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    const float peak = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(x0), _mm512_abs_ps(x1)));
    // A block with NaN or infinity has no integers: its scale carries the NaN into every output. Below 1e-30 it is
    // zero.
    const bool finite = _mm512_cmp_ps_mask(_mm512_abs_ps(x0), _mm512_set1_ps(3e38f), _CMP_NLE_UQ) == 0 &&
                        _mm512_cmp_ps_mask(_mm512_abs_ps(x1), _mm512_set1_ps(3e38f), _CMP_NLE_UQ) == 0;
    const float inverse = finite && peak > 1e-30f ? limit / peak : 0.0f;
    q->scale = !finite ? __builtin_nanf("") : inverse > 0 ? peak / limit : 0.0f;
    const __m512 by = _mm512_set1_ps(inverse);
    const __m512i zero = _mm512_setzero_si512();
    const __m512i i0 = finite ? _mm512_cvtps_epi32(_mm512_mul_ps(x0, by)) : zero;
    const __m512i i1 = finite ? _mm512_cvtps_epi32(_mm512_mul_ps(x1, by)) : zero;
    q->sum[0] = _mm512_reduce_add_epi32(i0);
    q->sum[1] = _mm512_reduce_add_epi32(i1);
    q->total = q->scale * static_cast<float>(q->sum[0] + q->sum[1]);
    int8_t* planes = reinterpret_cast<int8_t*>(q->q);
    __m512i h0 = i0, h1 = i1;
    if (!bytes) {
      const __m512i half = _mm512_set1_epi32(128);
      h0 = _mm512_srai_epi32(_mm512_add_epi32(i0, half), 8);
      h1 = _mm512_srai_epi32(_mm512_add_epi32(i1, half), 8);
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(planes), _mm512_cvtepi32_epi8(h0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(planes + 16), _mm512_cvtepi32_epi8(h1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(planes + 32), _mm512_cvtepi32_epi8(i0));  // low byte, signed
    _mm_storeu_si128(reinterpret_cast<__m128i*>(planes + 48), _mm512_cvtepi32_epi8(i1));
  }
}

}  // namespace kvasir
