#include "quant.h"

namespace kvasir {

const int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

const QuantInfo* quant_info(int32_t dtype) {
  static const QuantInfo kInfos[] = {
      {"F32", 1, 4, 0, 0, false, false},       {"F16", 1, 2, 0, 0, false, false},
      {"BF16", 1, 2, 0, 0, false, false},      {nullptr, 0, 0, 0, 0, false, false},
      {nullptr, 0, 0, 0, 0, false, false},     {"Q4_0", 32, 18, 32, 8, false, false},
      {"Q4_1", 32, 20, 32, 0, true, false},    {"Q5_0", 32, 22, 32, 16, false, false},
      {"Q5_1", 32, 24, 32, 0, true, false},    {"Q8_0", 32, 34, 32, 128, false, false},
      {"Q3_K", 256, 110, 16, 4, false, true},  {"Q4_K", 256, 144, 32, 0, true, true},
      {"Q5_K", 256, 176, 32, 0, true, true},   {"Q6_K", 256, 210, 16, 32, false, true},
      {"IQ4_NL", 32, 18, 32, 0, false, false},
  };
  if (dtype < 0 || dtype >= static_cast<int32_t>(sizeof kInfos / sizeof *kInfos)) return nullptr;
  return kInfos[dtype].name ? &kInfos[dtype] : nullptr;
}

namespace {

void split_nibbles(const uint8_t* qs, uint8_t* codes) {
  for (int j = 0; j < 16; ++j) {
    codes[j] = qs[j] & 15;
    codes[16 + j] = qs[j] >> 4;
  }
}

void add_fifth_bits(const uint8_t* qh, uint8_t* codes) {
  const uint32_t bits = load_u32(qh);
  for (int j = 0; j < 32; ++j) codes[j] = static_cast<uint8_t>(codes[j] | ((bits >> j & 1) << 4));
}

// 8 scales and 8 mins of 6 bits in 12 bytes.
void split_scales_k4(const uint8_t* q, uint8_t* scales, uint8_t* mins) {
  for (int j = 0; j < 4; ++j) {
    scales[j] = q[j] & 63;
    mins[j] = q[j + 4] & 63;
    scales[j + 4] = static_cast<uint8_t>((q[j + 8] & 15) | (q[j] >> 6) << 4);
    mins[j + 4] = static_cast<uint8_t>((q[j + 8] >> 4) | (q[j + 4] >> 6) << 4);
  }
}

// 16 scales of 6 bits in 12 bytes, stored plus 32.
void split_scales_k3(const uint8_t* q, uint8_t* scales) {
  for (int j = 0; j < 16; ++j) {
    const int low = j < 8 ? q[j] & 15 : q[j - 8] >> 4;
    const int high = q[8 + j % 4] >> (j / 4 * 2) & 3;
    scales[j] = static_cast<uint8_t>((low | high << 4) - 32);
  }
}

void split_nibbles_k(const uint8_t* qs, uint8_t* codes) {
  for (int chunk = 0; chunk < 4; ++chunk) {
    for (int l = 0; l < 32; ++l) {
      codes[64 * chunk + l] = qs[32 * chunk + l] & 15;
      codes[64 * chunk + 32 + l] = qs[32 * chunk + l] >> 4;
    }
  }
}

void split_q3_k(const uint8_t* p, BlockCodes& out) {  // hmask[32] qs[64] scales[12] d
  for (int b = 0; b < 8; ++b) {
    const uint8_t* qs = p + 32 + 32 * (b / 4);
    const int shift = 2 * (b % 4);
    for (int l = 0; l < 32; ++l) {
      out.codes[32 * b + l] = static_cast<uint8_t>((qs[l] >> shift & 3) | (p[l] >> b & 1) << 2);
    }
  }
  split_scales_k3(p + 96, out.scales);
  out.d = load_u16(p + 108);
}

void split_q5_k(const uint8_t* p, BlockCodes& out) {  // d dmin scales[12] qh[32] qs[128]
  out.d = load_u16(p);
  out.m = load_u16(p + 2);
  split_scales_k4(p + 4, out.scales, out.mins);
  split_nibbles_k(p + 48, out.codes);
  for (int b = 0; b < 8; ++b) {
    for (int l = 0; l < 32; ++l) {
      out.codes[32 * b + l] = static_cast<uint8_t>(out.codes[32 * b + l] | (p[16 + l] >> b & 1) << 4);
    }
  }
}

void split_q6_k(const uint8_t* p, BlockCodes& out) {  // ql[128] qh[64] scales[16] d
  for (int half = 0; half < 2; ++half) {
    const uint8_t* ql = p + 64 * half;
    const uint8_t* qh = p + 128 + 32 * half;
    uint8_t* c = out.codes + 128 * half;
    for (int l = 0; l < 32; ++l) {
      c[l] = static_cast<uint8_t>((ql[l] & 15) | (qh[l] & 3) << 4);
      c[l + 32] = static_cast<uint8_t>((ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4);
      c[l + 64] = static_cast<uint8_t>((ql[l] >> 4) | (qh[l] >> 4 & 3) << 4);
      c[l + 96] = static_cast<uint8_t>((ql[l + 32] >> 4) | (qh[l] >> 6) << 4);
    }
  }
  std::memcpy(out.scales, p + 192, 16);
  out.d = load_u16(p + 208);
}

}  // namespace

void split_block(int32_t dtype, const uint8_t* p, BlockCodes& out) {
  out.m = 0;
  switch (dtype) {
    case KVASIR_Q4_0:
    case KVASIR_IQ4_NL:
      out.d = load_u16(p);
      split_nibbles(p + 2, out.codes);
      break;
    case KVASIR_Q4_1:
      out.d = load_u16(p);
      out.m = load_u16(p + 2);
      split_nibbles(p + 4, out.codes);
      break;
    case KVASIR_Q5_0:
      out.d = load_u16(p);
      split_nibbles(p + 6, out.codes);
      add_fifth_bits(p + 2, out.codes);
      break;
    case KVASIR_Q5_1:
      out.d = load_u16(p);
      out.m = load_u16(p + 2);
      split_nibbles(p + 8, out.codes);
      add_fifth_bits(p + 4, out.codes);
      break;
    case KVASIR_Q8_0:
      out.d = load_u16(p);
      for (int j = 0; j < 32; ++j) out.codes[j] = p[2 + j] ^ 0x80;  // two's complement plus 128
      break;
    case KVASIR_Q3_K: split_q3_k(p, out); break;
    case KVASIR_Q4_K:
      out.d = load_u16(p);
      out.m = load_u16(p + 2);
      split_scales_k4(p + 4, out.scales, out.mins);
      split_nibbles_k(p + 16, out.codes);
      break;
    case KVASIR_Q5_K: split_q5_k(p, out); break;
    case KVASIR_Q6_K: split_q6_k(p, out); break;
    default: break;
  }
}

void block_values(int32_t dtype, const BlockCodes& block, float* out) {
  const QuantInfo& info = *quant_info(dtype);
  const float d = f16_to_f32(block.d), m = f16_to_f32(block.m);
  for (int i = 0; i < info.elements; ++i) {
    const int g = i / info.group;
    const int code = block.codes[i];
    // Products are exact in float (11 + 8 + 8 bits at most, 24 used), so only the sum with a min rounds.
    if (dtype == KVASIR_IQ4_NL) {
      out[i] = d * static_cast<float>(kIq4Values[code]);
    } else if (!info.is_super) {
      out[i] = d * static_cast<float>(code - info.offset);
      if (info.has_min) out[i] += m;
    } else if (info.has_min) {
      out[i] =
          d * static_cast<float>(block.scales[g]) * static_cast<float>(code) - m * static_cast<float>(block.mins[g]);
    } else {
      out[i] = d * static_cast<float>(static_cast<int8_t>(block.scales[g])) * static_cast<float>(code - info.offset);
    }
  }
}

void dequantize_row(int32_t dtype, const uint8_t* src, float* out, int64_t k) {
  const QuantInfo& info = *quant_info(dtype);
  if (info.elements == 1) {
    for (int64_t i = 0; i < k; ++i) {
      out[i] = dtype == KVASIR_F32   ? f32_from_bits(load_u32(src + 4 * i))
               : dtype == KVASIR_F16 ? f16_to_f32(load_u16(src + 2 * i))
                                     : bf16_to_f32(load_u16(src + 2 * i));
    }
    return;
  }
  BlockCodes block;
  for (int64_t i = 0; i < k; i += info.elements, src += info.bytes) {
    split_block(dtype, src, block);
    block_values(dtype, block, out + i);
  }
}

}  // namespace kvasir
