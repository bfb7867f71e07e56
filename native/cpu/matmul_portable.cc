// Plain C++ for any little-endian CPU: blocks are expanded to floats and multiplied in float, so that this file is also
// the nearest twin of the vector kernels. Lanes are 32-bit words of 16 rows side by side: loops that any compiler
// vectorizes. Nothing about x is rounded.
#include <algorithm>
#include <cstring>

#include "matmul.h"

namespace kvasir {
namespace {

constexpr int kLanes = kPanelRows;

struct Lanes {
  uint32_t word[kLanes];
};
Lanes load_words(const uint8_t* p) {
  Lanes lanes;
  std::memcpy(lanes.word, p, sizeof lanes.word);
  return lanes;
}

// codes [32][16] of one block, see weights.h.
void block_codes(int32_t dtype, const uint8_t* p, int32_t (*codes)[kLanes]) {
  if (dtype == KVASIR_Q8_0) {
    for (int v = 0; v < 8; ++v) {
      const Lanes w = load_words(p + 64 * v);
      for (int i = 0; i < 4; ++i) {
        for (int r = 0; r < kLanes; ++r) codes[4 * v + i][r] = static_cast<int32_t>(w.word[r] >> (8 * i) & 255);
      }
    }
    return;
  }
  const bool pairs_only = dtype == KVASIR_Q3_K;
  for (int j = 0; j < 4 && !pairs_only; ++j) {
    const Lanes w = load_words(p + 64 * j);
    for (int i = 0; i < 4; ++i) {
      for (int r = 0; r < kLanes; ++r) {
        codes[4 * j + i][r] = static_cast<int32_t>(w.word[r] >> (8 * i) & 15);
        codes[16 + 4 * j + i][r] = static_cast<int32_t>(w.word[r] >> (8 * i + 4) & 15);
      }
    }
  }
  if (pairs_only || dtype == KVASIR_Q6_K) {
    const uint8_t* plane = pairs_only ? p : p + 256;
    const int shift = pairs_only ? 0 : 4, keep = pairs_only ? 0 : 15;
    for (int v = 0; v < 8; ++v) {
      const Lanes w = load_words(plane + 64 * (v / 4));
      for (int i = 0; i < 4; ++i) {
        for (int r = 0; r < kLanes; ++r) {
          const int32_t low = pairs_only ? 0 : codes[4 * v + i][r] & keep;
          codes[4 * v + i][r] = low | static_cast<int32_t>(w.word[r] >> (8 * i + 2 * (v % 4)) & 3) << shift;
        }
      }
    }
  }
  if (pairs_only || dtype == KVASIR_Q5_0 || dtype == KVASIR_Q5_1 || dtype == KVASIR_Q5_K) {
    const uint8_t* plane = pairs_only ? p + 128 : p + 256;
    const int shift = pairs_only ? 2 : 4;
    for (int v = 0; v < 8; ++v) {
      for (int r = 0; r < kLanes; ++r) {
        const int bits = plane[8 * v + r / 2] >> (4 * (r % 2));
        for (int i = 0; i < 4; ++i) codes[4 * v + i][r] |= (bits >> i & 1) << shift;
      }
    }
  }
}

// values [32][16] of one block; stride floats from one column to the next.
void block_floats(const PackedWeight& w, const BlockAt& at, float* out, int stride) {
  const QuantInfo& info = *quant_info(w.dtype);
  int32_t codes[32][kLanes];
  block_codes(w.dtype, at.codes, codes);
  float scale[2][kLanes], min[kLanes];
  for (int r = 0; r < kLanes; ++r) {
    const uint8_t* h = at.header;
    min[r] = 0;
    if (!info.is_super) {
      scale[0][r] = scale[1][r] = f16_to_f32(load_u16(h + 32 * at.in_unit + 2 * r));
      if (info.has_min) min[r] = f16_to_f32(load_u16(h + 32 + 2 * r));
    } else {
      const float d = f16_to_f32(load_u16(h + 2 * r));
      const uint8_t *first = h + 64 + 32 * at.in_unit + r, *second = first + 16;
      if (info.has_min) {
        scale[0][r] = scale[1][r] = d * static_cast<float>(*first);
        min[r] = -f16_to_f32(load_u16(h + 32 + 2 * r)) * static_cast<float>(*second);
      } else {
        scale[0][r] = d * static_cast<float>(static_cast<int8_t>(*first));
        scale[1][r] = d * static_cast<float>(static_cast<int8_t>(*second));
      }
    }
  }
  for (int k = 0; k < 32; ++k) {
    float* to = out + k * stride;
    if (w.dtype == KVASIR_IQ4_NL) {
      for (int r = 0; r < kLanes; ++r) to[r] = scale[0][r] * static_cast<float>(kIq4Values[codes[k][r]]);
      continue;
    }
    const float* s = scale[k / 16];
    const int offset = info.offset;
    for (int r = 0; r < kLanes; ++r) to[r] = s[r] * static_cast<float>(codes[k][r] - offset) + min[r];
  }
}

// columns [k, k + kc) of one panel as floats [kc][stride]; block types: k a multiple of 32.
void expand(const PackedWeight& w, int panel, int k, int kc, float* out, int stride) {
  const uint8_t* p = w.panel(panel);
  if (w.layout.unit_k > 1) {
    for (int at = 0; at < kc; at += 32) {
      block_floats(w, block_at(w.layout, p, (k + at) / 32), out + at * stride, stride);
    }
    return;
  }
  p += static_cast<size_t>(k) * static_cast<size_t>(w.layout.block_bytes);
  for (int i = 0; i < kc; ++i, p += w.layout.block_bytes) {
    float* to = out + i * stride;
    if (w.dtype == KVASIR_F32) {
      std::memcpy(to, p, 4 * kLanes);
    } else if (w.dtype == KVASIR_F16) {
      for (int r = 0; r < kLanes; ++r) to[r] = f16_to_f32(load_u16(p + 2 * r));
    } else {
      for (int r = 0; r < kLanes; ++r) to[r] = bf16_to_f32(load_u16(p + 2 * r));
    }
  }
}

// sums [R][16] += x [R] (ldx apart) times w [kc][stride]; two chains of columns would be one more rounding, no gain
// here.
template <int R>
void add_products(float* sums, int sums_stride, const float* w, int stride, const float* x, int64_t ldx, int kc) {
  float a[R][kLanes];
  for (int i = 0; i < R; ++i) std::memcpy(a[i], sums + i * sums_stride, sizeof a[i]);
  for (int k = 0; k < kc; ++k) {
    for (int i = 0; i < R; ++i) {
      const float xi = x[i * ldx + k];
      for (int r = 0; r < kLanes; ++r) a[i][r] += w[k * stride + r] * xi;
    }
  }
  for (int i = 0; i < R; ++i) std::memcpy(sums + i * sums_stride, a[i], sizeof a[i]);
}

void add_rows(float* sums, int sums_stride, const float* w, int stride, const float* x, int64_t ldx, int kc, int rows) {
  int i = 0;
  for (; i + 2 <= rows; i += 2) add_products<2>(sums + i * sums_stride, sums_stride, w, stride, x + i * ldx, ldx, kc);
  if (i < rows) add_products<1>(sums + i * sums_stride, sums_stride, w, stride, x + i * ldx, ldx, kc);
}

void stream_portable(const PackedWeight& w, int panel, int panels, const StreamInput& in, float* out, int64_t ldo) {
  constexpr int kRows = 8;
  float values[32 * kLanes], sums[kRows][kLanes];
  for (int p = panel; p < panel + panels; ++p) {
    const int width = std::min(kLanes, w.rows - p * kLanes);
    for (int row = 0; row < in.n; row += kRows) {
      const int rows = std::min(kRows, in.n - row);
      std::memset(sums, 0, sizeof sums);
      for (int k = 0; k < in.k; k += 32) {
        const int kc = std::min(32, in.k - k);
        expand(w, p, k, kc, values, kLanes);
        add_rows(sums[0], kLanes, values, kLanes, in.x + static_cast<int64_t>(row) * in.k + k, in.k, kc, rows);
      }
      for (int i = 0; i < rows; ++i) {
        std::memcpy(out + (row + i) * ldo + p * kLanes, sums[i], sizeof(float) * static_cast<size_t>(width));
      }
    }
  }
}

void panel_portable(const PackedWeight& w, int panel, const PanelInput& in, int row, int rows, float* scratch,
                    float* out, int64_t ldo) {
  const int panels = std::min(2, w.panels() - panel), width = std::min(2 * kLanes, w.rows - panel * kLanes);
  float* sums = scratch;
  float* values = scratch + static_cast<size_t>(rows) * 32;
  std::fill(sums, values, 0.0f);
  for (int k = 0; k < in.k; k += kPanelK) {
    const int kc = std::min(kPanelK, in.k - k);
    for (int p = 0; p < panels; ++p) {
      expand(w, panel + p, k, kc, values, kLanes);
      add_rows(sums + kLanes * p, 32, values, kLanes, in.x + static_cast<int64_t>(row) * in.k + k, in.k, kc, rows);
    }
  }
  for (int i = 0; i < rows; ++i) {
    std::memcpy(out + (row + i) * ldo + panel * kLanes, sums + 32 * i, sizeof(float) * static_cast<size_t>(width));
  }
}

}  // namespace

const MatmulKernels kMatmulPortable = {8, false, nullptr, stream_portable, nullptr, panel_portable};

}  // namespace kvasir
