#include "spread.h"

#include <cmath>

namespace kvasir {

void rotate(const LayerShape& shape, float* row, double distance) { rotate_all(shape, row, 1, distance); }

void rotate_all(const LayerShape& shape, float* rows, int32_t count, double distance) {
  const size_t pairs = shape.frequencies.size();
  for (size_t i = 0; i < pairs; i++) {
    const size_t a = shape.neighbours ? 2 * i : i, b = shape.neighbours ? 2 * i + 1 : i + pairs;
    const double angle = distance * shape.frequencies[i], c = std::cos(angle), s = std::sin(angle);
    for (int32_t r = 0; r < count; r++) {
      float* row = rows + static_cast<size_t>(r) * static_cast<size_t>(shape.head_dim);
      const double x = row[a], y = row[b];
      row[a] = static_cast<float>(x * c - y * s);
      row[b] = static_cast<float>(x * s + y * c);
    }
  }
}

void spread(const LayerShape& shape, float* queries, const int32_t* positions, int32_t count, int32_t from, int32_t horizon) {
  constexpr double kGolden = 0.6180339887498949;
  for (int32_t i = 0; i < count; i++) {
    const double part = (i + 0.5) * kGolden, target = from + std::floor((part - std::floor(part)) * horizon);
    rotate(shape, queries + static_cast<size_t>(i) * static_cast<size_t>(shape.head_dim), target - positions[i]);
  }
}

}  // namespace kvasir
