// Decode on AVX2: as matmul_stream_avx512.cc, but codes widen to 16 bits in place (even and odd bytes of each 32-bit
// lane) and meet 16-bit x by vpmaddwd, so x needs no planes. Bytes of x: matmul_bytes_avx2.h.
#include "matmul_stream_avx2.h"

#include <algorithm>

#include "matmul_bytes_avx2.h"

namespace kvasir {

namespace {

constexpr int kAhead = 8192;  // bytes: a row at .92 of what memory gives, .87 by 4 KB (AMD Zen 3)

// Adds products of x with the even or odd bytes of one vector of codes.
template <int T, int N, int kChains, bool kVnni, bool kHigh, bool kOdd>
inline void add_words(const uint8_t* codes, const StreamBlock* q, size_t stride, int j, __m256i (&sums)[N][2][kChains]) {
  constexpr int kChain = (2 * kHigh + kOdd) % kChains;
  const __m256i w[2] = {code_words<T, kHigh, kOdd>(codes, 0, j), code_words<T, kHigh, kOdd>(codes, 1, j)};
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    const __m256i x = pair_at(q[static_cast<size_t>(i) * stride].q + 4 * (j + 4 * kHigh) + 2 * kOdd);
    dot<kVnni>(sums[i][0][kChain], w[0], x);
    dot<kVnni>(sums[i][1][kChain], w[1], x);
  }
}

// total[i][half] = whole sums of row i over group g.
template <int T, int N, bool kVnni>
inline void group_words(const uint8_t* codes, const StreamBlock* q, size_t stride, int g, __m256i (&total)[N][2]) {
  // vpdpwssd adds to its sum for 4 or 5 clocks: with few rows there are several.
  constexpr int kChains = !kVnni ? 1 : N == 1 ? 4 : N == 2 ? 2 : 1;
  __m256i sums[N][2][kChains];
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
#pragma GCC unroll 8
    for (int at = 0; at < 2 * kChains; ++at) sums[i][at / kChains][at % kChains] = _mm256_setzero_si256();
  }
  const auto add = [&](int j) __attribute__((always_inline)) {
    if (Traits<T>::kGroups == 1 || g == 0) {
      add_words<T, N, kChains, kVnni, false, false>(codes, q, stride, j, sums);
      add_words<T, N, kChains, kVnni, false, true>(codes, q, stride, j, sums);
    }
    if (Traits<T>::kGroups == 1 || g == 1) {
      add_words<T, N, kChains, kVnni, true, false>(codes, q, stride, j, sums);
      add_words<T, N, kChains, kVnni, true, true>(codes, q, stride, j, sums);
    }
  };
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) add(j);
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      total[i][half] = sums[i][half][0];
#pragma GCC unroll 4
      for (int chain = 1; chain < kChains; ++chain) total[i][half] = _mm256_add_epi32(total[i][half], sums[i][half][chain]);
    }
  }
}

// sums[2 * i + half] += row i of x times the 16 rows of one block.
template <int T, int N, bool kVnni, bool kBytes>
inline void block_rows(const uint8_t* codes, const uint8_t* header, int b, const StreamBlock* q, size_t stride, __m256* sums) {
  using A = Traits<T>;
#pragma GCC unroll 2
  for (int g = 0; g < A::kGroups; ++g) {
    __m256i total[N][2];
    if constexpr (kBytes) {
      group_bytes<T, N, kVnni>(codes, q, stride, g, total);
    } else {
      group_words<T, N, kVnni>(codes, q, stride, g, total);
    }
    const Scales<T> s[2] = {load_scales<T>(header, b, 0), load_scales<T>(header, b, 1)};
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const StreamBlock& x = q[static_cast<size_t>(i) * stride];
      // 255 * 32767 * 32 and the offset's share stay under 2^29.
      const __m256i offset = _mm256_set1_epi32(A::kOffset * (A::kGroups == 2 ? x.sum[g] : x.sum[0] + x.sum[1]));
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const __m256i sum = A::kOffset != 0 ? _mm256_sub_epi32(total[i][half], offset) : total[i][half];
        const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(x.scale));
        __m256& to = sums[2 * i + half];
        to = _mm256_fmadd_ps(scaled, s[half].scale[g], to);
        if (A::kMin && g + 1 == A::kGroups) to = _mm256_fmadd_ps(s[half].min, _mm256_set1_ps(x.total), to);
      }
    }
  }
}

