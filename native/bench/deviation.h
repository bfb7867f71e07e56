// How far outputs are from the exact ones.
#pragma once
#include <cmath>
#include <cstddef>

namespace kvasir_bench {

// |got - want| / |want| of `count` numbers.
inline double deviation(const float* got, const float* want, size_t count) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < count; i++) {
    const double w = static_cast<double>(want[i]), x = static_cast<double>(got[i]);
    difference += (x - w) * (x - w), norm += w * w;
  }
  return std::sqrt(difference / norm);
}

// Its mean over heads of `dim` numbers, as many as there are in `count`.
inline double mean_deviation(const float* got, const float* want, size_t count, size_t dim) {
  double sum = 0;
  for (size_t h = 0; h < count; h += dim) sum += deviation(got + h, want + h, dim) * static_cast<double>(dim) / static_cast<double>(count);
  return sum;
}

}  // namespace kvasir_bench
