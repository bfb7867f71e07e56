// The scalar dequantization against ggml's definitions: hashes of what the gguf package's dequantize gives for the same
// random blocks (64 blocks a type, finite scales, FNV-1a over the float bits, -0 as 0).
#include <cmath>

#include "weight_fixture.h"

using namespace kvasir_test;

TEST("dequantize_row() gives ggml's values bit for bit") {
  struct Golden {
    int32_t dtype;
    int halves[2];
    uint64_t hash;
  };
  const Golden goldens[] = {
      {KVASIR_Q4_0, {0, -1}, 0xc81998ebc166e325},   {KVASIR_Q4_1, {0, 2}, 0x5a0d849f6516aa53},
      {KVASIR_Q5_0, {0, -1}, 0xdfb8fdb5c35ddf25},   {KVASIR_Q5_1, {0, 2}, 0x53f32c55fd8d5d9f},
      {KVASIR_Q8_0, {0, -1}, 0x2f34b6693eb18625},   {KVASIR_Q3_K, {108, -1}, 0x40ddd08cc12e6aa5},
      {KVASIR_Q4_K, {0, 2}, 0x9511aab5e80ad6de},    {KVASIR_Q5_K, {0, 2}, 0x127ea4c6b7e23c16},
      {KVASIR_Q6_K, {208, -1}, 0x8fdfb1f96df7e5b9}, {KVASIR_IQ4_NL, {0, -1}, 0xe9a6652927008625},
  };
  for (const Golden& golden : goldens) {
    const kvasir::QuantInfo& info = *kvasir::quant_info(golden.dtype);
    Random random(7);
    std::vector<uint8_t> bytes(static_cast<size_t>(64 * info.bytes));
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random.bits() >> 56);
    for (size_t i = 0; i < 64; ++i) {
      for (const int at : golden.halves) {
        if (at >= 0) bytes[i * static_cast<size_t>(info.bytes) + static_cast<size_t>(at) + 1] &= 0xbf;
      }
    }
    std::vector<float> values(static_cast<size_t>(64 * info.elements));
    kvasir::dequantize_row(golden.dtype, bytes.data(), values.data(), static_cast<int64_t>(values.size()));
    uint64_t hash = 0xcbf29ce484222325;
    for (const float& v : values) {
      uint32_t bits;
      std::memcpy(&bits, &v, 4);
      hash = (hash ^ (bits == 0x80000000 ? 0 : bits)) * 0x100000001b3;
    }
    if (hash != golden.hash) fail(__FILE__, __LINE__, std::string(info.name) + " differs from ggml");
  }
}

TEST("f16_to_f32() and bf16_to_f32() give normal, subnormal and special numbers") {
  EXPECT_EQ(kvasir::f16_to_f32(0x3c00), 1.0f);
  EXPECT_EQ(kvasir::f16_to_f32(0xc000), -2.0f);
  EXPECT_EQ(kvasir::f16_to_f32(0x7bff), 65504.0f);
  EXPECT_EQ(kvasir::f16_to_f32(0x0001), std::ldexp(1.0f, -24));
  EXPECT_EQ(kvasir::f16_to_f32(0x83ff), -std::ldexp(1023.0f, -24));
  EXPECT_EQ(kvasir::f16_to_f32(0x0400), std::ldexp(1.0f, -14));
  EXPECT_EQ(kvasir::f16_to_f32(0x7c00), HUGE_VALF);
  EXPECT(std::isnan(kvasir::f16_to_f32(0xfe01)));
  EXPECT_EQ(kvasir::bf16_to_f32(0xbf80), -1.0f);
  EXPECT(std::isnan(kvasir::bf16_to_f32(0x7fc0)));
}

TEST("quant_info() knows weight types only") {
  EXPECT(kvasir::quant_info(KVASIR_I32) == nullptr);
  EXPECT(kvasir::quant_info(KVASIR_I8) == nullptr);
  EXPECT(kvasir::quant_info(-1) == nullptr);
  EXPECT(kvasir::quant_info(15) == nullptr);
  for (const int32_t dtype : weight_types()) EXPECT(kvasir::quant_info(dtype) != nullptr);
}