template <int T, int N, bool kVnni, bool kBytes>
inline void panel_rows(const uint8_t* panel, const StreamBlock* q, int blocks, __m256* sums) {
  using A = Traits<T>;
  const uint8_t* p = panel;
#pragma GCC unroll 8
  for (int i = 0; i < 2 * N; ++i) sums[i] = _mm256_setzero_ps();
  for (int first = 0; first < blocks; first += A::kUnitBlocks) {
    const uint8_t* header = p;
    p += A::kHeaderBytes;
    const int count = std::min(A::kUnitBlocks, blocks - first);
#pragma GCC unroll 8
    for (int at = 0; at < A::kHeaderBytes; at += 64) __builtin_prefetch(header + kAhead + at);
    for (int b = 0; b < count; ++b, p += A::kBlockBytes) {
#pragma GCC unroll 8
      for (int at = 0; at < A::kBlockBytes; at += 64) __builtin_prefetch(p + kAhead + at);
      block_rows<T, N, kVnni, kBytes>(p, header, b, q + first + b, static_cast<size_t>(blocks), sums);
    }
  }
}

// Even columns and odd ones have sums of their own, as fma takes four clocks: of more than two rows eight rows of w at a time, for want
// of registers.
template <int T, int N>
inline void plain_rows(const uint8_t* panel, const float* x, int k, __m256* sums) {
  constexpr size_t kSize = T == KVASIR_F32 ? 64 : 32;
  constexpr int kHalves = N <= 2 ? 2 : 1;
  const size_t stride = static_cast<size_t>(k);
#pragma GCC unroll 2
  for (int first = 0; first < 2; first += kHalves) {
    __m256 part[2][N][kHalves];
    const auto add = [&](int at, int odd) __attribute__((always_inline)) {
      const uint8_t* p = panel + static_cast<size_t>(at) * kSize;
      if (first == 0 && (kSize == 64 || odd == 0)) __builtin_prefetch(p + kAhead);
      __m256 w[kHalves];
#pragma GCC unroll 2
      for (int half = 0; half < kHalves; ++half) w[half] = load_plain<T>(p, first + half);
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const __m256 xi = _mm256_set1_ps(x[static_cast<size_t>(i) * stride + static_cast<size_t>(at)]);
#pragma GCC unroll 2
        for (int half = 0; half < kHalves; ++half) part[odd][i][half] = _mm256_fmadd_ps(w[half], xi, part[odd][i][half]);
      }
    };
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
#pragma GCC unroll 2
      for (int half = 0; half < kHalves; ++half) part[0][i][half] = part[1][i][half] = _mm256_setzero_ps();
    }
    for (int at = 0; at + 1 < k; at += 2) add(at, 0), add(at + 1, 1);
    if (k % 2 == 1) add(k - 1, 0);
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
#pragma GCC unroll 2
      for (int half = 0; half < kHalves; ++half) sums[2 * i + first + half] = _mm256_add_ps(part[0][i][half], part[1][i][half]);
    }
  }
}

template <int T, int N, bool kVnni, bool kBytes>
inline void one_panel(const PackedWeight& w, int p, const StreamInput& in, int row, float* out, int64_t ldo) {
  __m256 sums[2 * N];
  const size_t at = static_cast<size_t>(row);
  if constexpr (T == KVASIR_F32 || T == KVASIR_F16 || T == KVASIR_BF16) {
    plain_rows<T, N>(w.panel(p), in.x + at * static_cast<size_t>(in.k), in.k, sums);
  } else {
    panel_rows<T, N, kVnni, kBytes>(w.panel(p), (kBytes ? in.bytes : in.words) + at * static_cast<size_t>(in.k / 32), in.k / 32, sums);
  }
  const int r = p * kPanelRows, left = std::min(kPanelRows, w.rows - r);
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    float* to = out + (row + i) * ldo + r;
    _mm256_maskstore_ps(to, lane_mask(left), sums[2 * i]);
    if (left > 8) _mm256_maskstore_ps(to + 8, lane_mask(left - 8), sums[2 * i + 1]);
  }
}

