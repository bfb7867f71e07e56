#include "sampling.h"

#include <algorithm>
#include <cmath>

#include "context.h"

namespace kvasir {
namespace {

// Candidates in falling order of logit, sorted only where somebody looks: they are grouped into buckets of falling
// logit with the sum of each, so a search for a cumulative sum walks bucket sums and sorts one bucket.
class Candidates {
 public:
  Candidates(const LogitRow& row, std::vector<uint64_t> keys, double temperature)
      : row_(row), temperature_(temperature), keys_(std::move(keys)) {
    // Up to here one sort is cheaper than the grouping.
    const bool few = keys_.size() <= 4096;
    start_.assign(few ? 2 : kBuckets + 1, 0);
    if (few) {
      start_[1] = keys_.size();
    } else {
      group();
    }
    sums_.assign(start_.size() - 1, 0);
    sorted_.assign(start_.size() - 1, 0);
    for (size_t b = 0; b < sums_.size(); b++) {
      for (size_t i = start_[b]; i < start_[b + 1]; i++) sums_[b] += weight(keys_[i]);
    }
  }

  size_t size() const { return keys_.size(); }

  double weight(uint64_t key) const {
    const float logit = row_[LogitRow::id_of(key)];
    // Equal to the largest weighs 1 even where both are infinite and their difference is not a number.
    if (logit == row_.max()) return 1;
    return std::exp((static_cast<double>(logit) - static_cast<double>(row_.max())) / temperature_);
  }

  uint64_t at(size_t rank) {
    size_t b = bucket_of(rank);
    sort(b);
    return keys_[rank];
  }

  // Sum of the first `end`.
  double sum(size_t end) {
    double total = 0;
    for (size_t b = 0; b < sums_.size() && start_[b] < end; b++) {
      if (start_[b + 1] <= end && sums_.size() > 1) {
        total += sums_[b];
        continue;
      }
      sort(b);
      for (size_t i = start_[b]; i < std::min(end, start_[b + 1]); i++) total += weight(keys_[i]);
    }
    return total;
  }

  // First rank below `end` whose running sum satisfies reached, or end.
  template <class F>
  size_t find(size_t end, F reached) {
    double total = 0;
    for (size_t b = 0; b < sums_.size() && start_[b] < end; b++) {
      // Only whole buckets are passed by; a sum taken in another order may differ in its last bits, so what a bucket
      // promises is decided inside it.
      if (start_[b + 1] < end && !reached(total + sums_[b])) {
        total += sums_[b];
        continue;
      }
      sort(b);
      for (size_t i = start_[b]; i < std::min(end, start_[b + 1]); i++) {
        total += weight(keys_[i]);
        if (reached(total)) return i;
      }
    }
    return end;
  }

  // Ranks below `end`, at least one, without those at the end that weigh less than least.
  size_t drop(size_t end, double least) {
    while (end > 1) {
      const size_t b = bucket_of(end - 1);
      sort(b);
      while (end > 1 && end > start_[b] && weight(keys_[end - 1]) < least) end--;
      if (end > start_[b]) break;
    }
    return end;
  }

 private:
  static constexpr size_t kBuckets = 4096;

  void group() {
    // Equal widths down to the lowest finite logit, but no lower than 50 temperatures: all below weigh nothing, and one
    // logit of -1e30 must not crowd the others into one bucket.
    const double max = static_cast<double>(row_.max());
    double low = max;
    for (uint64_t key : keys_) {
      const double logit = static_cast<double>(row_[LogitRow::id_of(key)]);
      if (std::isfinite(logit)) low = std::min(low, logit);
    }
    low = std::max(low, max - 50 * temperature_);
    const double scale = max > low ? (kBuckets - 1) / (max - low) : 0;
    auto bucket = [&](uint64_t key) {
      const double at = (max - static_cast<double>(row_[LogitRow::id_of(key)])) * scale;
      return at < kBuckets - 1 ? static_cast<size_t>(at) : kBuckets - 1;  // NaN (infinite - infinite) goes last
    };
    for (uint64_t key : keys_) start_[bucket(key) + 1]++;
    for (size_t b = 0; b < kBuckets; b++) start_[b + 1] += start_[b];
    std::vector<size_t> next(start_.begin(), start_.end() - 1);
    std::vector<uint64_t> grouped(keys_.size());
    for (uint64_t key : keys_) grouped[next[bucket(key)]++] = key;
    keys_.swap(grouped);
  }

