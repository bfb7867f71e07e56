// GGUF's weight types: sizes, one row's blocks taken apart into codes and scales, and the scalar dequantization that
// every kernel is tested against. Byte layouts are ggml's (docs/gguf_types.md lists them).
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kvasir_backend.h"

namespace kvasir {

// value = d * scale[group] * (code - offset) + min, where min is +m (Q4_1, Q5_1) or -m * mins[group] (Q4_K, Q5_K).
struct QuantInfo {
  const char* name;  // "Q4_1"
  int elements;      // of one file block; 1 for plain types
  int bytes;         // of one file block
  int group;         // elements that share a scale; 0 for plain types
  int offset;        // subtracted from the unsigned code
  bool has_min;
  bool is_super;  // K types: small integer scales under one or two f16 of 256 elements
};
// Null for a type that is no weight type (KVASIR_I32, KVASIR_I8, unknown numbers).
const QuantInfo* quant_info(int32_t dtype);

// File bytes of k elements; k is a multiple of info.elements.
inline size_t quant_row_bytes(const QuantInfo& info, int64_t k) {
  return static_cast<size_t>(k / info.elements) * static_cast<size_t>(info.bytes);
}

// One block of a row taken apart, lossless. Codes are unsigned; IQ4_NL's are indices into kIq4Values.
struct BlockCodes {
  uint8_t codes[256];
  uint8_t scales[16];  // K types: per group; two's complement for Q3_K (minus 32 already taken off) and Q6_K
  uint8_t mins[8];     // Q4_K, Q5_K
  uint16_t d, m;       // f16 bits
};
void split_block(int32_t dtype, const uint8_t* block, BlockCodes& out);
void block_values(int32_t dtype, const BlockCodes& block, float* out);  // out [info.elements]

// The twin: k elements of one row in file form to float, bit for bit as ggml's dequantize_row_*.
void dequantize_row(int32_t dtype, const uint8_t* src, float* out, int64_t k);

extern const int8_t kIq4Values[16];

inline float f32_from_bits(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
inline float bf16_to_f32(uint16_t h) { return f32_from_bits(static_cast<uint32_t>(h) << 16); }

// Branches only: NaN and infinity keep their meaning, subnormals are exact.
inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t rest = h & 0x7fff;
  if (rest >= 0x7c00) return f32_from_bits(sign | 0x7f800000 | ((rest & 0x3ff) << 13));
  if (rest >= 0x400) return f32_from_bits(sign | ((rest << 13) + 0x38000000));
  const float magnitude = static_cast<float>(rest) * 5.9604644775390625e-8f;  // 2^-24
  return sign ? -magnitude : magnitude;
}

inline uint16_t load_u16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
inline uint32_t load_u32(const uint8_t* p) {
  return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 | static_cast<uint32_t>(p[2]) << 16 |
         static_cast<uint32_t>(p[3]) << 24;
}

}  // namespace kvasir
