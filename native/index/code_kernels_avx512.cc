// Scans and gathers of int8 codes by vpdpbusd.
#include <immintrin.h>

#include <type_traits>

#include "code_kernels_body.h"
#include "byte_scan_avx512.h"
#include "code_load_avx512.h"
#include "isa.h"

namespace kvasir {
namespace {

constexpr int32_t kTile = 4;          // query heads at a time
constexpr int32_t kKeysAhead = 16;    // keys that a gather prefetches ahead

inline __m512 widen_bfloats(const uint16_t* from) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// U: units of a key where that is known, as strides are constants then; else 0.
template <int32_t G, int32_t P, int32_t U, int L>
void scan_tile(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, int32_t g0, const float* base,
               const uint8_t* block, const uint16_t* errors, const Fetch& fetch) {
  for (int32_t half = 0; half < 2; half++) {
    __m512 logits[G];
    score_half<G, P, U, L>(logits, shape, query, g0, block, half, fetch);
#pragma GCC unroll 4
    for (int32_t g = 0; g < G; g++) {
      __m512 x = _mm512_fmadd_ps(logits[g], _mm512_set1_ps(query.factors[g0 + g]), _mm512_set1_ps(base[g0 + g]));
      if (errors != nullptr) {
        x = _mm512_fmadd_ps(widen_bfloats(errors + half * 16), _mm512_set1_ps(query.bounds[g0 + g]), x);
      }
      _mm512_storeu_ps(out + static_cast<size_t>(g0 + g) * stride + half * 16, x);
    }
  }
}

template <int32_t P, int32_t U, int L>
void scan_planes(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* base,
                 const uint8_t* codes, const uint16_t* errors, int32_t blocks, const ScanAhead& ahead) {
  for (int32_t b = 0; b < blocks; b++) {
    const uint8_t* block = codes + static_cast<size_t>(b) * shape.block_bytes;
    const Fetch fetch = {ahead.from(block, ahead.far), ahead.from(block, ahead.near)};
    float* to = out + static_cast<size_t>(b) * kBlockKeys;
    const uint16_t* e = errors == nullptr ? nullptr : errors + static_cast<size_t>(b) * kBlockKeys;
    int32_t g = 0;
    for (; g + kTile <= query.group; g += kTile) scan_tile<4, P, U, L>(to, stride, shape, query, g, base, block, e, fetch);
    if (query.group - g == 3) scan_tile<3, P, U, L>(to, stride, shape, query, g, base, block, e, fetch);
    else if (query.group - g == 2) scan_tile<2, P, U, L>(to, stride, shape, query, g, base, block, e, fetch);
    else if (query.group - g == 1) scan_tile<1, P, U, L>(to, stride, shape, query, g, base, block, e, fetch);
  }
}

void scan_codes(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* base,
                const uint8_t* codes, const uint16_t* errors, int32_t blocks, const ScanAhead& ahead) {
  const auto scan = [&](auto units) {
    constexpr int32_t U = decltype(units)::value;
    const auto planes = ahead.to_l1 ? (query.planes == 2 ? scan_planes<2, U, 3> : scan_planes<1, U, 3>)
                                    : (query.planes == 2 ? scan_planes<2, U, 2> : scan_planes<1, U, 2>);
    planes(out, stride, shape, query, base, codes, errors, blocks, ahead);
  };
  switch (shape.units) {
    case 4: return scan(std::integral_constant<int32_t, 4>());
    case 8: return scan(std::integral_constant<int32_t, 8>());
    case 16: return scan(std::integral_constant<int32_t, 16>());
    default: return scan(std::integral_constant<int32_t, 0>());
  }
}

// Four units, two bands, of one key: adjacent lines. Units from `count` on are zeros.
inline __m512i load_units(const uint8_t* p, int32_t count) {
  const auto unit = [&](int32_t u) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + u * kLine)); };
  __m512i x = _mm512_castsi128_si512(unit(0));
  x = _mm512_zextsi128_si512(_mm512_castsi512_si128(x));
  if (count > 1) x = _mm512_inserti32x4(x, unit(1), 1);
  if (count > 2) x = _mm512_inserti32x4(x, unit(2), 2);
  if (count > 3) x = _mm512_inserti32x4(x, unit(3), 3);
  return x;
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
    for (int32_t g0 = 0; g0 < query.group; g0 += kTile) {
      const int32_t some = query.group - g0 < kTile ? query.group - g0 : kTile;
      __m512 totals[kTile];
      for (int32_t g = 0; g < some; g++) totals[g] = _mm512_setzero_ps();
      for (int32_t pair = 0; pair < shape.pairs; pair++) {
        const __m512i bytes = load_units(units + static_cast<size_t>(pair) * 4 * kLine, shape.units - pair * 4);
        uint32_t both;
        std::memcpy(&both, block + shape.scale_at(lane, pair * 2), 4);
        const __m512 scales = _mm512_castsi512_ps(_mm512_inserti64x4(
            _mm512_set1_epi32(static_cast<int32_t>(both << 16)),
            _mm256_set1_epi32(static_cast<int32_t>(both & 0xffff0000u)), 1));
        for (int32_t g = 0; g < some; g++) {
          const int32_t* offset = query.offsets + (g0 + g) * shape.bands + pair * 2;
          // One of the eight partial sums of each band carries its offset.
          __m512i sum = _mm512_setzero_si512();
          for (int32_t p = 0; p < query.planes; p++) {
            if (p > 0) sum = _mm512_slli_epi32(sum, kShift);
            add_products(sum, bytes, _mm512_loadu_si512(query.rows + static_cast<size_t>(p * query.group + g0 + g) * query.row_bytes + pair * 64));
          }
          const int32_t second = pair * 2 + 1 < shape.bands ? offset[1] : 0;
          sum = _mm512_add_epi32(sum, _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_setr_epi32(offset[0], 0, 0, 0, 0, 0, 0, 0)),
                                                         _mm256_setr_epi32(second, 0, 0, 0, 0, 0, 0, 0), 1));
          totals[g] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scales, totals[g]);
        }
      }
      for (int32_t g = 0; g < some; g++) {
        float x = _mm512_reduce_add_ps(totals[g]) * query.factors[g0 + g] + base[chunk * query.group + g0 + g];
        if (errors != nullptr) x += query.bounds[g0 + g] * widen_bfloat(errors[chunk][id & mask]);
        out[static_cast<size_t>(g0 + g) * stride + static_cast<size_t>(i)] = x;
      }
    }
  }
}

