// Encoding of keys for every instruction set, and plain bodies of the other kernels; see code_kernels.h. Included once per set.
#pragma once
#include <cmath>
#include <limits>

#include "code_kernels.h"
#include "kvasir_abi.h"
#include "query_code_body.h"
#include "row_kernels_body.h"

namespace kvasir {
namespace {

typedef int32_t CodeInts __attribute__((vector_size(64)));
typedef uint8_t CodeBytes __attribute__((vector_size(16)));

// Unit `unit` of row `row` as floats; zeros behind the row's end.
template <class T>
inline void read_unit(DotLanes* out, const CodeRows& from, int32_t dim, int32_t row, int32_t unit) {
  const T* p = static_cast<const T*>(from.rows) + static_cast<size_t>(row) * static_cast<size_t>(dim) + unit * kUnit;
  float wide[kUnit];
  if ((unit + 1) * kUnit <= dim) {
    widen_lanes(wide, p);
  } else {
    for (int32_t i = 0; i < kUnit; i++) {
      wide[i] = 0;
      if (unit * kUnit + i >= dim) continue;
      if constexpr (sizeof(T) == 2) wide[i] = widen_half(p[i]);
      else wide[i] = static_cast<float>(p[i]);
    }
  }
  std::memcpy(out, wide, sizeof wide);
  if constexpr (sizeof(T) == 1) *out *= from.scales[row];
}

inline void read_unit(DotLanes* out, const CodeRows& from, int32_t dim, int32_t row, int32_t unit) {
  if (from.dtype == KVASIR_F32) read_unit<float>(out, from, dim, row, unit);
  else if (from.dtype == KVASIR_F16) read_unit<uint16_t>(out, from, dim, row, unit);
  else read_unit<int8_t>(out, from, dim, row, unit);
}

inline float max_lanes(const DotLanes& v) {
#if defined(__AVX512F__)
  __m512 x;
  std::memcpy(&x, &v, sizeof x);
  return _mm512_reduce_max_ps(x);
#else
  float part[kUnit];
  std::memcpy(part, &v, sizeof v);
  for (int32_t n = kUnit / 2; n > 0; n /= 2) {
    for (int32_t i = 0; i < n; i++) part[i] = part[i + n] > part[i] ? part[i + n] : part[i];
  }
  return part[0];
#endif
}

template <class T>
void add_typed_rows(float* sum, int32_t dim, const CodeRows& rows) {
  for (int32_t unit = 0; unit * kUnit < dim; unit++) {
    float padded[kUnit] = {};
    const size_t bytes = sizeof(float) * static_cast<size_t>(dim - unit * kUnit < kUnit ? dim - unit * kUnit : kUnit);
    std::memcpy(padded, sum + unit * kUnit, bytes);
    DotLanes total;
    std::memcpy(&total, padded, sizeof total);
    for (int32_t r = 0; r < rows.count; r++) {
      DotLanes x;
      read_unit<T>(&x, rows, dim, r, unit);
      total += x;
    }
    std::memcpy(padded, &total, sizeof total);
    std::memcpy(sum + unit * kUnit, padded, bytes);
  }
}

// Below 1e-30 a code has no room for its reciprocal, above 1e37 none for the product: zero, and the error says so.
inline uint16_t code_scale(float peak) { return peak > 1e-30f && peak < 1e37f ? bfloat_above(peak * (1 / 127.0f)) : 0; }

// Stores the bound of a key's error from sums of squares of its elements and of what the code lost; returns its norm.
inline float finish_code(uint16_t* error, int32_t dim, float slack, float squares, float lost, float peak) {
  // Squares of what is tiny vanish, of what is huge overflow: then the largest element bounds instead.
  const bool exact = squares > 1e-30f && squares < 1e36f;
  const float spread = peak * std::sqrt(static_cast<float>(dim));
  const float norm = exact ? std::sqrt(squares) : spread, rest = exact ? std::sqrt(lost) : spread;
  const float bound = rest * 1.001f + slack * norm;
  *error = bound < 1e37f ? bfloat_above(bound) : uint16_t{0x7f80};
  return norm < 1e37f ? norm : std::numeric_limits<float>::infinity();
}

template <class T>
float encode_typed(uint8_t* block, uint16_t* errors, const CodeShape& shape, const float* centre, float slack, int32_t lane,
                   const CodeRows& rows) {
  float largest = 0;
  for (int32_t r = 0; r < rows.count; r++) {
    DotLanes squares = {}, lost = {};
    float biggest = 0;
    for (int32_t band = 0; band < shape.bands; band++) {
      const int32_t units = band * 2 + 1 < shape.units ? 2 : 1;
      DotLanes x[2];
      DotLanes most = {};
      for (int32_t u = 0; u < units; u++) {
        DotLanes c;
        std::memcpy(&c, centre + (band * 2 + u) * kUnit, sizeof c);  // padded with zeros
        read_unit<T>(&x[u], rows, shape.dim, r, band * 2 + u);
        x[u] -= c;
        squares += x[u] * x[u];
        const DotLanes magnitude = x[u] < 0.0f ? -x[u] : x[u];
        most = most < magnitude ? magnitude : most;
      }
      const float peak = max_lanes(most);
      biggest = peak > biggest ? peak : biggest;
      const uint16_t scale = code_scale(peak);
      const float wide = widen_bfloat(scale), inverse = scale == 0 ? 0 : 1 / wide;
      std::memcpy(block + shape.scale_at(lane + r, band), &scale, 2);
      for (int32_t u = 0; u < units; u++) {
        DotLanes scaled = x[u];
        if (scale == 0) scaled = DotLanes{};
        const DotLanes shifted = scaled * inverse + 0x1.8p23f;  // leaves the nearest integer in the low bits
        const DotLanes rest = x[u] - (shifted - 0x1.8p23f) * wide;
        lost += rest * rest;
        int32_t bits[kUnit];
        std::memcpy(bits, &shifted, sizeof bits);
        uint8_t* const to = block + shape.unit_at(lane + r, band * 2 + u);
        for (int32_t i = 0; i < kUnit; i++) to[i] = static_cast<uint8_t>(bits[i] + 128);
      }
    }
    const float norm = finish_code(errors + lane + r, shape.dim, slack, sum_dot_lanes(squares), sum_dot_lanes(lost), biggest);
    largest = norm > largest ? norm : largest;
  }
  return largest;
}

inline void add_code_rows(float* sum, int32_t dim, const CodeRows& rows) {
  if (rows.dtype == KVASIR_F32) add_typed_rows<float>(sum, dim, rows);
  else if (rows.dtype == KVASIR_F16) add_typed_rows<uint16_t>(sum, dim, rows);
  else add_typed_rows<int8_t>(sum, dim, rows);
}

inline float encode_codes(uint8_t* block, uint16_t* errors, const CodeShape& shape, const float* centre, float slack, int32_t lane,
                   const CodeRows& rows) {
  if (rows.dtype == KVASIR_F32) return encode_typed<float>(block, errors, shape, centre, slack, lane, rows);
  if (rows.dtype == KVASIR_F16) return encode_typed<uint16_t>(block, errors, shape, centre, slack, lane, rows);
  return encode_typed<int8_t>(block, errors, shape, centre, slack, lane, rows);
}

// Logit of one key without base; `lane` of `block`.
inline float plain_logit(const CodeShape& shape, const CodeQuery& query, int32_t shift, const uint8_t* block, int32_t lane,
                         int32_t g) {
  float logit = 0;
  for (int32_t band = 0; band < shape.bands; band++) {
    int32_t sum = 0;
    for (int32_t plane = 0; plane < query.planes; plane++) {
      sum *= 1 << shift;
      const int8_t* row = query.rows + static_cast<size_t>(plane * query.group + g) * query.row_bytes;
      for (int32_t unit = band * 2; unit < band * 2 + 2 && unit < shape.units; unit++) {
        const uint8_t* bytes = block + shape.unit_at(lane, unit);
        for (int32_t i = 0; i < kUnit; i++) sum += static_cast<int32_t>(bytes[i]) * row[unit * kUnit + i];
      }
    }
    uint16_t scale;
    std::memcpy(&scale, block + shape.scale_at(lane, band), 2);
    logit += static_cast<float>(sum + query.offsets[g * shape.bands + band]) * widen_bfloat(scale);
  }
  return logit * query.factors[g];
}

template <int32_t kShift>
void scan_plain(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* base,
                const uint8_t* codes, const uint16_t* errors, int32_t blocks, const ScanAhead&) {
  for (int32_t b = 0; b < blocks; b++) {
    const uint8_t* block = codes + static_cast<size_t>(b) * shape.block_bytes;
    for (int32_t g = 0; g < query.group; g++) {
      for (int32_t lane = 0; lane < kBlockKeys; lane++) {
        float x = plain_logit(shape, query, kShift, block, lane, g) + base[g];
        if (errors != nullptr) x += query.bounds[g] * widen_bfloat(errors[b * kBlockKeys + lane]);
        out[static_cast<size_t>(g) * stride + static_cast<size_t>(b * kBlockKeys + lane)] = x;
      }
    }
  }
}

template <int32_t kShift>
void gather_plain(float* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* base,
                  const uint8_t* const* codes, const uint16_t* const* errors, int32_t chunk_bits, const int32_t* ids,
                  int32_t count) {
  for (int32_t i = 0; i < count; i++) {
    const int32_t chunk = ids[i] >> chunk_bits, key = ids[i] & ((1 << chunk_bits) - 1);
    const uint8_t* block = codes[chunk] + static_cast<size_t>(key / kBlockKeys) * shape.block_bytes;
    for (int32_t g = 0; g < query.group; g++) {
      float x = plain_logit(shape, query, kShift, block, key % kBlockKeys, g) + base[chunk * query.group + g];
      if (errors != nullptr) x += query.bounds[g] * widen_bfloat(errors[chunk][key]);
      out[static_cast<size_t>(g) * stride + static_cast<size_t>(i)] = x;
    }
  }
}

}  // namespace
}  // namespace kvasir
