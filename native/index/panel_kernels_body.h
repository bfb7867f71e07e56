// Bodies of PanelKernels; see panel_kernels.h. Included once per instruction set, after vec.h.
#pragma once
#include "panel_kernels.h"
#include "vec.h"

namespace kvasir {
namespace {

constexpr int32_t kPanelVectors = kPanelRows / static_cast<int32_t>(kLanes);
// Rows of a tile: its sums and one panel row fill the registers of the set.
#if KVASIR_VEC_BYTES == 64
constexpr int32_t kTileRows = 12;
#elif KVASIR_VEC_BYTES == 32
constexpr int32_t kTileRows = 3;
#else
constexpr int32_t kTileRows = 1;
#endif

template <int32_t R>
inline void dot_tile(float* out, size_t stride, const float* rows, const float* panel, int32_t dim) {
  Floats sums[R][kPanelVectors];
#pragma GCC unroll 16
  for (int32_t r = 0; r < R; r++) {
#pragma GCC unroll 16
    for (int32_t v = 0; v < kPanelVectors; v++) sums[r][v] = Floats{};
  }
  for (int32_t d = 0; d < dim; d++) {
    Floats b[kPanelVectors];
#pragma GCC unroll 16
    for (int32_t v = 0; v < kPanelVectors; v++) {
      b[v] = load(panel + static_cast<size_t>(d) * kPanelRows + static_cast<size_t>(v) * kLanes);
    }
#pragma GCC unroll 16
    for (int32_t r = 0; r < R; r++) {
      const float a = rows[static_cast<size_t>(r) * static_cast<size_t>(dim) + static_cast<size_t>(d)];
#pragma GCC unroll 16
      for (int32_t v = 0; v < kPanelVectors; v++) sums[r][v] += a * b[v];
    }
  }
#pragma GCC unroll 16
  for (int32_t r = 0; r < R; r++) {
#pragma GCC unroll 16
    for (int32_t v = 0; v < kPanelVectors; v++) {
      store(out + static_cast<size_t>(r) * stride + static_cast<size_t>(v) * kLanes, sums[r][v]);
    }
  }
}

void dot_panel(float* out, size_t stride, const float* rows, int32_t count, const float* panel, int32_t dim) {
  int32_t r = 0;
  for (; r + kTileRows <= count; r += kTileRows) {
    dot_tile<kTileRows>(out + static_cast<size_t>(r) * stride, stride, rows + static_cast<size_t>(r) * dim, panel, dim);
  }
  for (; r < count; r++) dot_tile<1>(out + static_cast<size_t>(r) * stride, stride, rows + static_cast<size_t>(r) * dim, panel, dim);
}

int32_t argmax_values(float* largest, const float* values, int32_t count) {
  float best = values[0];
  int32_t i = 0;
  if (count >= static_cast<int32_t>(kLanes)) {
    Floats most = load(values);
    for (; i + static_cast<int32_t>(kLanes) <= count; i += kLanes) {
      const Floats x = load(values + i);
      most = x > most ? x : most;
    }
    best = most[0];
    for (size_t lane = 1; lane < kLanes; lane++) best = most[lane] > best ? most[lane] : best;
  }
  for (; i < count; i++) best = values[i] > best ? values[i] : best;
  *largest = best;
  for (i = 0; values[i] != best; i++) {}
  return i;
}

}  // namespace
}  // namespace kvasir
