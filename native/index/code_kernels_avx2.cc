// Scans and gathers of int8 codes by vpmaddubsw. Its sums of two products have 16 bits: queries of 6 bits and a sign per plane
// keep 255 * 63 * 2 inside them.
#include <immintrin.h>

#include "code_kernels_body.h"
#include "isa.h"

namespace kvasir {
namespace {

constexpr int32_t kShift = 6;
constexpr int32_t kTile = 2;         // query heads at a time
constexpr int32_t kKeysAhead = 16;   // keys that a gather prefetches ahead

inline __m256i load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m256i multiply(__m256i bytes, const int8_t* q) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, load_bytes(q)), _mm256_set1_epi16(1));
}

// Sums of the 4 partial sums of 8 keys, in order: key 4 * lane + j is lane `lane` of s[j].
inline __m256i sum_quads(__m256i s0, __m256i s1, __m256i s2, __m256i s3) {
  const __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(s0, s1), _mm256_unpackhi_epi32(s0, s1));
  const __m256i b = _mm256_add_epi32(_mm256_unpacklo_epi32(s2, s3), _mm256_unpackhi_epi32(s2, s3));
  return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

// Eight keys, from `lane` of a block on.
template <int32_t G, int32_t P>
void scan_eight(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, int32_t g0, const float* base,
                const uint8_t* block, const uint16_t* errors, int32_t lane, ptrdiff_t ahead) {
  const size_t line = static_cast<size_t>(shape.units) * kLine;
  const int8_t* const q = query.lines + static_cast<size_t>(g0) * line;
  const size_t plane = static_cast<size_t>(query.group) * line;
  const uint8_t* const keys = block + shape.unit_at(lane, 0);
  __m256 logits[G];
#pragma GCC unroll 2
  for (int32_t g = 0; g < G; g++) logits[g] = _mm256_setzero_ps();
  for (int32_t band = 0; band < shape.bands; band++) {
    const bool two = band * 2 + 1 < shape.units;
    const size_t at = static_cast<size_t>(band) * 2 * kLine;
    __m256i sums[G][4];
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
      const uint8_t* p = keys + j * line + at;
      const __m256i first = load_bytes(p), second = two ? load_bytes(p + kLine) : _mm256_setzero_si256();
      // Two groups of eight share their lines: each fetches half of them.
      _mm_prefetch(reinterpret_cast<const char*>(p + (lane % 16 == 0 ? 0 : kLine) + ahead), _MM_HINT_T0);
#pragma GCC unroll 2
      for (int32_t g = 0; g < G; g++) {
        const int8_t* row = q + static_cast<size_t>(g) * line + at;
        __m256i sum = multiply(first, row);
        if (two) sum = _mm256_add_epi32(sum, multiply(second, row + kLine));
        if (P == 2) {
          sum = _mm256_add_epi32(_mm256_slli_epi32(sum, kShift), multiply(first, row + plane));
          if (two) sum = _mm256_add_epi32(sum, multiply(second, row + plane + kLine));
        }
        sums[g][j] = sum;
      }
    }
    const __m256i pair = load_bytes(block + shape.scale_at(lane, band & ~1));
    const __m256 scales = _mm256_castsi256_ps(band % 2 == 0 ? _mm256_slli_epi32(pair, 16)
                                                            : _mm256_and_si256(pair, _mm256_set1_epi32(-65536)));
#pragma GCC unroll 2
    for (int32_t g = 0; g < G; g++) {
      const __m256i sum = _mm256_add_epi32(sum_quads(sums[g][0], sums[g][1], sums[g][2], sums[g][3]),
                                           _mm256_set1_epi32(query.offsets[(g0 + g) * shape.bands + band]));
      logits[g] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scales, logits[g]);
    }
  }
#pragma GCC unroll 2
  for (int32_t g = 0; g < G; g++) {
    __m256 x = _mm256_fmadd_ps(logits[g], _mm256_set1_ps(query.factors[g0 + g]), _mm256_set1_ps(base[g0 + g]));
    if (errors != nullptr) {
      const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(errors + lane));
      const __m256 error = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
      x = _mm256_fmadd_ps(error, _mm256_set1_ps(query.bounds[g0 + g]), x);
    }
    _mm256_storeu_ps(out + static_cast<size_t>(g0 + g) * stride + lane, x);
  }
}