// As encode_codes, with the units of a band in registers.
template <class T>
float encode_registers(uint8_t* block, uint16_t* errors, const CodeShape& shape, const float* centre, float slack, int32_t lane,
                       const CodeRows& rows) {
  float largest = 0;
  const T* row = static_cast<const T*>(rows.rows);
  for (int32_t r = 0; r < rows.count; r++, row += shape.dim) {
    __m512 squares = _mm512_setzero_ps(), lost = _mm512_setzero_ps(), peaks = _mm512_setzero_ps();
    uint8_t* const units = block + shape.unit_at(lane + r, 0);
    uint8_t* const scales = block + shape.scale_at(lane + r, 0);
    const __m512 row_scale = _mm512_set1_ps(sizeof(T) == 1 ? rows.scales[r] : 1);
    for (int32_t band = 0; band < shape.bands; band++) {
      const int32_t unit = band * 2;
      const bool two = unit + 1 < shape.units;
      __m512 x = load_unit(row, shape.dim, unit), y = two ? load_unit(row, shape.dim, unit + 1) : _mm512_setzero_ps();
      if constexpr (sizeof(T) == 1) x = _mm512_mul_ps(x, row_scale), y = _mm512_mul_ps(y, row_scale);
      x = _mm512_sub_ps(x, _mm512_loadu_ps(centre + unit * kUnit));
      if (two) y = _mm512_sub_ps(y, _mm512_loadu_ps(centre + (unit + 1) * kUnit));
      squares = _mm512_fmadd_ps(x, x, _mm512_fmadd_ps(y, y, squares));
      const __m512 most = _mm512_max_ps(_mm512_abs_ps(x), _mm512_abs_ps(y));
      peaks = _mm512_max_ps(peaks, most);
      const float peak = _mm512_reduce_max_ps(most);
      const uint16_t scale = code_scale(peak);
      std::memcpy(scales + band / 2 * (kBlockKeys * 4) + band % 2 * 2, &scale, 2);
      const float wide = widen_bfloat(scale);
      const __m512 step = _mm512_set1_ps(wide), inverse = _mm512_set1_ps(scale == 0 ? 0 : 1 / wide);
      const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)), b = _mm512_cvtps_epi32(_mm512_mul_ps(y, inverse));
      x = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(a), step, x);
      y = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(b), step, y);
      lost = _mm512_fmadd_ps(x, x, _mm512_fmadd_ps(y, y, lost));
      const __m512i middle = _mm512_set1_epi32(128);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(units + unit * kLine), _mm512_cvtepi32_epi8(_mm512_add_epi32(a, middle)));
      if (!two) continue;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(units + (unit + 1) * kLine),
                       _mm512_cvtepi32_epi8(_mm512_add_epi32(b, middle)));
    }
    const float norm = finish_code(errors + lane + r, shape.dim, slack, _mm512_reduce_add_ps(squares), _mm512_reduce_add_ps(lost),
                                   _mm512_reduce_max_ps(peaks));
    largest = norm > largest ? norm : largest;
  }
  return largest;
}

float encode_any(uint8_t* block, uint16_t* errors, const CodeShape& shape, const float* centre, float slack, int32_t lane,
                 const CodeRows& rows) {
  if (rows.dtype == KVASIR_F32) return encode_registers<float>(block, errors, shape, centre, slack, lane, rows);
  if (rows.dtype == KVASIR_F16) return encode_registers<uint16_t>(block, errors, shape, centre, slack, lane, rows);
  return encode_registers<int8_t>(block, errors, shape, centre, slack, lane, rows);
}

}  // namespace

const CodeKernels kCodesAvx512 = {128, kShift, add_code_rows, encode_any, encode_query, scan_codes, gather_codes};

}  // namespace kvasir
