#include "select.h"

#include <cstring>

namespace kvasir {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

void pad(float* scores, int32_t n) {
  for (int32_t i = n; i % 32 != 0; i++) scores[i] = kLowest;
}

// Floats in the order of integers.
int32_t order_of(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits < 0 ? static_cast<int32_t>(~static_cast<uint32_t>(bits) | 0x80000000u) : bits;
}
float of_order(int32_t order) {
  const int32_t bits = order < 0 ? static_cast<int32_t>(~(static_cast<uint32_t>(order) & 0x7fffffffu)) : order;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

}  // namespace

Threshold find_kth(const SelectKernels& kernels, float* scores, int32_t n, int32_t k, int32_t slack) {
  pad(scores, n);
  const int32_t padded = (n + 31) / 32 * 32;
  float low, high;
  kernels.range(&low, &high, scores, padded);
  // count(low) >= k; above `high` there is nothing.
  Threshold best = {low, n};
  if (n <= k + slack || low == high) return best;
  int32_t a = order_of(low), b = order_of(high);
  {
    const int32_t top = kernels.count_at_least(scores, padded, high);
    if (top >= k) return {high, top};
  }
  // count(a) >= k > count(b). Halves of the interval of values come near fast; halves of the order end it.
  for (int round = 0; static_cast<int64_t>(b) - a > 1; round++) {
    int32_t middle = static_cast<int32_t>((static_cast<int64_t>(a) + b) >> 1);
    if (round < 24) {
      const int32_t half = order_of(of_order(a) * 0.5f + of_order(b) * 0.5f);
      if (half > a && half < b) middle = half;
    }
    const float t = of_order(middle);
    const int32_t count = kernels.count_at_least(scores, padded, t);
    if (count >= k) {
      a = middle;
      best = {t, count};
      if (count <= k + slack) break;
    } else {
      b = middle;
    }
  }
  return best;
}

Threshold gather_best(const SelectKernels& kernels, const float* scores, int32_t n, int32_t k, const SelectWork& work) {
  const int32_t padded = (n + 31) / 32 * 32;
  // The k-th largest maximum of disjoint cells bounds the k-th largest score from below; four cells a hit make it close.
  int32_t cells = std::min(padded, (4 * k + 31) / 32 * 32);
  float* const most = work.exact;
  kernels.max_cells(most, scores, cells, padded);
  // Behind the last score are only cells of -INFINITY: fewer than k others are possible where nearly all cells are padding.
  const Threshold t = find_kth(kernels, most, cells, std::min(k, cells), k / 8);
  return {t.value, kernels.compress(work.ids, work.values, scores, padded, t.value)};
}

void keep_best(const SelectKernels& kernels, int32_t* ids, float* values, int32_t count, int32_t k) {
  const Threshold t = find_kth(kernels, values, count, k, 0);
  int32_t equal = 0;  // how many of those at the threshold are too many
  if (t.count > k) {
    int32_t above = 0;
    for (int32_t i = 0; i < count; i++) above += values[i] > t.value;
    equal = k - above;
  }
  int32_t kept = 0;
  for (int32_t i = 0; i < count && kept < k; i++) {
    bool keep = values[i] >= t.value;
    if (keep && t.count > k && values[i] == t.value) keep = equal-- > 0;
    ids[kept] = ids[i];
    kept += keep;
  }
}

int32_t select_best(const SelectKernels& kernels, const float* scores, int32_t n, int32_t k, const SelectWork& work) {
  if (k >= n) {
    for (int32_t i = 0; i < n; i++) work.ids[i] = i;
    return n;
  }
  const Threshold all = gather_best(kernels, scores, n, k, work);
  keep_best(kernels, work.ids, work.values, all.count, k);
  return k;
}

}  // namespace kvasir
