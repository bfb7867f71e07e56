// Scores by the coarse plane of 4-bit codes, by vpmaddubsw: 16-bit sums hold a band, 8 · 2 · 3 · 127 < 2^15.
#include <immintrin.h>

#include "isa.h"
#include "sample_kernels_body.h"

namespace kvasir {
namespace {

inline __m256i four_dims(const int8_t* q) {
  return _mm256_set1_epi32(*reinterpret_cast<const int32_t __attribute__((may_alias, aligned(1)))*>(q));
}

// Logits of slots 8 * part ... of both halves of a block, for heads g0 .. g0 + G, in code units.
template <int32_t G>
inline void score_part(__m256 (&scores)[G][2], const CodeShape& shape, const CodeQuery& query, int32_t g0, const uint8_t* block,
                       int32_t part) {
  const __m256i two = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
  const uint8_t* scales_at = block + shape.bands * kCoarseBandBytes + part * 32;
  for (int32_t half = 0; half < 2; half++) {
    const uint8_t* at = block + half * 128 + part * 32;
    __m256 totals[G];
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) totals[g] = _mm256_setzero_ps();
    for (int32_t band = 0; band < shape.bands; band++, at += kCoarseBandBytes) {
      __m256i sums[G];
#pragma GCC unroll 4
      for (int32_t g = 0; g < G; g++) sums[g] = _mm256_setzero_si256();
#pragma GCC unroll 2
      for (int32_t j = 0; j < 2; j++) {
        __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + j * 64));
#pragma GCC unroll 4
        for (int32_t t = 0; t < 4; t++) {
          const __m256i codes = _mm256_and_si256(x, two);
          x = _mm256_srli_epi16(x, 2);
#pragma GCC unroll 4
          for (int32_t g = 0; g < G; g++) {
            const int8_t* q = query.rows + static_cast<size_t>(g0 + g) * query.row_bytes + band * kNibbleBand + j * 16 + t * 4;
            sums[g] = _mm256_add_epi16(sums[g], _mm256_maddubs_epi16(codes, four_dims(q)));
          }
        }
      }
      const __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales_at + (band / 2) * 128 + half * 64));
      const __m256 scales = _mm256_castsi256_ps(band % 2 == 0 ? _mm256_slli_epi32(pair, 16)
                                                              : _mm256_and_si256(pair, _mm256_set1_epi32(-65536)));
#pragma GCC unroll 4
      for (int32_t g = 0; g < G; g++) {
        const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(sums[g], ones),
                                             _mm256_set1_epi32(query.coarse[(g0 + g) * shape.bands + band]));
        totals[g] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scales, totals[g]);
      }
    }
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) scores[g][half] = totals[g];
  }
}

template <int32_t G>
inline void scan_block(int16_t* out, size_t stride, const CodeShape& shape, const CodeQuery& query, int32_t g0,
                       const float* gains, const float* bases, const uint8_t* block, float* sums) {
  for (int32_t part = 0; part < 2; part++) {
    __m256 scores[G][2];
    score_part<G>(scores, shape, query, g0, block, part);
    for (int32_t g = 0; g < G; g++) {
      const __m256 gain = _mm256_set1_ps(gains[g0 + g]), base = _mm256_set1_ps(bases[g0 + g]);
      const __m256i logs =
          _mm256_max_epi16(_mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_fmadd_ps(scores[g][0], gain, base)),
                                              _mm256_cvtps_epi32(_mm256_fmadd_ps(scores[g][1], gain, base))),
                           _mm256_set1_epi16(kLogLeast));
      int16_t* to = out + static_cast<size_t>(g0 + g) * stride + part * 16;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), logs);
      // As in AVX-512: odd scores carry the even ones below their seven bits of fraction.
      const __m256 pairs = _mm256_add_ps(_mm256_castsi256_ps(_mm256_slli_epi32(logs, 16)), _mm256_castsi256_ps(logs));
      _mm256_storeu_ps(sums + (g0 + g) * 8, _mm256_add_ps(_mm256_loadu_ps(sums + (g0 + g) * 8), pairs));
    }
  }
}

