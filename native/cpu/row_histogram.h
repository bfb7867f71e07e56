// The weights of one row of logits, summed into buckets of falling logit: the place of a cumulative sum is found by
// walking bucket sums, and only the bucket it falls in is gathered and sorted. Serves draws over vocabularies whose
// probability is spread too widely to sort the likely part.
#pragma once
#include <map>

#include "sampling.h"

namespace kvasir {

class RowHistogram {
 public:
  // The largest logit must be finite, temperature > 0.
  RowHistogram(const LogitRow& row, double temperature);

  // A boundary in the order: all of the buckets before `bucket`, and the first `index` of that one.
  struct Mark {
    size_t bucket, index;
    bool operator<(const Mark& o) const { return bucket != o.bucket ? bucket < o.bucket : index < o.index; }
  };
  Mark end() const { return {kBuckets, 0}; }
  double sum(Mark end);

  // The boundary right after the first candidate before `end` whose running sum satisfies reached, or `end`.
  template <class F>
  Mark find(Mark end, F reached) {
    double total = 0;
    for (size_t b = 0; b < kBuckets && b <= end.bucket; b++) {
      const bool whole = b < end.bucket;
      // A sum taken in another order may differ in its last bits, so what a bucket promises is decided inside it.
      if (whole && !reached(total + sums_[b])) {
        total += sums_[b];
        continue;
      }
      const std::vector<uint64_t>& keys = sorted(b);
      for (size_t i = 0; i < (whole ? keys.size() : end.index); i++) {
        total += row_.weight(keys[i], temperature_);
        if (reached(total)) return {b, i + 1};
      }
    }
    return end;
  }
  // The boundary before the first candidate that weighs less than `least`, but after the first of all.
  Mark reaching(double least);
  // The candidate right before a boundary.
  size_t id_before(Mark end);

 private:
  const std::vector<uint64_t>& sorted(size_t bucket);

  const LogitRow& row_;
  const double temperature_;
  double scale_;  // buckets per unit of logit
  std::vector<double> sums_;
  std::map<size_t, std::vector<uint64_t>> gathered_;
};

}  // namespace kvasir
