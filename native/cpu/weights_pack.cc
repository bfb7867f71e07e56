// Rows into and out of panels (layout: weights.h). Scalar, one row at a time; the formats that most files are made of
// (4- and 5-bit blocks of 32, Q8_0) move 32-bit words straight from the file. Measured: see
// native/bench/matmul_bench.cc.
#include <cstring>

#include "weights.h"

namespace kvasir {

namespace {

void put_u16(uint8_t* p, uint16_t v) { std::memcpy(p, &v, 2); }
uint16_t get_u16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}

// Four codes at a time as the bytes of a word.
uint32_t get_word(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}
void put_word(uint8_t* p, uint32_t v) { std::memcpy(p, &v, 4); }

void put_nibbles(uint8_t* block, int lane, const uint8_t* codes) {
  constexpr uint32_t kLow = 0x0f0f0f0f;
  for (int j = 0; j < 4; ++j) {
    put_word(block + 64 * j + 4 * lane, (get_word(codes + 4 * j) & kLow) | (get_word(codes + 16 + 4 * j) & kLow) << 4);
  }
}

// Four bits of one lane in mask v. Two lanes share a byte.
void put_mask(uint8_t* plane, int v, int lane, uint32_t bits) {
  uint8_t* p = plane + 8 * v + lane / 2;
  const int at = 4 * (lane % 2);
  *p = static_cast<uint8_t>((*p & ~(15 << at)) | static_cast<int>(bits) << at);
}

// shift: which bit of the code.
void put_masks(uint8_t* plane, int lane, const uint8_t* codes, int shift) {
  for (int v = 0; v < 8; ++v) {
    const uint32_t ones = get_word(codes + 4 * v) >> shift & 0x01010101;
    put_mask(plane, v, lane, ones * 0x01020408 >> 24 & 15);  // the product moves bit 8i to 24 + i
  }
}

void put_pairs(uint8_t* plane, int lane, const uint8_t* codes, int shift) {
  for (int t = 0; t < 2; ++t) {
    uint32_t word = 0;
    for (int f = 0; f < 4; ++f) word |= (get_word(codes + 4 * (4 * t + f)) >> shift & 0x03030303) << (2 * f);
    put_word(plane + 64 * t + 4 * lane, word);
  }
}

void get_nibbles(const uint8_t* block, int lane, uint8_t* codes) {
  for (int j = 0; j < 4; ++j) {
    for (int i = 0; i < 4; ++i) {
      const uint8_t byte = block[64 * j + 4 * lane + i];
      codes[4 * j + i] = byte & 15;
      codes[16 + 4 * j + i] = byte >> 4;
    }
  }
}

void get_masks(const uint8_t* plane, int lane, uint8_t* codes, int shift) {
  for (int v = 0; v < 8; ++v) {
    const int bits = plane[8 * v + lane / 2] >> (4 * (lane % 2));
    for (int i = 0; i < 4; ++i) codes[4 * v + i] = static_cast<uint8_t>(codes[4 * v + i] | (bits >> i & 1) << shift);
  }
}

void get_pairs(const uint8_t* plane, int lane, uint8_t* codes, int shift) {
  for (int t = 0; t < 2; ++t) {
    for (int i = 0; i < 4; ++i) {
      const int byte = plane[64 * t + 4 * lane + i];
      for (int f = 0; f < 4; ++f) {
        uint8_t& code = codes[4 * (4 * t + f) + i];
        code = static_cast<uint8_t>(code | (byte >> (2 * f) & 3) << shift);
      }
    }
  }
}

void put_codes(int32_t dtype, uint8_t* block, int lane, const uint8_t* codes) {
  switch (dtype) {
    case KVASIR_Q8_0:
      for (int v = 0; v < 8; ++v) std::memcpy(block + 64 * v + 4 * lane, codes + 4 * v, 4);
      return;
    case KVASIR_Q3_K:
      put_pairs(block, lane, codes, 0);
      put_masks(block + 128, lane, codes, 2);
      return;
    case KVASIR_Q6_K:
      put_nibbles(block, lane, codes);
      put_pairs(block + 256, lane, codes, 4);
      return;
    case KVASIR_Q5_K: put_masks(block + 256, lane, codes, 4); [[fallthrough]];
    default: put_nibbles(block, lane, codes);  // Q4_K; blocks of 32 go by pack_nibble_row
  }
}

void get_codes(int32_t dtype, const uint8_t* block, int lane, uint8_t* codes) {
  switch (dtype) {
    case KVASIR_Q8_0:
      for (int v = 0; v < 8; ++v) std::memcpy(codes + 4 * v, block + 64 * v + 4 * lane, 4);
      return;
    case KVASIR_Q3_K:
      std::memset(codes, 0, 32);
      get_pairs(block, lane, codes, 0);
      get_masks(block + 128, lane, codes, 2);
      return;
    default: get_nibbles(block, lane, codes);
  }
  if (dtype == KVASIR_Q6_K) get_pairs(block + 256, lane, codes, 4);
  if (dtype == KVASIR_Q5_0 || dtype == KVASIR_Q5_1 || dtype == KVASIR_Q5_K) get_masks(block + 256, lane, codes, 4);
}

// The header of the unit for block `b` of it; K types' scale area follows d[16] and m[16].
void put_scales(const QuantInfo& info, uint8_t* header, int b, int lane, const BlockCodes& block) {
  if (!info.is_super) {
    put_u16(header + 32 * b + 2 * lane, block.d);
    if (info.has_min) put_u16(header + 32 + 2 * lane, block.m);
    return;
  }
  put_u16(header + 2 * lane, block.d);
  put_u16(header + 32 + 2 * lane, block.m);
  if (info.has_min) {
    for (int g = 0; g < 8; ++g) {
      header[64 + 32 * g + lane] = block.scales[g];
      header[64 + 32 * g + 16 + lane] = block.mins[g];
    }
  } else {
    for (int g = 0; g < 16; ++g) header[64 + 16 * g + lane] = block.scales[g];
  }
}

void get_scales(const QuantInfo& info, const uint8_t* header, int b, int lane, BlockCodes& block) {
  block.m = 0;
  if (!info.is_super) {
    block.d = get_u16(header + 32 * b + 2 * lane);
    if (info.has_min) block.m = get_u16(header + 32 + 2 * lane);
    return;
  }
  block.d = get_u16(header + 2 * lane);
  block.m = get_u16(header + 32 + 2 * lane);
  if (info.has_min) {
    for (int g = 0; g < 8; ++g) {
      block.scales[g] = header[64 + 32 * g + lane];
      block.mins[g] = header[64 + 32 * g + 16 + lane];
    }
  } else {
    for (int g = 0; g < 16; ++g) block.scales[g] = header[64 + 16 * g + lane];
  }
}

void pack_plain(const PackedWeight& w, uint8_t* panel, int lane, const uint8_t* src) {
  const size_t size = w.dtype == KVASIR_F32 ? 4 : 2, k = static_cast<size_t>(w.cols);
  uint8_t* p = panel + size * static_cast<size_t>(lane);
  if (size == 4) {
    for (size_t i = 0; i < k; ++i) std::memcpy(p + 64 * i, src + 4 * i, 4);
  } else {
    for (size_t i = 0; i < k; ++i) std::memcpy(p + 32 * i, src + 2 * i, 2);
  }
}

// 4- and 5-bit blocks of 32: ggml pairs nibbles as the panel does, so the words only move.
void pack_nibble_row(const PackedWeight& w, const QuantInfo& info, uint8_t* panel, int lane, const uint8_t* src) {
  const bool fifth = w.layout.block_bytes == 320;
  const int scale_bytes = info.has_min ? 4 : 2, nibbles = scale_bytes + (fifth ? 4 : 0);
  const int blocks = w.cols / 32, per_unit = info.has_min ? 1 : 2;
  uint8_t* p = panel;
  for (int b = 0; b < blocks; b += per_unit) {
    uint8_t* header = p;
    p += 64;
    for (int i = 0; i < per_unit && b + i < blocks; ++i, p += w.layout.block_bytes, src += info.bytes) {
      std::memcpy(header + 32 * i + 2 * lane, src, 2);
      if (info.has_min) std::memcpy(header + 32 + 2 * lane, src + 2, 2);
      for (int j = 0; j < 4; ++j) std::memcpy(p + 64 * j + 4 * lane, src + nibbles + 4 * j, 4);
      if (!fifth) continue;
      const uint32_t bits = load_u32(src + scale_bytes);
      for (int v = 0; v < 8; ++v) put_mask(p + 256, v, lane, bits >> (4 * v) & 15);
    }
  }
}

}  // namespace

