// Encoding of 4-bit codes in registers; as encode_nibbles.
#pragma once
#include "code_load_avx512.h"
#include "kvasir_abi.h"
#include "nibble_kernels_body.h"

namespace kvasir {
namespace {

// Codes of 16 dimensions, 0..15 each, as the two 4-byte groups of nibble_layout.h at `to` and 64 bytes behind.
inline void store_nibbles(uint8_t* to, __m512i codes) {
  const __m128i bytes = _mm512_cvtepi32_epi8(codes);
  const __m128i pairs = _mm_or_si128(bytes, _mm_slli_epi32(_mm_srli_epi64(bytes, 32), 4));
  const int32_t first = _mm_cvtsi128_si32(pairs), second = _mm_extract_epi32(pairs, 2);
  std::memcpy(to, &first, 4);
  std::memcpy(to + kLine, &second, 4);
}

template <class T>
float encode_nibble_rows(uint8_t* block, uint16_t* errors, const CodeShape& shape, const float* centre, float slack, int32_t lane,
                         const CodeRows& rows) {
  float largest = 0;
  const T* row = static_cast<const T*>(rows.rows);
  for (int32_t r = 0; r < rows.count; r++, row += shape.dim) {
    __m512 squares = _mm512_setzero_ps(), lost = _mm512_setzero_ps();
    float biggest = 0;
    const __m512 row_scale = _mm512_set1_ps(sizeof(T) == 1 ? rows.scales[r] : 1);
    for (int32_t band = 0; band < shape.bands; band++) {
      __m512 x = load_unit(row, shape.dim, band * 2), y = load_unit(row, shape.dim, band * 2 + 1);
      if constexpr (sizeof(T) == 1) x = _mm512_mul_ps(x, row_scale), y = _mm512_mul_ps(y, row_scale);
      x = _mm512_sub_ps(x, _mm512_loadu_ps(centre + band * kBand));
      y = _mm512_sub_ps(y, _mm512_loadu_ps(centre + band * kBand + kUnit));
      DotLanes a, b;
      std::memcpy(&a, &x, sizeof a), std::memcpy(&b, &y, sizeof b);
      rotate_lanes(a, b);
      std::memcpy(&x, &a, sizeof x), std::memcpy(&y, &b, sizeof y);
      squares = _mm512_fmadd_ps(x, x, _mm512_fmadd_ps(y, y, squares));
      const float high = _mm512_reduce_max_ps(_mm512_max_ps(x, y)), low = -_mm512_reduce_min_ps(_mm512_min_ps(x, y));
      const float peak = high > low ? high : low;
      biggest = peak > biggest ? peak : biggest;
      uint16_t scale = peak > 1e-30f && peak < 1e37f ? bfloat_above(peak * 0.125f) : 0;
      if (high == peak && scale != 0) scale |= 0x8000;
      const float wide = widen_bfloat(scale);
      std::memcpy(block + nibble_scale_at(lane + r, band, shape.bands), &scale, 2);
      const __m512 step = _mm512_set1_ps(wide), inverse = _mm512_set1_ps(scale == 0 ? 0 : 1 / wide), most = _mm512_set1_ps(7);
      const __m512i p = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_mul_ps(x, inverse), most));
      const __m512i q = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_mul_ps(y, inverse), most));
      x = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(p), step, x);
      y = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(q), step, y);
      lost = _mm512_fmadd_ps(x, x, _mm512_fmadd_ps(y, y, lost));
      const __m512i offset = _mm512_set1_epi32(kNibbleOffset);
      store_nibbles(block + nibble_at(lane + r, band, 0), _mm512_add_epi32(p, offset));
      store_nibbles(block + nibble_at(lane + r, band, 2), _mm512_add_epi32(q, offset));
    }
    const float norm = finish_code(errors + lane + r, shape.bands * kBand, slack, _mm512_reduce_add_ps(squares),
                                   _mm512_reduce_add_ps(lost), biggest);
    largest = norm > largest ? norm : largest;
  }
  return largest;
}

float encode_nibbles_fast(uint8_t* block, uint16_t* errors, const CodeShape& shape, const float* centre, float slack, int32_t lane,
                          const CodeRows& rows) {
  if (rows.dtype == KVASIR_F32) return encode_nibble_rows<float>(block, errors, shape, centre, slack, lane, rows);
  if (rows.dtype == KVASIR_F16) return encode_nibble_rows<uint16_t>(block, errors, shape, centre, slack, lane, rows);
  return encode_nibble_rows<int8_t>(block, errors, shape, centre, slack, lane, rows);
}

}  // namespace
}  // namespace kvasir