  void sort(size_t b) {
    if (sorted_[b] != 0) return;
    sorted_[b] = 1;
    std::sort(keys_.begin() + static_cast<long>(start_[b]), keys_.begin() + static_cast<long>(start_[b + 1]));
  }

  size_t bucket_of(size_t rank) const {
    return static_cast<size_t>(std::upper_bound(start_.begin(), start_.end(), rank) - start_.begin()) - 1;
  }

  const LogitRow& row_;
  const double temperature_;
  std::vector<uint64_t> keys_;
  std::vector<size_t> start_;  // bucket b is keys_[start_[b] .. start_[b + 1])
  std::vector<double> sums_;
  std::vector<char> sorted_;
};

// The best candidates, so many that their sum satisfies `enough`; at most all that reach `lowest`.
template <class F>
Candidates best_until(const LogitRow& row, double temperature, double lowest, F enough) {
  const double max = static_cast<double>(row.max());
  for (double depth : {3.0, 8.0, 16.0, 50.0}) {
    const double threshold = max - depth * temperature;
    if (!(threshold > lowest)) break;
    Candidates found(row, row.at_least(threshold), temperature);
    if (enough(found.sum(found.size()))) return found;
  }
  return Candidates(row, row.at_least(lowest), temperature);
}

}  // namespace

void check_params(const SampleParams& p) {
  auto check = [](const char* name, double value, bool ok, const char* range) {
    if (!ok) fail(KVASIR_ARGUMENT, "Cannot sample: %s is %g, expected %s", name, value, range);
  };
  check("temperature", p.temperature, p.temperature >= 0 && std::isfinite(p.temperature), "0 or more");
  check("top-k", p.top_k, p.top_k >= 0 && p.top_k < 0x1p53 && p.top_k == std::floor(p.top_k), "a whole number");
  check("top-p", p.top_p, p.top_p >= 0 && p.top_p <= 1, "0 to 1");
  check("min-p", p.min_p, p.min_p >= 0 && p.min_p <= 1, "0 to 1");
  check("uniform", p.uniform, p.uniform >= 0 && p.uniform < 1, "0 to below 1");
}

int32_t draw(const LogitRow& row, const SampleParams& p) {
  if (p.temperature == 0) return row.best();
  const double max = static_cast<double>(row.max());
  const bool top_k = p.top_k > 0 && p.top_k < static_cast<double>(row.size());
  // Where the largest is infinite every other weighs nothing, and is never drawn.
  if (!std::isfinite(max) && !top_k) {
    Candidates equal(row, row.at_least(max), p.temperature);
    size_t end = equal.size();
    const double whole = static_cast<double>(end);
    if (p.top_p < 1) end = std::min(end, equal.find(end, [&](double s) { return s >= p.top_p * whole; }) + 1);
    const double total = static_cast<double>(end);
    const size_t rank = equal.find(end, [&](double s) { return s > p.uniform * total; });
    return static_cast<int32_t>(LogitRow::id_of(equal.at(std::min(rank, end - 1))));
  }
  const bool filtered = top_k || p.top_p < 1 || p.min_p > 0;
  const bool needs_whole = !top_k && (p.top_p < 1 || p.min_p == 0);
  // A temperature below 1e-300 would make the factor infinite, and 0 * infinity NaN; the weights are 0 or 1 either way.
  double whole = needs_whole ? row.sum_exp(1 / std::max(p.temperature, 1e-300)) : 0;
  // Below this logit min-p drops everything; a little lower, since the weight itself decides.
  const double lowest =
      p.min_p > 0 ? max + p.temperature * (std::log(p.min_p) - 1e-6) - std::fabs(max) * 1e-12 : -HUGE_VAL;
  Candidates kept = [&] {
    if (top_k) return Candidates(row, row.top(static_cast<size_t>(p.top_k)), p.temperature);
    if (!needs_whole) return Candidates(row, row.at_least(lowest), p.temperature);
    return best_until(row, p.temperature, lowest, [&](double sum) {
      return p.top_p < 1 ? sum >= p.top_p * whole : sum > p.uniform * whole;
    });
  }();
  size_t end = kept.size();
  if (top_k) whole = kept.sum(end);
  if (p.top_p < 1) end = std::min(end, kept.find(end, [&](double s) { return s >= p.top_p * whole; }) + 1);
  end = kept.drop(end, p.min_p);
  const double total = filtered ? kept.sum(end) : whole;
  const size_t rank = kept.find(end, [&](double s) { return s > p.uniform * total; });
  return static_cast<int32_t>(LogitRow::id_of(kept.at(std::min(rank, end - 1))));
}

}  // namespace kvasir
