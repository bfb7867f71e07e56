// Products of many rows with many rows in float32: one side lies in panels of 32 rows, dimension by dimension.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvasir {

constexpr int32_t kPanelRows = 32;

struct PanelKernels {
  // out[r * stride + j] = rows[r] . (row j of the panel): rows [count, dim], panel [dim, 32].
  void (*dot)(float* out, size_t stride, const float* rows, int32_t count, const float* panel, int32_t dim);
  // The first of the largest of `count` values: its place; largest [out].
  int32_t (*argmax)(float* largest, const float* values, int32_t count);
};

// Rows packed for PanelKernels: [ceil(count / 32)][dim][32]; what is missing in the last panel is zero.
class Panels {
 public:
  void pack(const float* rows, int32_t count, int32_t dim);
  int32_t count() const { return count_; }
  int32_t panels() const { return (count_ + kPanelRows - 1) / kPanelRows; }
  int32_t dim() const { return dim_; }
  size_t width() const { return static_cast<size_t>(panels()) * kPanelRows; }
  size_t bytes() const { return data_.size() * sizeof(float); }
  // [ceil(count / 32), dim, 32].
  const float* data() const { return data_.data(); }
  // Takes over what data() gave.
  void restore(int32_t count, int32_t dim, const float* data);
  float at(int32_t row, int32_t d) const;
  // Rows as they were packed: [count, dim].
  std::vector<float> unpack() const;
  // out [rows, width()] = rows [count, dim] . packed rows.
  void dot(const PanelKernels& kernels, float* out, const float* rows, int32_t count) const;

 private:
  int32_t count_ = 0, dim_ = 0;
  std::vector<float> data_;
};

}  // namespace kvasir
