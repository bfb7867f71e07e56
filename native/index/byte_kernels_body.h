// What ByteKernels share; see byte_kernels.h. Included once per instruction set, after KVASIR_VEC_BYTES.
#pragma once
#include "byte_kernels.h"
#include "panel_kernels.h"
#include "vec.h"

#include <vector>

namespace kvasir {
namespace {

typedef uint8_t ByteLanes __attribute__((vector_size(kLanes)));

// round(x * factor) + 128, x no farther from zero than 127 / factor.
template <class X>
inline X raised(X x, float factor) {
  return x * factor + 128.5f;
}

void pack_columns(uint8_t* panel, float* scales, float* columns, int32_t count, const BytePacking& how) {
  constexpr int32_t kPiece = 256, kStep = static_cast<int32_t>(kLanes);
  const int32_t dim = how.dim, whole = dim / kStep * kStep;
  uint8_t few[kPiece + 1];
  std::vector<uint8_t> many(dim > kPiece ? static_cast<size_t>(dim) + 1 : 0);
  uint8_t* const codes = dim > kPiece ? many.data() : few;
  codes[dim] = 128;
  for (int32_t i = 0; i < count; i++) {
    float* x = columns + static_cast<size_t>(i) * static_cast<size_t>(dim);
    Floats sizes = all(0);
    for (int32_t d = 0; d < whole; d += kStep) {
      const Floats v = (load(x + d) - load(how.means + d)) * load(how.inverses + d), size = v < 0.0f ? -v : v;
      store(x + d, v);
      sizes = size > sizes ? size : sizes;
    }
    float most = 0;
    for (size_t lane = 0; lane < kLanes; lane++) most = sizes[lane] > most ? sizes[lane] : most;
    for (int32_t d = whole; d < dim; d++) {
      x[d] = (x[d] - how.means[d]) * how.inverses[d];
      const float size = x[d] < 0 ? -x[d] : x[d];
      most = size > most ? size : most;
    }
    const float factor = 127 / most;
    if (!(most > 0) || most - most != 0 || factor - factor != 0) continue;
    scales[i] = most / 127;
    for (int32_t d = 0; d < whole; d += kStep) {
      const ByteLanes bytes = __builtin_convertvector(__builtin_convertvector(raised(load(x + d), factor), Ints), ByteLanes);
      std::memcpy(codes + d, &bytes, sizeof bytes);
    }
    for (int32_t d = whole; d < dim; d++) codes[d] = static_cast<uint8_t>(static_cast<int32_t>(raised(x[d], factor)));
    for (int32_t u = 0; u < how.units; u++) {
      const int32_t* from = how.order + u * 4;
      const uint8_t four[4] = {codes[from[0]], codes[from[1]], codes[from[2]], codes[from[3]]};
      std::memcpy(panel + static_cast<size_t>(u * kPanelRows + i) * 4, four, sizeof four);
    }
  }
}

void best_of_rows(float* best, int32_t* which, const float* scores, int32_t count, int32_t first) {
  for (int32_t v = 0; v < kPanelRows; v += static_cast<int32_t>(kLanes)) {
    Floats most = load(best + v);
    Ints at = load_as<Ints>(which + v);
    for (int32_t r = 0; r < count; r++) {
      const Floats s = load(scores + static_cast<size_t>(r) * kPanelRows + v);
      const Ints better = s > most;
      most = better ? s : most;
      at = better ? Ints{} + (first + r) : at;
    }
    store(best + v, most);
    std::memcpy(which + v, &at, sizeof at);
  }
}

constexpr int32_t kLaneBits[8] = {1, 2, 4, 8, 16, 32, 64, 128};

// ByteKernels::above by dot, a few rows at a time; vectors of up to 8 floats.
template <class Dot>
void pass_products(const Dot& dot, const BytePassed& passed, const ByteTerms& rows, int32_t count, const uint8_t* panel,
                   const float* column_scales, int32_t units) {
  constexpr int32_t kRows = 8;
  float scores[kRows * kPanelRows];
  for (int32_t r = 0; r < count; r += kRows) {
    const int32_t some = count - r < kRows ? count - r : kRows;
    const ByteTerms piece = {rows.codes + static_cast<size_t>(r) * static_cast<size_t>(units) * 4, rows.scales + r, rows.bases + r,
                             rows.shifts + r};
    dot(scores, piece, some, panel, column_scales, units);
    for (int32_t i = 0; i < some; i++) {
      const float* s = scores + i * kPanelRows;
      const float threshold = passed.thresholds[r + i];
      Ints bits = {};
      for (int32_t v = 0; v < kPanelRows; v += static_cast<int32_t>(kLanes)) {
        bits |= (load(s + v) >= threshold) & load_as<Ints>(kLaneBits + v % 8) << v / 8 * 8;
      }
      uint32_t mask = 0;
      for (size_t lane = 0; lane < kLanes; lane++) mask |= static_cast<uint32_t>(bits[lane]);
      passed.masks[static_cast<size_t>(r + i) * passed.stride] = mask;
      float* kept = passed.scores + static_cast<size_t>(r + i) * passed.room + static_cast<size_t>(passed.counts[r + i]);
      for (uint32_t rest = mask; rest != 0; rest &= rest - 1) *kept++ = s[__builtin_ctz(rest)];
      passed.counts[r + i] += __builtin_popcount(mask);
    }
  }
}

}  // namespace
}  // namespace kvasir
