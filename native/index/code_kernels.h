// Kernels over int8 key codes, and the layout that they share.
//
// A code of a key k in a chunk with centre c approximates x = k - c: x[i] ~ scale[i / 32] * (byte[i] - 128), bytes 1..255, one
// bfloat16 scale per 32 dimensions (a band). Beside it lies an upper bound of the error's norm.
//
// A block holds 32 keys as two halves of 16, dimensions padded with zeros to a multiple of 16 (a unit):
//   half   [4 j][units][4 lanes][16 bytes]: key 4 * lane + j. Four keys share a line, so that 16 keys are summed in four registers
//          whose partial sums fall in place by two unpack-and-add steps, and one key is read from `units` adjacent lines.
//   scales [pairs of bands][32 keys][2] bfloat16, behind both halves.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "scan_ahead.h"

namespace kvasir {

constexpr int32_t kBlockKeys = 32, kBand = 32, kUnit = 16, kLine = 64;

// 4-bit codes (nibble_layout.h) are blocks of 32 keys too, with whole bands.
struct CodeShape {
  int32_t dim = 0, units = 0, bands = 0, pairs = 0;
  size_t block_bytes = 0;

  explicit CodeShape(int32_t d = 0, int32_t bits = 8)
      : dim(d), units((d + kUnit - 1) / kUnit), bands((d + kBand - 1) / kBand), pairs((bands + 1) / 2) {
    if (bits == 4) units = bands * 2;
    block_bytes = static_cast<size_t>(units) * static_cast<size_t>(kUnit * kBlockKeys * bits / 8) +
                  static_cast<size_t>(pairs) * kBlockKeys * 4;
  }
  size_t half_bytes() const { return static_cast<size_t>(units) * kUnit * 16; }
  // Offset in a block of unit `unit` of key `lane` (0..31).
  size_t unit_at(int32_t lane, int32_t unit) const {
    const int32_t half = lane / 16, j = lane % 4, l = lane % 16 / 4;
    return static_cast<size_t>(half) * half_bytes() + static_cast<size_t>((j * units + unit) * kLine + l * kUnit);
  }
  size_t scale_at(int32_t lane, int32_t band) const {
    return 2 * half_bytes() + static_cast<size_t>(((band / 2) * kBlockKeys + lane) * 4 + band % 2 * 2);
  }
};

inline float widen_bfloat(uint16_t b) {
  const uint32_t bits = static_cast<uint32_t>(b) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
// The least bfloat16 that is not below x >= 0; infinity beyond the range.
inline uint16_t bfloat_above(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<uint16_t>((bits + 0xffff) >> 16);
}

// A group's queries as integers: q ~ factor / scale * (hi * 2^shift + lo), or factor / scale * hi with one plane.
struct CodeQuery {
  int32_t group = 0, planes = 0;
  const int8_t* lines = nullptr;     // [planes][group][units][4 copies][16]: for scans of int8 codes
  const int8_t* rows = nullptr;      // [planes][group][row_bytes]: for gathers, and 4-bit codes; zeros behind the units
  size_t row_bytes = 0;              // a multiple of 64
  const int32_t* offsets = nullptr;  // [group][bands]: takes back what the codes' offset of 128 or 8 adds
  const int32_t* coarse = nullptr;   // [group][bands]: the same for the coarse plane of 4-bit codes, less what a fine one adds on average
  const int32_t* fine = nullptr;     // [group][bands]: what sums of fine codes begin with: the rest
  const float* factors = nullptr;    // [group]: turns scale * integer into a logit
  const int8_t* tables = nullptr;    // [group][bands][SampleKernels::table_bytes], aligned to a line: what the coarse plane's scores are looked up in
  const float* coarse_factors = nullptr;  // [group]: turns scale * what the coarse plane's scan sums up into a logit
  const float* bounds = nullptr;     // [group]: logits per unit of error norm
};

struct CodeRows {
  const void* rows;      // [count, dim] of dtype
  int32_t dtype;         // KVASIR_F32, KVASIR_F16, KVASIR_I8
  const float* scales;   // [count] with KVASIR_I8, else null
  int32_t count;
};

// What a query became: x ~ step * integer.
struct QueryCode {
  double step, squares, lost;  // sums of squares, of x and of what rounding loses
};

struct CodeKernels {
  // What a code is above the number that it stands for.
  int32_t offset;
  // Queries have planes of `shift` bits and a sign: what the products of this instruction set have room for.
  int32_t shift;
  // sum [dim] += rows, one by one.
  void (*add_rows)(float* sum, int32_t dim, const CodeRows& rows);
  // Encodes rows as keys [lane, lane + rows.count) of a block: their codes, scales and errors [32]. `slack` times a centred norm
  // is added to its error. Returns the largest centred norm.
  float (*encode)(uint8_t* block, uint16_t* errors, const CodeShape& shape, const float* centre, float slack, int32_t lane,
                  const CodeRows& rows);
  // x [width], width a multiple of 16, as integers whole [width], of -most to most; sums and energies (of squares) by band. Of 4-bit
  // codes x is rotated first, in place.
  QueryCode (*encode_query)(int32_t* whole, int32_t* sums, double* energies, float* x, size_t width, int32_t most);
  // out[g * stride + i] = logit of key i of `blocks` blocks, base [group] included; errors not null: plus bounds * error.
  void (*scan)(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* base,
               const uint8_t* codes, const uint16_t* errors, int32_t blocks, const ScanAhead& ahead);
  // The same for keys `ids`, counted over chunks of 2^chunk_bits keys: base [chunks, group], codes and errors by chunk. Null for
  // 4-bit codes.
  void (*gather)(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* base,
                 const uint8_t* const* codes, const uint16_t* const* errors, int32_t chunk_bits, const int32_t* ids,
                 int32_t count);
};

}  // namespace kvasir