template <int32_t P>
void scan_planes(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* base,
                 const uint8_t* codes, const uint16_t* errors, int32_t blocks, const ScanAhead& ahead) {
  for (int32_t b = 0; b < blocks; b++) {
    const uint8_t* block = codes + static_cast<size_t>(b) * shape.block_bytes;
    const ptrdiff_t fetch = ahead.from(block, ahead.once());
    float* to = out + static_cast<size_t>(b) * kBlockKeys;
    const uint16_t* e = errors == nullptr ? nullptr : errors + static_cast<size_t>(b) * kBlockKeys;
    for (int32_t lane = 0; lane < kBlockKeys; lane += 8) {
      int32_t g = 0;
      for (; g + kTile <= query.group; g += kTile) scan_eight<2, P>(to, stride, shape, query, g, base, block, e, lane, fetch);
      if (g < query.group) scan_eight<1, P>(to, stride, shape, query, g, base, block, e, lane, fetch);
    }
  }
}

void scan_codes(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* base,
                const uint8_t* codes, const uint16_t* errors, int32_t blocks, const ScanAhead& ahead) {
  if (query.planes == 2) scan_planes<2>(out, stride, shape, query, base, codes, errors, blocks, ahead);
  else scan_planes<1>(out, stride, shape, query, base, codes, errors, blocks, ahead);
}

void gather_codes(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* base,
                  const uint8_t* const* codes, const uint16_t* const* errors, int32_t chunk_bits, const int32_t* ids,
                  int32_t count) {
  const int32_t mask = (1 << chunk_bits) - 1;
  const auto block_of = [&](int32_t id) {
    return codes[id >> chunk_bits] + static_cast<size_t>((id & mask) / kBlockKeys) * shape.block_bytes;
  };
  for (int32_t i = 0; i < count; i++) {
    if (i + kKeysAhead < count) {
      const int32_t id = ids[i + kKeysAhead], lane = id % kBlockKeys;
      const char* next = reinterpret_cast<const char*>(block_of(id));
      for (int32_t u = 0; u < shape.units; u++) _mm_prefetch(next + shape.unit_at(lane, u), _MM_HINT_T0);
      for (int32_t b = 0; b < shape.bands; b += 2) _mm_prefetch(next + shape.scale_at(lane, b), _MM_HINT_T0);
    }
    const int32_t id = ids[i], chunk = id >> chunk_bits, lane = id % kBlockKeys;
    const uint8_t* block = block_of(id);
    const uint8_t* units = block + shape.unit_at(lane, 0);
    for (int32_t g = 0; g < query.group; g++) {
      __m256 total = _mm256_setzero_ps();
      for (int32_t band = 0; band < shape.bands; band++) {
        const uint8_t* p = units + static_cast<size_t>(band) * 2 * kLine;
        const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const __m128i second = band * 2 + 1 < shape.units ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + kLine))
                                                          : _mm_setzero_si128();
        const __m256i bytes = _mm256_set_m128i(second, first);
        const int8_t* row = query.rows + static_cast<size_t>(g) * query.row_bytes + band * kBand;
        __m256i sum = multiply(bytes, row);
        if (query.planes == 2) {
          const int8_t* low = row + static_cast<size_t>(query.group) * query.row_bytes;
          sum = _mm256_add_epi32(_mm256_slli_epi32(sum, kShift), multiply(bytes, low));
        }
        // One of the eight partial sums carries the offset.
        sum = _mm256_add_epi32(sum, _mm256_setr_epi32(query.offsets[g * shape.bands + band], 0, 0, 0, 0, 0, 0, 0));
        uint16_t scale;
        std::memcpy(&scale, block + shape.scale_at(lane, band), 2);
        total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(widen_bfloat(scale)), total);
      }
      __m128 four = _mm_add_ps(_mm256_castps256_ps128(total), _mm256_extractf128_ps(total, 1));
      four = _mm_add_ps(four, _mm_movehl_ps(four, four));
      float x = _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four))) * query.factors[g] + base[chunk * query.group + g];
      if (errors != nullptr) x += query.bounds[g] * widen_bfloat(errors[chunk][id & mask]);
      out[static_cast<size_t>(g) * stride + static_cast<size_t>(i)] = x;
    }
  }
}

}  // namespace

const CodeKernels kCodesAvx2 = {128, kShift, add_code_rows, encode_codes, encode_query, scan_codes, gather_codes};

}  // namespace kvasir
