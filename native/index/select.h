// The best k of stored scores by counting passes, certified where the scores are upper bounds.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

#include "select_kernels.h"

namespace kvasir {

// Memory of one selection among `n` scores, carved from a scratch: floats() of it.
struct SelectWork {
  int32_t* ids;
  float* values;
  int32_t* more_ids;
  float* exact;
  float* more_exact;

  static size_t floats(int32_t n) { return 5 * room(n); }
  static size_t room(int32_t n) { return static_cast<size_t>(n + 31) / 32 * 32 + 64; }
  SelectWork(float* memory, int32_t n)
      : ids(reinterpret_cast<int32_t*>(memory)), values(memory + room(n)),
        more_ids(reinterpret_cast<int32_t*>(memory + 2 * room(n))), exact(memory + 3 * room(n)),
        more_exact(memory + 4 * room(n)) {}
};

struct Threshold {
  float value;
  int32_t count;  // scores at or above value: at least k
};

// A threshold that at least k of `n` scores reach, at most k + slack of them unless more are equal to it. `scores` has room for
// n rounded up to 32; what is behind is overwritten by -INFINITY. 1 <= k <= n.
Threshold find_kth(const SelectKernels& kernels, float* scores, int32_t n, int32_t k, int32_t slack);

// Candidates: at least k scores, ascending ids in work.ids, values in work.values. Returns their threshold and number. Fewer
// than all by far where n is.
Threshold gather_best(const SelectKernels& kernels, const float* scores, int32_t n, int32_t k, const SelectWork& work);

// Keeps in ids[0, count) the k of largest value, lower ids first among equals; ids stay ascending. k <= count.
void keep_best(const SelectKernels& kernels, int32_t* ids, float* values, int32_t count, int32_t k);

// Ids of the k best of n scores, ascending, in work.ids; lower ids win among equals. n scores, then -INFINITY up to a multiple
// of 32. Returns min(k, n).
int32_t select_best(const SelectKernels& kernels, const float* scores, int32_t n, int32_t k, const SelectWork& work);

// The same by exact scores where those given are upper bounds of them ("Exact top-k by int8 scan", with the k-th exact score of
// a first batch as the threshold: one bound wide instead of two). exact(out, ids, count) computes exact scores. *rescored counts
// them. Where more than `limit` keys cannot be told apart by their bounds, the answer is -1: scanning the keys is cheaper then.
template <class Exact>
int32_t select_certified(const SelectKernels& kernels, const float* upper, int32_t n, int32_t k, const SelectWork& work,
                         Exact&& exact, int32_t* rescored, int32_t limit = std::numeric_limits<int32_t>::max()) {
  *rescored = 0;
  if (k >= n) {
    for (int32_t i = 0; i < n; i++) work.ids[i] = i;
    return n;
  }
  Threshold all = gather_best(kernels, upper, n, k, work);
  // A first batch by upper scores: any k exact scores bound the k-th from below.
  const Threshold first = find_kth(kernels, work.values, all.count, k, k / 16);
  int32_t batch = 0;
  for (int32_t i = 0; i < all.count; i++) {
    work.more_ids[batch] = work.ids[i];
    batch += work.values[i] >= first.value;
  }
  exact(work.exact, work.more_ids, batch);
  std::copy(work.exact, work.exact + batch, work.more_exact);
  const Threshold bound = find_kth(kernels, work.more_exact, batch, k, 0);
  // Whatever is left out has an upper score below `bound`, which k exact scores reach.
  if (bound.value < all.value) all.count = kernels.compress(work.ids, work.values, upper, (n + 31) / 32 * 32, bound.value);
  int32_t rest = 0;
  for (int32_t i = 0; i < all.count; i++) {
    work.more_ids[rest] = work.ids[i];
    rest += work.values[i] >= bound.value && work.values[i] < first.value;
  }
  *rescored = batch;
  if (rest > limit) return -1;
  exact(work.more_exact, work.more_ids, rest);
  *rescored += rest;
  // Both batches ascend: merged by the same tests.
  int32_t kept = 0;
  for (int32_t i = 0, a = 0, b = 0; i < all.count; i++) {
    const bool early = work.values[i] >= first.value;
    const bool late = !early && work.values[i] >= bound.value;
    const float score = early ? work.exact[a] : work.more_exact[b];
    a += early;
    b += late;
    work.ids[kept] = work.ids[i];
    work.values[kept] = score;  // kept <= i: what is read later is untouched
    kept += (early || late) && score >= bound.value;
  }
  keep_best(kernels, work.ids, work.values, kept, k);
  return k;
}

}  // namespace kvasir