void scan_tiles(int16_t* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* gains,
                const float* bases, const uint8_t* codes, int32_t blocks, const ScanAhead& ahead, float* sums) {
  constexpr int32_t kMost = 8;  // heads whose sums are kept at a time
  for (int32_t first = 0; first < query.group; first += kMost) {
    const int32_t end = query.group - first < kMost ? query.group : first + kMost;
    float totals[kMost * 8] = {};
    float* const lanes = totals;
    const uint8_t* block = codes;
    CodeQuery some = query;
    some.rows += static_cast<size_t>(first) * query.row_bytes;
    some.coarse += first * shape.bands;
    const int32_t group = end - first;
    int16_t* to = out + static_cast<size_t>(first) * stride;
    for (int32_t b = 0; b < blocks; b++, block += shape.block_bytes, to += kNibbleBlock) {
      const uint8_t* const fetched = block + ahead.from(block, ahead.once());
      for (size_t line = 0; line < shape.block_bytes; line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(fetched) + line, _MM_HINT_T0);
      }
      by_fours(group, [&](auto heads, int32_t g) {
        scan_block<decltype(heads)::value>(to, stride, shape, some, g, gains + first, bases + first, block, lanes);
      });
    }
    for (int32_t g = 0; g < group; g++) {
      for (int32_t lane = 0; lane < 8; lane++) sums[first + g] += totals[g * 8 + lane];
    }
  }
}

int32_t sweep_keys(const Candidates& found, int16_t* logs, size_t stride, const CodeShape& shape, const CodeQuery& query,
                   const float* gains, const float* bases, const int16_t* offsets, const uint8_t* codes, int32_t block,
                   int32_t blocks, const ScanAhead& ahead, uint32_t key, float* sums, FineRows*) {
  return sweep_by(scan_tiles, found, logs, stride, shape, query, gains, bases, offsets, codes, block, blocks, ahead, key, sums);
}

// SampleKernels::refine for a group of G: a candidate's 32 dimensions of a band at a time.
template <int32_t G>
inline void refine_keys(int16_t* out, const Candidates& of, int32_t count, const CodeShape& shape, const CodeQuery& query, int32_t g0,
                        const float* gains, const uint8_t* codes, const uint8_t* fine) {
  const __m256i each = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1), shift = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
  const __m256i two = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
  const int8_t* const rows = query.rows + static_cast<size_t>(g0) * query.row_bytes;
  for (int32_t i = 0; i < count; i++) {
    const uint32_t key = static_cast<uint32_t>(of.keys[i]);
    const uint8_t* row = fine + static_cast<size_t>(key) * static_cast<size_t>(shape.bands * kFineBandBytes);
    const uint8_t* const block = codes + static_cast<size_t>(key / kNibbleBlock) * shape.block_bytes;
    __m256 sums[G];
    float rest[G];
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) sums[g] = _mm256_setzero_ps(), rest[g] = 0;
    for (int32_t band = 0; band < shape.bands; band++, row += kFineBandBytes) {
      const __m128i words = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row));
      const __m256i lanes = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(words), each);
      const __m256i x = _mm256_and_si256(_mm256_srlv_epi32(lanes, shift), two);
      uint16_t bits;
      std::memcpy(&bits, block + coarse_scale_at(static_cast<int32_t>(key % kNibbleBlock), band, shape.bands), 2);
      const float scale = widen_bfloat(bits);
#pragma GCC unroll 4
      for (int32_t g = 0; g < G; g++) {
        const int8_t* q = rows + static_cast<size_t>(g) * query.row_bytes + band * kNibbleBand;
        const __m256i pairs = _mm256_maddubs_epi16(x, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)));
        sums[g] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, ones)), _mm256_set1_ps(scale), sums[g]);
        rest[g] += static_cast<float>(query.fine[(g0 + g) * shape.bands + band]) * scale;
      }
    }
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) {
      __m128 x = _mm_add_ps(_mm256_castps256_ps128(sums[g]), _mm256_extractf128_ps(sums[g], 1));
      x = _mm_add_ps(x, _mm_movehl_ps(x, x));
      const float added = _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x))) + rest[g];
      const size_t at = static_cast<size_t>(g0 + g) * of.stride + static_cast<size_t>(i);
      const float log = static_cast<float>(of.logs[at]) + added * gains[g0 + g];
      const float low = log > kLogLeast ? log : kLogLeast, most = low < INT16_MAX ? low : INT16_MAX;
      out[at] = static_cast<int16_t>(most + 0.5f);
    }
  }
}

void refine_all(int16_t* out, const Candidates& of, int32_t count, const CodeShape& shape, const CodeQuery& query,
                const float* gains, const uint8_t* codes, const uint8_t* fine) {
  by_fours(query.group, [&](auto heads, int32_t g) {
    refine_keys<decltype(heads)::value>(out, of, count, shape, query, g, gains, codes, fine);
  });
}

}  // namespace

const SampleKernels kSampleAvx2 = {0, nullptr, scan_tiles, fold_scores, draw_plain, sweep_keys, nullptr, refine_all, sift_keys, settle_keys};

}  // namespace kvasir
