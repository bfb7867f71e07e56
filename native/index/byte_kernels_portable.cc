#define KVASIR_VEC_BYTES 16
#include "byte_kernels_body.h"
#include "isa.h"

namespace kvasir {
namespace {

void dot_bytes(float* out, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* column_scales, int32_t units) {
  for (int32_t r = 0; r < count; r++) {
    const int8_t* row = rows.codes + static_cast<size_t>(r) * static_cast<size_t>(units) * 4;
    int32_t sums[kPanelRows];
    for (int32_t& sum : sums) sum = rows.shifts[r];
    for (int32_t u = 0; u < units; u++) {
      const uint8_t* at = panel + static_cast<size_t>(u) * kPanelRows * 4;
      for (int32_t j = 0; j < kPanelRows; j++) {
        for (int32_t i = 0; i < 4; i++) sums[j] += at[j * 4 + i] * row[u * 4 + i];
      }
    }
    for (int32_t j = 0; j < kPanelRows; j++) {
      out[r * kPanelRows + j] = rows.bases[r] + rows.scales[r] * column_scales[j] * static_cast<float>(sums[j]);
    }
  }
}

void above_bytes(const BytePassed& passed, const ByteTerms& rows, int32_t count, const uint8_t* panel, const float* column_scales,
                 int32_t units) {
  pass_products(dot_bytes, passed, rows, count, panel, column_scales, units);
}

}  // namespace

const ByteKernels kBytesPortable = {pack_columns, dot_bytes, above_bytes, best_of_rows};

}  // namespace kvasir
