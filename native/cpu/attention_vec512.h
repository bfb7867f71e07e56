// 16 floats or 16 pairs of 16-bit integers in AVX-512 registers, for the attention cores. Include from *_avx512.cc
// only.
#pragma once
// gcc 12 takes its own _mm512_undefined_* for a use of uninitialized memory (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstdint>

namespace kvasir {
namespace {

struct Vec512 {
  using F = __m512;
  using I = __m512i;
  static constexpr int kWidth = 16;
  static constexpr int kRegisters = 32;
  static constexpr bool kIntegers = true;
  static constexpr int kTileKeys = 8;     // register tile of the prefill core: keys (or value columns) ...
  static constexpr int kTileVectors = 3;  // ... by vectors of query rows: 24 accumulators of 32 registers

  static F zero() { return _mm512_setzero_ps(); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static F load_f16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
  static F load_i8(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
  }
  static void store_f16(uint16_t* p, F x) {
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static void add_product_at(F& sum, F a, const float* b) { sum = _mm512_fmadd_ps(a, load(b), sum); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F abs(F a) { return _mm512_abs_ps(a); }
  static float sum(F a) { return _mm512_reduce_add_ps(a); }
  static float max_lane(F a) { return _mm512_reduce_max_ps(a); }

  // Sums of the lanes of a, b, c, d, of each 128 bits.
  static F quad(F a, F b, F c, F d) {
    const F ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const F cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd))));
  }
  // ... and of all: 16 sums in order.
  static F join(const F (&quads)[4]) {
    const F ab = _mm512_add_ps(_mm512_shuffle_f32x4(quads[0], quads[1], 0x44), _mm512_shuffle_f32x4(quads[0], quads[1], 0xee));
    const F cd = _mm512_add_ps(_mm512_shuffle_f32x4(quads[2], quads[3], 0x44), _mm512_shuffle_f32x4(quads[2], quads[3], 0xee));
    return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  }

  // 2^x, relative error 2e-7 with float rounding; 0 at -inf.
  static F exp2(F x) {
    const F f = _mm512_reduce_ps(x, 9);  // x - floor(x)
    F p = set(0.0018775767f);
    p = fma(p, f, set(0.0089893397f));
    p = fma(p, f, set(0.055826318f));
    p = fma(p, f, set(0.24015361f));
    p = fma(p, f, set(0.69315308f));
    p = fma(p, f, set(0.99999994f));
    return _mm512_scalef_ps(p, x);
  }
  // 2^x, relative error 3e-6: for weights that are rounded to 13 bits next.
  static F exp2_short(F x) {
    const F f = _mm512_reduce_ps(x, 9);
    F p = set(0.013534167f);
    p = fma(p, f, set(0.052011464f));
    p = fma(p, f, set(0.24144275f));
    p = fma(p, f, set(0.69300383f));
    p = fma(p, f, set(1.0000026f));
    return _mm512_scalef_ps(p, x);
  }

  static I izero() { return _mm512_setzero_si512(); }
  static I iset(int32_t x) { return _mm512_set1_epi32(x); }
  static I iload(const void* p) { return _mm512_loadu_si512(p); }
  static void istore(void* p, I x) { _mm512_storeu_si512(p, x); }
  static I round(F x) { return _mm512_cvtps_epi32(x); }
  static F to_float(I x) { return _mm512_cvtepi32_ps(x); }
  static void store_i16(int16_t* p, I x) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtsepi32_epi16(x)); }
  static void store_i8(int8_t* p, I x) { _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8(x)); }
  // The same pair of 16-bit integers in every lane.
  static I pair(const int16_t* p) {
    return _mm512_set1_epi32(*(const int32_t __attribute__((may_alias, aligned(2)))*)p);
  }
  static I load_words(const int8_t* p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p)); }
  // Pairs (a[i], b[i]) of 16-bit integers: those of the lower and of the upper half of each 128 bits ...
  static I zip_low(I a, I b) { return _mm512_unpacklo_epi16(a, b); }
  static I zip_high(I a, I b) { return _mm512_unpackhi_epi16(a, b); }
  // ... and sums of such pairs back in order.
  static void unzip(I& low, I& high) {
    const I first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    const I a = _mm512_permutex2var_epi64(low, first, high);
    high = _mm512_permutex2var_epi64(low, second, high);
    low = a;
  }
  // Lane pairs (low, high) of two vectors of 32-bit integers that fit 16 bits.
  static I pack_pairs(I low, I high) { return _mm512_mask_blend_epi16(0xaaaaaaaau, low, _mm512_slli_epi32(high, 16)); }
  // acc += a.low * b.low + a.high * b.high. As asm: the intrinsic costs gcc 12 two register copies a use.
  static void madd(I& acc, I a, I b) { asm("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b)); }
  static void madd_at(I& acc, I a, const int16_t* b) { madd(acc, a, iload(b)); }
  // x where first <= key <= last, else -inf.
  static F visible(F x, int32_t key, I first, I last) {
    const I k = iset(key);
    const __mmask16 seen = _mm512_cmple_epi32_mask(first, k) & _mm512_cmple_epi32_mask(k, last);
    return _mm512_mask_blend_ps(seen, set(-__builtin_inff()), x);
  }
};

}  // namespace
}  // namespace kvasir
