#include "panel_kernels.h"

namespace kvasir {

float Panels::at(int32_t row, int32_t d) const {
  const size_t i = (static_cast<size_t>(row / kPanelRows) * static_cast<size_t>(dim_) + static_cast<size_t>(d)) * kPanelRows +
                   static_cast<size_t>(row % kPanelRows);
  return data_[i];
}

void Panels::pack(const float* rows, int32_t count, int32_t dim) {
  count_ = count;
  dim_ = dim;
  data_.assign(static_cast<size_t>(panels()) * static_cast<size_t>(dim) * kPanelRows, 0.0f);
  for (int32_t i = 0; i < count; i++) {
    float* to = data_.data() + static_cast<size_t>(i / kPanelRows) * static_cast<size_t>(dim) * kPanelRows + i % kPanelRows;
    const float* from = rows + static_cast<size_t>(i) * static_cast<size_t>(dim);
    for (int32_t d = 0; d < dim; d++) to[static_cast<size_t>(d) * kPanelRows] = from[d];
  }
}

void Panels::restore(int32_t count, int32_t dim, const float* data) {
  count_ = count;
  dim_ = dim;
  data_.assign(data, data + width() * static_cast<size_t>(dim));
}

std::vector<float> Panels::unpack() const {
  std::vector<float> rows(static_cast<size_t>(count_) * static_cast<size_t>(dim_));
  for (int32_t i = 0; i < count_; i++) {
    for (int32_t d = 0; d < dim_; d++) rows[static_cast<size_t>(i) * static_cast<size_t>(dim_) + static_cast<size_t>(d)] = at(i, d);
  }
  return rows;
}

void Panels::dot(const PanelKernels& kernels, float* out, const float* rows, int32_t count) const {
  const size_t stride = width();
  const size_t panel = static_cast<size_t>(dim_) * kPanelRows;
  for (size_t p = 0; p < static_cast<size_t>(panels()); p++) {
    kernels.dot(out + p * kPanelRows, stride, rows, count, data_.data() + p * panel, dim_);
  }
}

}  // namespace kvasir