template <int T, bool kVnni, bool kBytes>
void panels_of(const PackedWeight& w, int panel, int panels, const StreamInput& in, float* out, int64_t ldo) {
  for (int p = panel; p < panel + panels; ++p) {
    int i = 0;
    for (; i + 4 <= in.n; i += 4) one_panel<T, 4, kVnni, kBytes>(w, p, in, i, out, ldo);
    switch (in.n - i) {
      case 3: one_panel<T, 3, kVnni, kBytes>(w, p, in, i, out, ldo); break;
      case 2: one_panel<T, 2, kVnni, kBytes>(w, p, in, i, out, ldo); break;
      case 1: one_panel<T, 1, kVnni, kBytes>(w, p, in, i, out, ldo); break;
      default: break;
    }
  }
}

template <int T>
void blocks_of(const PackedWeight& w, int panel, int panels, const StreamInput& in, float* out, int64_t ldo) {
  static const bool has_vnni = cpu_has_avx_vnni();
  if constexpr (takes_bytes(T)) {
    if (in.bytes != nullptr) return (has_vnni ? panels_of<T, true, true> : panels_of<T, false, true>)(w, panel, panels, in, out, ldo);
  }
  (has_vnni ? panels_of<T, true, false> : panels_of<T, false, false>)(w, panel, panels, in, out, ldo);
}

}  // namespace

void stream_avx2(const PackedWeight& w, int panel, int panels, const StreamInput& in, float* out, int64_t ldo) {
  switch (w.dtype) {
    case KVASIR_F32: return panels_of<KVASIR_F32, false, false>(w, panel, panels, in, out, ldo);
    case KVASIR_F16: return panels_of<KVASIR_F16, false, false>(w, panel, panels, in, out, ldo);
    case KVASIR_BF16: return panels_of<KVASIR_BF16, false, false>(w, panel, panels, in, out, ldo);
    case KVASIR_Q4_0: return blocks_of<KVASIR_Q4_0>(w, panel, panels, in, out, ldo);
    case KVASIR_Q4_1: return blocks_of<KVASIR_Q4_1>(w, panel, panels, in, out, ldo);
    case KVASIR_Q5_0: return blocks_of<KVASIR_Q5_0>(w, panel, panels, in, out, ldo);
    case KVASIR_Q5_1: return blocks_of<KVASIR_Q5_1>(w, panel, panels, in, out, ldo);
    case KVASIR_Q8_0: return blocks_of<KVASIR_Q8_0>(w, panel, panels, in, out, ldo);
    case KVASIR_Q3_K: return blocks_of<KVASIR_Q3_K>(w, panel, panels, in, out, ldo);
    case KVASIR_Q4_K: return blocks_of<KVASIR_Q4_K>(w, panel, panels, in, out, ldo);
    case KVASIR_Q5_K: return blocks_of<KVASIR_Q5_K>(w, panel, panels, in, out, ldo);
    case KVASIR_Q6_K: return blocks_of<KVASIR_Q6_K>(w, panel, panels, in, out, ldo);
    case KVASIR_IQ4_NL: return blocks_of<KVASIR_IQ4_NL>(w, panel, panels, in, out, ldo);
    default: return;
  }
}

void stream_quantize_avx2(StreamBlock* q, const float* x, int k, bool bytes) {
  const float limit = bytes ? 127.0f : 32767.0f;
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
    const float top = max_of(peak), inverse = finite && top > 1e-30f ? limit / top : 0.0f;
    q->scale = !finite ? __builtin_nanf("") : inverse > 0 ? top / limit : 0.0f;
    __m256i integers[4];
    for (int j = 0; j < 4; ++j) {
      integers[j] = _mm256_cvtps_epi32(inverse > 0 ? _mm256_mul_ps(v[j], _mm256_set1_ps(inverse)) : _mm256_setzero_ps());
    }
    for (int j = 0; j < 2; ++j) {
      const __m256i low = integers[2 * j], high = integers[2 * j + 1];
      if (!bytes) _mm256_storeu_si256(reinterpret_cast<__m256i*>(q->q + 16 * j), pack_paired(low, high));
      const __m256i sum = _mm256_add_epi32(low, high);
      __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
      half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
      q->sum[j] = _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
    }
    if (bytes) _mm256_storeu_si256(reinterpret_cast<__m256i*>(q->q), pack_bytes(integers));
    q->total = q->scale * static_cast<float>(q->sum[0] + q->sum[1]);
  }
}

}  // namespace kvasir
