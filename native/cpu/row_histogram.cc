#include "row_histogram.h"

#include <algorithm>
#include <cmath>

namespace kvasir {

RowHistogram::RowHistogram(const LogitRow& row, double temperature)
    : row_(row), temperature_(temperature), scale_(0), sums_(kBuckets) {
  // Equal widths over 50 temperatures below the largest: what lies deeper weighs under 2e-22, shares the last one.
  // Capped, so that the product with the largest distance of two floats stays finite.
  scale_ = std::min(static_cast<double>(kBuckets - 1) / (50 * temperature), 1e200);
  row.bucket_sums(sums_.data(), temperature, scale_);
}

const std::vector<uint64_t>& RowHistogram::sorted(size_t bucket) {
  const auto found = gathered_.find(bucket);
  if (found != gathered_.end()) return found->second;
  std::vector<uint64_t> keys = row_.in_bucket(bucket, scale_);
  std::sort(keys.begin(), keys.end());
  return gathered_[bucket] = std::move(keys);
}

double RowHistogram::sum(Mark end) {
  double total = 0;
  for (size_t b = 0; b < std::min(end.bucket, kBuckets); b++) total += sums_[b];
  if (end.index > 0) {
    const std::vector<uint64_t>& keys = sorted(end.bucket);
    for (size_t i = 0; i < end.index; i++) total += row_.weight(keys[i], temperature_);
  }
  return total;
}

RowHistogram::Mark RowHistogram::reaching(double least) {
  if (least <= 0) return end();
  // The bucket where exp(-d / temperature) passes `least`, and its neighbours: a rounding must not decide.
  const double at = -std::log(least) * temperature_ * scale_;
  const size_t near = at < kBuckets - 1 ? static_cast<size_t>(at) : kBuckets - 1;
  const size_t last = std::min(near + 1, kBuckets - 1);
  for (size_t b = near == 0 ? 0 : near - 1; b <= last; b++) {
    const std::vector<uint64_t>& keys = sorted(b);
    for (size_t i = 0; i < keys.size(); i++) {
      if (row_.weight(keys[i], temperature_) >= least) continue;
      return {b, b == 0 && i == 0 ? 1 : i};
    }
  }
  return {last + 1, 0};
}

size_t RowHistogram::id_before(Mark end) {
  while (end.index == 0) {
    end.bucket--;  // bucket 0 holds the largest, so this ends
    if (sums_[end.bucket] > 0) end.index = sorted(end.bucket).size();
  }
  return LogitRow::id_of(sorted(end.bucket)[end.index - 1]);
}

}  // namespace kvasir
