// Bodies of SelectKernels for every instruction set; see select_kernels.h. Included once per set.
#pragma once
#include <cstring>

#include "draw.h"
#include "kvasir_abi.h"
#include "prefetch.h"
#include "row_kernels_body.h"
#include "select_kernels.h"

namespace kvasir {
namespace {

typedef int32_t SelectInts __attribute__((vector_size(64)));
typedef uint32_t SelectBits __attribute__((vector_size(64)));

void max_score_cells(float* cells, const float* scores, int32_t cells_count, int32_t count) {
  for (int32_t i = 0; i < cells_count; i += kDotLanes) {
    DotLanes most;
    std::memcpy(&most, scores + i, sizeof most);
    for (int32_t at = i + cells_count; at < count; at += cells_count) {
      DotLanes x;
      std::memcpy(&x, scores + at, sizeof x);
      most = most < x ? x : most;
    }
    std::memcpy(cells + i, &most, sizeof most);
  }
}

void range_scores(float* low, float* high, const float* scores, int32_t count) {
  constexpr float kInfinite = __builtin_inff();
  DotLanes least = DotLanes{} + kInfinite, most = DotLanes{} - kInfinite;
  for (int32_t i = 0; i < count; i += kDotLanes) {
    DotLanes x;
    std::memcpy(&x, scores + i, sizeof x);
    most = most < x ? x : most;
    x = x == -kInfinite ? least : x;
    least = x < least ? x : least;
  }
  *low = kInfinite;
  *high = -kInfinite;
  for (int32_t i = 0; i < kDotLanes; i++) {
    *low = least[i] < *low ? least[i] : *low;
    *high = most[i] > *high ? most[i] : *high;
  }
}

inline int32_t count_scores(const float* scores, int32_t count, float threshold) {
  SelectInts total = {};
  for (int32_t i = 0; i < count; i += kDotLanes) {
    DotLanes x;
    std::memcpy(&x, scores + i, sizeof x);
    total -= x >= threshold;
  }
  int32_t sum = 0;
  for (int32_t i = 0; i < kDotLanes; i++) sum += total[i];
  return sum;
}

inline int32_t compress_scores(int32_t* ids, float* values, const float* scores, int32_t count, float threshold) {
  int32_t found = 0;
  for (int32_t i = 0; i < count; i += 32) {
    int32_t any = 0;
    for (int32_t j = 0; j < 32; j++) any |= scores[i + j] >= threshold;
    if (any == 0) continue;
    for (int32_t j = 0; j < 32; j++) {
      ids[found] = i + j;
      values[found] = scores[i + j];
      found += scores[i + j] >= threshold;
    }
  }
  return found;
}

// -ln(u), u = (bits + 1) 2^-32: u = m 2^e with m in [sqrt(1/2), sqrt(2)), a polynomial of m - 1 (Cephes logf); error 1e-7.
void draw_score_noise(float* noise, uint32_t key, int32_t first, int32_t count) {
  for (int32_t i = 0; i < count; i += kDotLanes) {
    float u[kDotLanes];
    for (int32_t j = 0; j < kDotLanes; j++) {
      u[j] = (static_cast<float>(draw_bits(key, first + i + j)) + 1.0f) * 0x1p-32f;
    }
    SelectBits bits;
    std::memcpy(&bits, u, sizeof bits);
    const SelectBits moved = bits - 0x3f3504f3u;  // sqrt(1/2)
    const SelectInts power = (SelectInts)moved >> 23;
    const SelectBits mantissa = (moved & 0x7fffffu) + 0x3f3504f3u;
    DotLanes x;
    std::memcpy(&x, &mantissa, sizeof x);
    x -= 1.0f;
    DotLanes p = x * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * x + 1.1676998740e-1f;
    p = p * x - 1.2420140846e-1f;
    p = p * x + 1.4249322787e-1f;
    p = p * x - 1.6668057665e-1f;
    p = p * x + 2.0000714765e-1f;
    p = p * x - 2.4999993993e-1f;
    p = p * x + 3.3333331174e-1f;
    const DotLanes e = __builtin_convertvector(power, DotLanes);
    const DotLanes log = e * 0.693359375f + (x + (x * x * x * p - 0.5f * x * x - e * 2.12194440e-4f));
    const DotLanes out = -log;
    std::memcpy(noise + i, &out, sizeof out);
  }
}

void add_scores(float* out, const float* scores, const float* noise, int32_t count) {
  for (int32_t i = 0; i < count; i++) out[i] = scores[i] + noise[i];
}

template <class T>
void rescore_rows(float* out, const float* q, const T* rows, int32_t dim, int32_t offset, const int32_t* ids, int32_t count) {
  constexpr int32_t kAhead = 16;
  const auto row_of = [&](int32_t i) {
    return rows + (static_cast<ptrdiff_t>(ids[i]) + offset) * static_cast<ptrdiff_t>(dim);
  };
  const int32_t whole = dim / kDotLanes * kDotLanes;
  const size_t bytes = static_cast<size_t>(dim) * sizeof(T);
  const auto prefetch = [&](int32_t i) {
    const char* next = reinterpret_cast<const char*>(row_of(i));
    for (size_t b = 0; b < bytes; b += 64) prefetch_line(next + b);
  };
  for (int32_t i = 0; i < count && i < kAhead; i++) prefetch(i);
  for (int32_t i = 0; i < count; i++) {
    if (i + kAhead < count) prefetch(i + kAhead);
    const T* row = row_of(i);
    DotLanes sum = {};
    for (int32_t d = 0; d < whole; d += kDotLanes) {
      float wide[kDotLanes];
      widen_lanes(wide, row + d);
      DotLanes k, x;
      std::memcpy(&k, wide, sizeof k);
      std::memcpy(&x, q + d, sizeof x);
      sum += x * k;
    }
    float total = sum_dot_lanes(sum);
    for (int32_t d = whole; d < dim; d++) {
      float k;
      if constexpr (sizeof(T) == 2) k = widen_half(row[d]);
      else k = static_cast<float>(row[d]);
      total += q[d] * k;
    }
    out[i] = total;
  }
}

void rescore_any(float* out, const float* q, const void* rows, int32_t dtype, int32_t dim, int32_t offset, const int32_t* ids,
                 int32_t count) {
  if (dtype == KVASIR_F32) rescore_rows(out, q, static_cast<const float*>(rows), dim, offset, ids, count);
  else if (dtype == KVASIR_F16) rescore_rows(out, q, static_cast<const uint16_t*>(rows), dim, offset, ids, count);
  else rescore_rows(out, q, static_cast<const int8_t*>(rows), dim, offset, ids, count);
}

}  // namespace
}  // namespace kvasir