void pack_row(const PackedWeight& w, uint8_t* panel, int lane, const uint8_t* src) {
  const QuantInfo& info = *quant_info(w.dtype);
  if (info.elements == 1) return pack_plain(w, panel, lane, src);
  if (!info.is_super && w.dtype != KVASIR_Q8_0) return pack_nibble_row(w, info, panel, lane, src);
  BlockCodes block;
  uint8_t* p = panel;
  uint8_t* header = panel;
  int in_unit = 0;
  const int per_unit = w.layout.unit_k / 32;
  for (int k = 0; k < w.cols; k += info.elements, src += info.bytes) {
    split_block(w.dtype, src, block);
    for (int i = 0; i < info.elements; i += 32) {
      if (in_unit == 0) {
        header = p;
        p += w.layout.header_bytes;
      }
      if (i == 0) put_scales(info, header, info.is_super ? 0 : in_unit, lane, block);
      put_codes(w.dtype, p, lane, block.codes + i);
      p += w.layout.block_bytes;
      in_unit = (in_unit + 1) % per_unit;
    }
  }
}

void unpack_row(const PackedWeight& w, const uint8_t* panel, int lane, float* out) {
  const QuantInfo& info = *quant_info(w.dtype);
  if (info.elements == 1) {
    const size_t size = static_cast<size_t>(info.bytes);
    const uint8_t* p = panel + size * static_cast<size_t>(lane);
    for (int i = 0; i < w.cols; ++i) dequantize_row(w.dtype, p + 16 * size * static_cast<size_t>(i), out + i, 1);
    return;
  }
  BlockCodes block;
  const uint8_t* p = panel;
  const uint8_t* header = panel;
  int in_unit = 0;
  const int per_unit = w.layout.unit_k / 32;
  for (int k = 0; k < w.cols; k += info.elements) {
    for (int i = 0; i < info.elements; i += 32) {
      if (in_unit == 0) {
        header = p;
        p += w.layout.header_bytes;
      }
      if (i == 0) get_scales(info, header, info.is_super ? 0 : in_unit, lane, block);
      get_codes(w.dtype, p, lane, block.codes + i);
      p += w.layout.block_bytes;
      in_unit = (in_unit + 1) % per_unit;
    }
    block_values(w.dtype, block, out + k);
  }
}

}  // namespace kvasir
