// 32 columns of a quantized weight (weights.h): loaded as they lie, then taken apart into bytes and factors.
//   value = scale * (code - offset) + min, one scale for 32 columns or one for each 16
#pragma once
#include "device.h"
#include "kvasir_abi.h"
#include "weights.h"

namespace kvasir {

template <int kType>
struct BlockType {
  static constexpr bool kSuper = kType == KVASIR_Q3_K || kType == KVASIR_Q4_K || kType == KVASIR_Q5_K || kType == KVASIR_Q6_K;
  static constexpr bool kHalves = kType == KVASIR_Q3_K || kType == KVASIR_Q6_K;  // a scale each 16 columns
  static constexpr bool kMin = kType == KVASIR_Q4_1 || kType == KVASIR_Q5_1 || kType == KVASIR_Q4_K || kType == KVASIR_Q5_K;
  static constexpr int kLow = kType == KVASIR_Q8_0 ? 32 : kType == KVASIR_Q3_K ? 8 : 16;
  static constexpr int kHigh = kType == KVASIR_Q6_K ? 8
                               : kType == KVASIR_Q5_0 || kType == KVASIR_Q5_1 || kType == KVASIR_Q5_K || kType == KVASIR_Q3_K ? 4
                                                                                                                         : 0;
  static constexpr int kOffset =
      kType == KVASIR_Q4_0 ? 8 : kType == KVASIR_Q5_0 ? 16 : kType == KVASIR_Q3_K ? 4 : kType == KVASIR_Q6_K ? 32 : 0;
};

struct RawBlock {
  uint32_t low[8], high[2], subs, scales;  // what a type has not is never touched, and takes no register
};

template <int kType>
__device__ __forceinline__ RawBlock load_block(const WeightView& v, int32_t row, int32_t block) {
  using Type = BlockType<kType>;
  RawBlock raw;
  const uint8_t* low = v.low + static_cast<size_t>(row) * v.low_stride + static_cast<size_t>(block) * Type::kLow;
  if constexpr (Type::kLow == 8) {
    const uint2 a = *reinterpret_cast<const uint2*>(low);
    raw.low[0] = a.x, raw.low[1] = a.y;
  } else {
    const uint4 a = *reinterpret_cast<const uint4*>(low);
    raw.low[0] = a.x, raw.low[1] = a.y, raw.low[2] = a.z, raw.low[3] = a.w;
    if constexpr (Type::kLow == 32) {
      const uint4 b = *reinterpret_cast<const uint4*>(low + 16);
      raw.low[4] = b.x, raw.low[5] = b.y, raw.low[6] = b.z, raw.low[7] = b.w;
    }
  }
  const uint8_t* high = v.high + static_cast<size_t>(row) * v.high_stride + static_cast<size_t>(block) * Type::kHigh;
  if constexpr (Type::kHigh == 4) raw.high[0] = *reinterpret_cast<const uint32_t*>(high);
  if constexpr (Type::kHigh == 8) {
    const uint2 a = *reinterpret_cast<const uint2*>(high);
    raw.high[0] = a.x, raw.high[1] = a.y;
  }
  if constexpr (Type::kSuper) {
    raw.subs = *reinterpret_cast<const uint16_t*>(v.subs + static_cast<size_t>(row) * v.subs_stride + static_cast<size_t>(block) * 2);
  }
  const size_t unit = static_cast<size_t>(Type::kSuper ? block / 8 : block);
  const uint8_t* scales = v.scales + static_cast<size_t>(row) * v.scales_stride;
  if constexpr (Type::kMin) raw.scales = *reinterpret_cast<const uint32_t*>(scales + unit * 4);
  else raw.scales = *reinterpret_cast<const uint16_t*>(scales + unit * 2);
  return raw;
}

// IQ4_NL: the sixteen values as bytes, picked four at a time.
__device__ __forceinline__ uint32_t iq4_values(uint32_t codes) {
  const uint32_t pick = (codes & 7) | (codes >> 4 & 0x70) | (codes >> 8 & 0x700) | (codes >> 12 & 0x7000);
  const uint32_t lower = __byte_perm(0xbfad9881u, 0xf6eaddcfu, pick);   // -127 -104 -83 -65, -49 -35 -22 -10
  const uint32_t upper = __byte_perm(0x26190d01u, 0x71594535u, pick);   // 1 13 25 38, 53 69 89 113
  const uint32_t top = (codes >> 3 & 0x01010101u) * 0xff;
  return lower ^ ((lower ^ upper) & top);
}

// Four columns 4j ... 4j + 3 as signed bytes; j is a constant where loops are unrolled.
template <int kType>
__device__ __forceinline__ uint32_t block_codes(const RawBlock& raw, int j) {
  using Type = BlockType<kType>;
  if constexpr (kType == KVASIR_Q8_0) return raw.low[j];
  uint32_t codes;
  if constexpr (Type::kLow == 8) codes = raw.low[j % 2] >> (j / 2 * 2) & 0x03030303u;
  else codes = raw.low[j % 4] >> (j / 4 * 4) & 0x0f0f0f0fu;
  if constexpr (Type::kHigh == 8) codes |= (raw.high[j % 2] >> (j / 2 * 2) & 0x03030303u) << 4;
  if constexpr (Type::kHigh == 4) {
    // Four bits to the lowest of four bytes.
    const uint32_t bits = ((raw.high[0] >> (4 * j) & 15) * 0x00204081u) & 0x01010101u;
    codes |= bits << (kType == KVASIR_Q3_K ? 2 : 4);
  }
  if constexpr (kType == KVASIR_IQ4_NL) codes = iq4_values(codes);
  return codes;
}

struct BlockFactors {
  float scale[2], min;  // of columns 0 to 15 and 16 to 31
};
template <int kType>
__device__ __forceinline__ BlockFactors block_factors(const RawBlock& raw) {
  using Type = BlockType<kType>;
  const float d = half_to_float(static_cast<uint16_t>(raw.scales));
  BlockFactors f;
  f.min = 0;
  if constexpr (Type::kHalves) {
    f.scale[0] = d * static_cast<float>(static_cast<int8_t>(raw.subs));
    f.scale[1] = d * static_cast<float>(static_cast<int8_t>(raw.subs >> 8));
  } else if constexpr (Type::kSuper) {
    f.scale[0] = f.scale[1] = d * static_cast<float>(raw.subs & 0xff);
    f.min = -half_to_float(static_cast<uint16_t>(raw.scales >> 16)) * static_cast<float>(raw.subs >> 8);
  } else {
    f.scale[0] = f.scale[1] = d;
    if constexpr (Type::kMin) f.min = half_to_float(static_cast<uint16_t>(raw.scales >> 16));
  }
  return f;
}

// Column 4j + i of codes = block_codes(raw, j) as a number. A byte under the exponent of 2^23 is 2^23 more than itself: one
// permutation and one subtraction, where a conversion from integers has a quarter of their rate.
template <int kType>
__device__ __forceinline__ float block_value(uint32_t codes, int i, float scale, float min) {
  constexpr bool is_signed = kType == KVASIR_Q8_0 || kType == KVASIR_IQ4_NL;
  constexpr int offset = is_signed ? 128 : BlockType<kType>::kOffset;
  const uint32_t shifted = is_signed ? codes ^ 0x80808080u : codes;
  const float code = __uint_as_float(__byte_perm(shifted, 0x4b000000u, 0x7650u + static_cast<uint32_t>(i))) - (8388608.0f + offset);
  return scale * code + min;
}

// body(std::integral_constant<int, type>) for a block type known when it runs.
template <class F>
void for_block_type(int32_t dtype, F&& body) {
#define KVASIR_CASE(type) \
  case type: body(std::integral_constant<int, type>()); return
  switch (dtype) {
    KVASIR_CASE(KVASIR_Q4_0);
    KVASIR_CASE(KVASIR_Q4_1);
    KVASIR_CASE(KVASIR_Q5_0);
    KVASIR_CASE(KVASIR_Q5_1);
    KVASIR_CASE(KVASIR_Q8_0);
    KVASIR_CASE(KVASIR_Q3_K);
    KVASIR_CASE(KVASIR_Q4_K);
    KVASIR_CASE(KVASIR_Q5_K);
    KVASIR_CASE(KVASIR_Q6_K);
    KVASIR_CASE(KVASIR_IQ4_NL);
    default: return;
  }
#undef KVASIR_CASE
}

// A number of a plain type.
template <int kType>
__device__ __forceinline__ float plain_value(const uint8_t* row, int32_t column) {
  if constexpr (kType == KVASIR_F32) return reinterpret_cast<const float*>(row)[column];
  else if constexpr (kType == KVASIR_F16) return half_to_float(reinterpret_cast<const uint16_t*>(row)[column]);
  else return bfloat_to_float(reinterpret_cast<const uint16_t*>(row)[column]);
}
template <class F>
void for_plain_type(int32_t dtype, F&& body) {
  if (dtype == KVASIR_F32) body(std::integral_constant<int, KVASIR_F32>());
  else if (dtype == KVASIR_F16) body(std::integral_constant<int, KVASIR_F16>());
  else body(std::integral_constant<int, KVASIR_BF16>());
}

}  // namespace kvasir
