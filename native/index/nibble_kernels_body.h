// Encoding of 4-bit codes and plain bodies of the other kernels; see nibble_layout.h. Included once per instruction set.
#pragma once
#include "code_kernels_body.h"
#include "nibble_layout.h"

namespace kvasir {
namespace {

constexpr int32_t kNibbleShift = 7, kNibbleOffset = 8;

// One butterfly of all 16 lanes: x[i] + x[i ^ step], or their difference where i has the bit.
#define KVASIR_BUTTERFLY(x, step)                                                                                          \
  (__builtin_shufflevector(x, x, 0 ^ step, 1 ^ step, 2 ^ step, 3 ^ step, 4 ^ step, 5 ^ step, 6 ^ step, 7 ^ step, 8 ^ step, \
                           9 ^ step, 10 ^ step, 11 ^ step, 12 ^ step, 13 ^ step, 14 ^ step, 15 ^ step) +                   \
   x * sign)
constexpr float kSigns[4][kDotLanes] = {{1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1},
                                        {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1},
                                        {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1},
                                        {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1}};

// As rotate_band.
inline void rotate_lanes(DotLanes& a, DotLanes& b) {
  DotLanes sign;
  std::memcpy(&sign, kSigns[0], sizeof sign);
  a = KVASIR_BUTTERFLY(a, 1), b = KVASIR_BUTTERFLY(b, 1);
  std::memcpy(&sign, kSigns[1], sizeof sign);
  a = KVASIR_BUTTERFLY(a, 2), b = KVASIR_BUTTERFLY(b, 2);
  std::memcpy(&sign, kSigns[2], sizeof sign);
  a = KVASIR_BUTTERFLY(a, 4), b = KVASIR_BUTTERFLY(b, 4);
  std::memcpy(&sign, kSigns[3], sizeof sign);
  a = KVASIR_BUTTERFLY(a, 8), b = KVASIR_BUTTERFLY(b, 8);
  const DotLanes sum = (a + b) * 0.17677669529663687f, difference = (a - b) * 0.17677669529663687f;
  a = sum, b = difference;
}
#undef KVASIR_BUTTERFLY

[[maybe_unused]] QueryCode encode_rotated(int32_t* whole, int32_t* sums, double* energies, float* x, size_t width, int32_t most) {
  for (float* band = x; band < x + width; band += kBand) {
    DotLanes a, b;
    std::memcpy(&a, band, sizeof a), std::memcpy(&b, band + kUnit, sizeof b);
    rotate_lanes(a, b);
    std::memcpy(band, &a, sizeof a), std::memcpy(band + kUnit, &b, sizeof b);
  }
  return encode_query(whole, sums, energies, x, width, most);
}

// The extreme element becomes -8 times the scale, which may be negative: all 16 codes are used.
inline float encode_nibbles(uint8_t* block, uint16_t* errors, const CodeShape& shape, const float* centre, float slack, int32_t lane,
                     const CodeRows& rows) {
  float largest = 0;
  for (int32_t r = 0; r < rows.count; r++) {
    DotLanes squares = {}, lost = {};
    float biggest = 0;
    for (int32_t band = 0; band < shape.bands; band++) {
      DotLanes x[2];
      DotLanes most = {};
      for (int32_t u = 0; u < 2; u++) {
        DotLanes c;
        std::memcpy(&c, centre + (band * 2 + u) * kUnit, sizeof c);  // padded with zeros
        x[u] = DotLanes{};
        if ((band * 2 + u) * kUnit < shape.dim) read_unit(&x[u], rows, shape.dim, r, band * 2 + u);
        x[u] -= c;
      }
      rotate_lanes(x[0], x[1]);
      DotLanes high = {}, low = {};
      for (int32_t u = 0; u < 2; u++) {
        squares += x[u] * x[u];
        high = x[u] > high ? x[u] : high;
        low = x[u] < low ? x[u] : low;
      }
      most = high > -low ? high : -low;
      const float peak = max_lanes(most);
      biggest = peak > biggest ? peak : biggest;
      const bool positive = max_lanes(high) == peak;
      uint16_t scale = peak > 1e-30f && peak < 1e37f ? bfloat_above(peak * 0.125f) : 0;
      if (positive && scale != 0) scale |= 0x8000;
      const float wide = widen_bfloat(scale), inverse = scale == 0 ? 0 : 1 / wide;
      std::memcpy(block + nibble_scale_at(lane + r, band, shape.bands), &scale, 2);
      uint8_t codes[32];
      for (int32_t u = 0; u < 2; u++) {
        DotLanes scaled = x[u];
        if (scale == 0) scaled = DotLanes{};
        scaled = scaled * inverse;
        scaled = scaled < 7.0f ? scaled : 7.0f - DotLanes{};
        const DotLanes shifted = scaled + 0x1.8p23f;  // leaves the nearest integer in the low bits
        const DotLanes rest = x[u] - (shifted - 0x1.8p23f) * wide;
        lost += rest * rest;
        CodeInts bits;
        std::memcpy(&bits, &shifted, sizeof bits);
        const CodeBytes bytes = __builtin_convertvector((bits + kNibbleOffset) & 15, CodeBytes);
        std::memcpy(codes + u * kUnit, &bytes, sizeof bytes);
      }
      for (int32_t j = 0; j < 4; j++) {
        uint32_t first, second;
        std::memcpy(&first, codes + 8 * j, 4), std::memcpy(&second, codes + 8 * j + 4, 4);
        first |= second << 4;
        std::memcpy(block + nibble_at(lane + r, band, j), &first, 4);
      }
    }
    const float norm = finish_code(errors + lane + r, shape.bands * kBand, slack, sum_dot_lanes(squares), sum_dot_lanes(lost),
                                   biggest);
    largest = norm > largest ? norm : largest;
  }
  return largest;
}

// Logit of one key without base; `lane` of `block`.
inline float nibble_logit(const CodeShape& shape, const CodeQuery& query, const uint8_t* block, int32_t lane, int32_t g) {
  float logit = 0;
  for (int32_t band = 0; band < shape.bands; band++) {
    int32_t sum = 0;
    for (int32_t plane = 0; plane < query.planes; plane++) {
      sum *= 1 << kNibbleShift;
      const int8_t* q = query.rows + static_cast<size_t>(plane * query.group + g) * query.row_bytes + band * kBand;
      for (int32_t j = 0; j < 4; j++, q += 8) {
        const uint8_t* at = block + nibble_at(lane, band, j);
        for (int32_t i = 0; i < 4; i++) sum += (at[i] & 15) * q[i] + (at[i] >> 4) * q[4 + i];
      }
    }
    uint16_t scale;
    std::memcpy(&scale, block + nibble_scale_at(lane, band, shape.bands), 2);
    logit += static_cast<float>(sum + query.offsets[g * shape.bands + band]) * widen_bfloat(scale);
  }
  return logit * query.factors[g];
}

[[maybe_unused]] void scan_nibbles_plain(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query,
                                         const float* base, const uint8_t* codes, const uint16_t* errors, int32_t blocks, const ScanAhead&) {
  for (int32_t b = 0; b < blocks; b++, codes += shape.block_bytes) {
    for (int32_t g = 0; g < query.group; g++) {
      for (int32_t lane = 0; lane < kBlockKeys; lane++) {
        float x = nibble_logit(shape, query, codes, lane, g) + base[g];
        if (errors != nullptr) x += query.bounds[g] * widen_bfloat(errors[b * kBlockKeys + lane]);
        out[static_cast<size_t>(g) * stride + static_cast<size_t>(b * kBlockKeys + lane)] = x;
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
