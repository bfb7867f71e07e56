// What turns a head's logarithms of exponentials (sample_kernels.h) into logarithms of p * 2^16, p = exp(s) / (tau Z).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "sample_kernels.h"

namespace kvasir {

// A key may be kept when its score by the coarse plane, and so many standard deviations of what the fine one adds, says so. Less makes
// keys weigh more whose fine plane adds much, more makes more candidates, which cost more than kept rows do: so tau is a tenth
// smaller, which takes back what the margin adds to the squared error. Recorded heads, Gemma 32K, SmolLM2 16K, generated 128K: output
// errors of .066, .061, .033 with 1.5; 1.06, 1.02, 1.05 times that with 1.25, 1.13, 1.04, 1.11 with 1, as many rows; KL of SmolLM2 8K
// .00116 with 1.5, .00123 with 1.4, .0013 with 1.25 and .88, at 1.00, .98 and .97 of the time.
constexpr float kMargin = 1.4f;
constexpr double kPlanesTau = 0.9;
constexpr float kMostMargin = 8192;  // in units of logarithms

// Rounded up; `sum`: of the exponentials' bits. exact: log-sum-exp of what is attended exactly; scores are relative to ref.
inline int16_t draw_offset(double sum, double exact, double ref, double tau) {
  const double z = sum / static_cast<double>(kLogExcess) + (exact == -INFINITY ? 0 : std::exp(exact - ref));
  return static_cast<int16_t>(std::clamp(std::ceil(16 * 128 - 128 * std::log2(tau * z)), -32767.0, 32767.0));
}

// The same with the sum that is known so far. Rounding, here and of sums in another order, must not take a key away: two units
// more. Where nothing is known everything may be kept.
inline int16_t draw_offset_so_far(float sum, float exact, float ref, double tau) {
  if (!(sum < 1e30f)) return 0;
  const float known = exact == ref ? 1.0f : std::exp(exact - ref);
  const float z = static_cast<float>(tau) * (known + sum * (1 / kLogExcess));
  return static_cast<int16_t>(std::clamp(std::ceil(16 * 128 - 128 * std::log2(z)) + 2, -32767.0f, 32767.0f));
}

// For scores by the coarse plane, which the fine one changes by `spread`, in nats.
inline int16_t with_margin(int16_t offset, float spread) {
  const float wanted = kMargin * kLogUnit * spread;
  return static_cast<int16_t>(std::min(offset + static_cast<int32_t>(wanted < kMostMargin ? wanted : kMostMargin), 32767));
}

}  // namespace kvasir
