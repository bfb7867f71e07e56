// 8 floats or 8 pairs of 16-bit integers in AVX2 registers, for the attention cores. Include from *_avx2.cc only.
// Same names and meanings as attention_vec512.h.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace kvasir {
namespace {

struct Vec256 {
  using F = __m256;
  using I = __m256i;
  static constexpr int kWidth = 8;
  static constexpr int kRegisters = 16;
  static constexpr bool kIntegers = true;
  static constexpr int kTileKeys = 4;
  static constexpr int kTileVectors = 2;  // 8 accumulators of 16 registers; 12 spill

  static F zero() { return _mm256_setzero_ps(); }
  static F set(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static F load_f16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
  static F load_i8(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
  }
  static void store_f16(uint16_t* p, F x) {
    _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  // In assembly, so that b stays where it is: in a register it would cost another one's place where sums take nearly all.
  static void add_product_at(F& sum, F a, const float* b) {
    asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "m"(*reinterpret_cast<const __m256_u*>(b)));
  }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F abs(F a) { return _mm256_andnot_ps(set(-0.0f), a); }
  static float sum(F a) {
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
  }
  static float max_lane(F a) {
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
  }

  static F quad(F a, F b, F c, F d) { return _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d)); }
  static F join(const F (&quads)[2]) {
    return _mm256_add_ps(_mm256_permute2f128_ps(quads[0], quads[1], 0x20), _mm256_permute2f128_ps(quads[0], quads[1], 0x31));
  }

  static F times_power(F p, F floor) {  // p in [1, 2), floor in [-127, 127]
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_cvtps_epi32(floor), 23)));
  }
  static F exp2(F x) {
    const F clamped = max(x, set(-126.0f)), n = _mm256_floor_ps(clamped), f = sub(clamped, n);
    F p = set(0.0018775767f);
    p = fma(p, f, set(0.0089893397f));
    p = fma(p, f, set(0.055826318f));
    p = fma(p, f, set(0.24015361f));
    p = fma(p, f, set(0.69315308f));
    p = fma(p, f, set(0.99999994f));
    // Below 2^-126 the weight is 0, not 2^-126: a row without visible keys must sum to 0.
    return _mm256_and_ps(times_power(p, n), _mm256_cmp_ps(x, clamped, _CMP_EQ_OQ));
  }
  static F exp2_short(F x) {
    const F clamped = max(x, set(-100.0f)), n = _mm256_floor_ps(clamped), f = sub(clamped, n);
    F p = set(0.013534167f);
    p = fma(p, f, set(0.052011464f));
    p = fma(p, f, set(0.24144275f));
    p = fma(p, f, set(0.69300383f));
    p = fma(p, f, set(1.0000026f));
    return times_power(p, n);
  }

  static I izero() { return _mm256_setzero_si256(); }
  static I iset(int32_t x) { return _mm256_set1_epi32(x); }
  static I iload(const void* p) { return _mm256_loadu_si256((const __m256i*)p); }
  static void istore(void* p, I x) { _mm256_storeu_si256((__m256i*)p, x); }
  static I round(F x) { return _mm256_cvtps_epi32(x); }
  static F to_float(I x) { return _mm256_cvtepi32_ps(x); }
  static void store_i16(int16_t* p, I x) {
    _mm_storeu_si128((__m128i*)p, _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
  }
  static void store_i8(int8_t* p, I x) {
    const __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(w, w));
  }
  static I pair(const int16_t* p) {
    return _mm256_set1_epi32(*(const int32_t __attribute__((may_alias, aligned(2)))*)p);
  }
  static I load_words(const int8_t* p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)); }
  static I zip_low(I a, I b) { return _mm256_unpacklo_epi16(a, b); }
  static I zip_high(I a, I b) { return _mm256_unpackhi_epi16(a, b); }
  static void unzip(I& low, I& high) {
    const I a = _mm256_permute2x128_si256(low, high, 0x20);
    high = _mm256_permute2x128_si256(low, high, 0x31);
    low = a;
  }
  static I pack_pairs(I low, I high) { return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa); }
  static void madd(I& acc, I a, I b) { acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)); }
  static void madd_at(I& acc, I a, const int16_t* b) {
    I product;
    asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(acc), "=&x"(product) : "x"(a), "m"(*reinterpret_cast<const __m256i_u*>(b)));
  }
  static F visible(F x, int32_t key, I first, I last) {
    const I k = iset(key);
    const I hidden = _mm256_or_si256(_mm256_cmpgt_epi32(first, k), _mm256_cmpgt_epi32(k, last));
    return _mm256_blendv_ps(x, set(-__builtin_inff()), _mm256_castsi256_ps(hidden));
  }
};

}  // namespace
}  // namespace kvasir
