// Matrix products out [n, m] = x [n, k] · w [m, k]ᵀ over packed weights: the table of one instruction set.
//
// Two ways, chosen by n (api_matmul.cc):
//   stream  decode: few rows of x. The weight is read once; codes are unpacked in registers and multiplied as they
//           come; limited by memory. Codes and scales are exact; x has 16-bit integers per 32 values; with
//           precision=fast 8-bit ones where codes have 6 bits or fewer (takes_bytes).
//   panel   prefill: many rows of x. 32 rows of w × 128 columns are expanded once per call to 16-bit integers in L1,
//           one scale per row, and multiplied by 16-bit x, one scale per 128 values, in register tiles with 32-bit
//           sums. precision=fast changes nothing here.
// Plain weights (F32, F16, BF16) are multiplied in float in both, and so is everything by the portable kernels.
//
// Integers of a panel are scaled by their Euclidean norm, not their maximum: with |w|, |x| <= 32767 and norms of at
// most kPanelNorm each, |sum of products| <= norm(w) norm(x) < 2^31 whatever the values are (Cauchy-Schwarz). So 128
// products are summed without one conversion, and both sides keep 12 bits below their root mean square: the relative
// error of a product of random vectors is 1.0e-4 to 1.4e-4 (measured), against 1.6e-3 with bf16 and 6e-3 with int8.
#pragma once
#include <cstddef>
#include <cstdint>

#include "weights.h"

namespace kvasir {

// 32 values of a row of x for the stream kernels: x = scale * integer.
struct StreamBlock {
  int16_t q[32];  // each kernel set's own arrangement: see its stream_quantize
  float scale;
  int32_t sum[2];  // of the integers of columns 0..15 and 16..31
  float total;     // scale * (sum[0] + sum[1])
};

struct StreamInput {
  const float* x;            // [n, k]
  const StreamBlock* words;  // [n, k / 32], 16-bit; null when no weight asks for them
  const StreamBlock* bytes;  // [n, k / 32], 8-bit, for types that take them; null with precision=exact
  int n, k;
};

// Types that precision=fast multiplies by bytes of x. Codes of 8 bits gain no time by it on AVX2, and little elsewhere, as memory takes twice
// as long to bring them; words of x for them are a sixth less KL (SmolLM2, whose output matrix has them: .00105 in place of .00125).
constexpr bool takes_bytes(int32_t dtype) {
  return dtype != KVASIR_F32 && dtype != KVASIR_F16 && dtype != KVASIR_BF16 && dtype != KVASIR_Q8_0 && dtype != KVASIR_IQ4_NL;
}

constexpr int kPanelK = 128;  // columns of w expanded at a time
// With roundings of at most 1.5 a weight and 0.5 an x: (kPanelNorm + 1.5 * sqrt(128)) * (kPanelNorm + 0.5 * sqrt(128))
// < 2^31.
constexpr float kPanelNorm = 46320.0f;

struct PanelInput {
  const float* x;       // [n, k]
  const int16_t* q;     // [k / kPanelK rounded up][n][kPanelK]; null when no weight is of a block type
  const float* scales;  // [k / kPanelK rounded up][n]
  int n, k;
};

struct MatmulKernels {
  // Up to this many rows stream is faster.
  int stream_rows;
  // False: stream and panel of block types read x as floats, and the quantize functions are null.
  bool quantizes;
  // x [k] to q [k / 32], as words or bytes; k a multiple of 32.
  void (*stream_quantize)(StreamBlock* q, const float* x, int k, bool bytes);
  // out[i * ldo + r] for rows r of w of panels [panel, panel + panels), i in [0, n).
  void (*stream)(const PackedWeight& w, int panel, int panels, const StreamInput& in, float* out, int64_t ldo);
  // Rows [row, row + rows) of x to q and scales, laid out as in PanelInput.
  void (*panel_quantize)(int16_t* q, float* scales, const float* x, int row, int rows, int n, int k);
  // Two panels (32 rows of w) from `panel` on, times rows [row, row + rows) of x. scratch: panel_scratch(rows) floats,
  // 64-byte aligned.
  void (*panel)(const PackedWeight& w, int panel, const PanelInput& in, int row, int rows, float* scratch, float* out,
                int64_t ldo);
};

// Partial sums [rows][32], then one expanded panel: f32 [kPanelK][32] at most, and 32 scales.
inline size_t panel_scratch(int rows) {
  return static_cast<size_t>(rows) * 32 + static_cast<size_t>(kPanelK) * 32 + 32;
}

extern const MatmulKernels kMatmulAvx512, kMatmulAvx2, kMatmulPortable;

// Asks for the part of a panel that holds columns [k, k + kPanelK): decode order is address order.
static inline void fetch_ahead(const PackedWeight& w, int panel, int k) {
  if (k >= w.cols) return;
  const size_t cols = static_cast<size_t>(w.cols), begin = w.panel_bytes * static_cast<size_t>(k) / cols;
  const size_t end = k + kPanelK < w.cols ? w.panel_bytes * static_cast<size_t>(k + kPanelK) / cols : w.panel_bytes;
  for (size_t at = begin; at < end; at += 64) __builtin_prefetch(w.panel(panel) + at, 0, 2);
}

// Where block b (32 columns) of a panel and its unit's header lie.
struct BlockAt {
  const uint8_t* header;
  const uint8_t* codes;
  int in_unit;
};
static inline BlockAt block_at(const PanelLayout& layout, const uint8_t* panel, int b) {
  const int per_unit = layout.unit_k / 32, unit = b / per_unit, in_unit = b % per_unit;
  const uint8_t* header =
      panel + static_cast<size_t>(unit) * static_cast<size_t>(layout.header_bytes + per_unit * layout.block_bytes);
  return {header, header + layout.header_bytes + in_unit * layout.block_bytes, in_unit};
}

}  // namespace kvasir
