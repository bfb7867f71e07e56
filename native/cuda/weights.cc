#include "weights.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "error.h"
#include "quant.h"
#include "runtime_fail.h"

namespace kvasir {
namespace {

uint32_t padded(size_t bytes) { return static_cast<uint32_t>((bytes + 15) / 16 * 16); }

// Two bits of 32 columns: i, i + 8, i + 16, i + 24 in the quarters of byte i.
void store_quarters(const uint8_t* codes, int shift, uint8_t* out) {
  for (int i = 0; i < 8; i++) {
    out[i] = static_cast<uint8_t>((codes[i] >> shift & 3) | (codes[i + 8] >> shift & 3) << 2 | (codes[i + 16] >> shift & 3) << 4 |
                                  (codes[i + 24] >> shift & 3) << 6);
  }
}

void store_bits(const uint8_t* codes, int shift, uint8_t* out) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; i++) bits |= static_cast<uint32_t>(codes[i] >> shift & 1) << i;
  std::memcpy(out, &bits, 4);
}

// 32 columns' codes to the low and high planes.
void store_codes(int32_t dtype, const uint8_t* codes, uint8_t* low, uint8_t* high) {
  switch (dtype) {
    case KVASIR_Q8_0:
      for (int i = 0; i < 32; i++) low[i] = codes[i] ^ 0x80;
      return;
    case KVASIR_Q3_K:
      store_quarters(codes, 0, low);
      store_bits(codes, 2, high);
      return;
    default:
      for (int i = 0; i < 16; i++) low[i] = static_cast<uint8_t>((codes[i] & 15) | codes[i + 16] << 4);
      if (dtype == KVASIR_Q6_K) store_quarters(codes, 4, high);
      if (dtype == KVASIR_Q5_0 || dtype == KVASIR_Q5_1 || dtype == KVASIR_Q5_K) store_bits(codes, 4, high);
  }
}

struct HostRow {
  uint8_t *low, *high, *subs, *scales;
};

void pack_row(const WeightView& view, int32_t dtype, const HostRow& to, const uint8_t* src) {
  const QuantInfo& info = *quant_info(dtype);
  const WeightPlanes planes = weight_planes(dtype);
  BlockCodes block;
  const int parts = info.elements / 32;
  for (int32_t b = 0, unit = 0; b < view.cols / 32; b += parts, unit++, src += info.bytes) {
    split_block(dtype, src, block);
    std::memcpy(to.scales + unit * planes.scales, &block.d, 2);
    if (planes.scales == 4) std::memcpy(to.scales + unit * 4 + 2, &block.m, 2);
    for (int p = 0; p < parts; p++) {
      const int32_t at = b + p;
      store_codes(dtype, block.codes + 32 * p, to.low + at * planes.low, to.high + at * planes.high);
      if (!planes.is_super) continue;
      to.subs[2 * at] = info.has_min ? block.scales[p] : block.scales[2 * p];
      to.subs[2 * at + 1] = info.has_min ? block.mins[p] : block.scales[2 * p + 1];
    }
  }
}

}  // namespace

WeightPlanes weight_planes(int32_t dtype) {
  switch (dtype) {
    case KVASIR_Q4_0:
    case KVASIR_IQ4_NL: return {16, 0, 0, 2, false};
    case KVASIR_Q4_1: return {16, 0, 0, 4, false};
    case KVASIR_Q5_0: return {16, 4, 0, 2, false};
    case KVASIR_Q5_1: return {16, 4, 0, 4, false};
    case KVASIR_Q8_0: return {32, 0, 0, 2, false};
    case KVASIR_Q3_K: return {8, 4, 2, 2, true};
    case KVASIR_Q4_K: return {16, 0, 2, 4, true};
    case KVASIR_Q5_K: return {16, 4, 2, 4, true};
    case KVASIR_Q6_K: return {16, 8, 2, 2, true};
    default: return {0, 0, 0, 0, false};
  }
}

std::shared_ptr<PackedWeight> weight_create(Runtime& runtime, int32_t dtype, int32_t rows, int32_t cols) {
  const QuantInfo* info = quant_info(dtype);
  if (info == nullptr) fail(KVASIR_ARGUMENT, "Cannot create weight: type %d is no weight type", dtype);
  WeightView view{};
  view.rows = rows, view.cols = cols;
  const size_t k = static_cast<size_t>(cols);
  if (info->elements == 1) {
    view.low_stride = padded(k * static_cast<size_t>(info->bytes));
  } else {
    const WeightPlanes p = weight_planes(dtype);
    const size_t blocks = k / 32, units = p.is_super ? k / 256 : blocks;
    view.low_stride = padded(blocks * p.low), view.high_stride = padded(blocks * p.high);
    view.subs_stride = padded(blocks * p.subs), view.scales_stride = padded(units * p.scales);
  }
  const size_t height = static_cast<size_t>(rows), bytes = height * (size_t{view.low_stride} + view.high_stride + view.subs_stride + view.scales_stride);
  auto* data = static_cast<uint8_t*>(runtime.allocate(bytes));
  if (data == nullptr) fail(KVASIR_MEMORY, "Cannot create weight: out of memory for %zu bytes%s", bytes, kWeightsTooLarge);
  view.low = data;
  view.high = view.low + height * view.low_stride;
  view.subs = view.high + height * view.high_stride;
  view.scales = view.subs + height * view.subs_stride;
  return std::make_shared<PackedWeight>(runtime, dtype, bytes, data, view);
}

void weight_write(PackedWeight& w, int32_t row, int32_t rows, const uint8_t* src) {
  const WeightView& v = w.view;
  if (rows == 0 || v.cols == 0) return;
  const QuantInfo& info = *quant_info(w.dtype);
  const size_t row_bytes = quant_row_bytes(info, v.cols);
  const size_t widths[] = {v.low_stride, v.high_stride, v.subs_stride, v.scales_stride};
  const uint8_t* planes[] = {v.low, v.high, v.subs, v.scales};
  // Some megabytes at a time: repacked here, then copied plane by plane.
  const int32_t step = static_cast<int32_t>(std::max<size_t>(1, (size_t{4} << 20) / (widths[0] + widths[1] + widths[2] + widths[3])));
  std::vector<uint8_t> packed[4];
  for (int32_t first = 0; first < rows; first += step) {
    const size_t count = static_cast<size_t>(std::min(step, rows - first));
    for (int p = 0; p < 4; p++) packed[p].assign(count * widths[p], 0);
    for (size_t r = 0; r < count; r++) {
      const uint8_t* from = src + (static_cast<size_t>(first) + r) * row_bytes;
      if (info.elements == 1) std::memcpy(packed[0].data() + r * widths[0], from, row_bytes);
      else pack_row(v, w.dtype, {packed[0].data() + r * widths[0], packed[1].data() + r * widths[1],
                                 packed[2].data() + r * widths[2], packed[3].data() + r * widths[3]}, from);
    }
    for (int p = 0; p < 4; p++) {
      if (widths[p] == 0) continue;
      const size_t at = static_cast<size_t>(row + first) * widths[p];
      w.runtime.upload(const_cast<uint8_t*>(planes[p]) + at, packed[p].data(), count * widths[p]);
    }
  }
}

}  // namespace kvasir
