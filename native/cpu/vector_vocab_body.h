// Bodies of VectorKernels for a vocabulary; see vector.h. Included once per instruction set.
#pragma once
#include "vec.h"
#include "vector.h"

namespace kvasir {
namespace {

bool block_maxima(float* maxima, const float* x, size_t count) {
  Ints bad = {};
  for (size_t start = 0; start < count; start += kMaximaBlock) {
    const size_t end = count - start < kMaximaBlock ? count : start + kMaximaBlock;
    Floats best = all(-__builtin_inff());
    size_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      const Floats v = load(x + i);
      best = v > best ? v : best;
      bad |= v != v;
    }
    if (i < end) {
      const Floats v = load_some(x + i, end - i, -__builtin_inff());
      best = v > best ? v : best;
      bad |= v != v;
    }
    float most = best[0];
    for (size_t lane = 1; lane < kLanes; lane++) most = best[lane] > most ? best[lane] : most;
    *maxima++ = most;
  }
  int any = 0;
  for (size_t lane = 0; lane < kLanes; lane++) any |= bad[lane];
  return any != 0;
}

double sum_exp(const float* x, size_t count, double max, double scale) {
  Doubles a = {}, b = {};
  size_t i = 0;
  for (; i + 2 * kDoubleLanes <= count; i += 2 * kDoubleLanes) {
    a += exp_doubles((load_doubles(x + i) - max) * scale);
    b += exp_doubles((load_doubles(x + i + kDoubleLanes) - max) * scale);
  }
  for (; i < count; i += kDoubleLanes) {
    const size_t rest = count - i < kDoubleLanes ? count - i : kDoubleLanes;
    const Doubles v = rest == kDoubleLanes ? load_doubles(x + i) : load_some_doubles(x + i, rest, -__builtin_inff());
    // A lane beyond the end is -infinity; times a scale of 0 it would be NaN, so it is masked, not trusted to vanish.
    const Doubles e = exp_doubles((v - max) * scale);
    for (size_t lane = 0; lane < rest; lane++) a[lane] += e[lane];
  }
  return sum(a + b);
}

void bucket_sums(double* sums, const float* x, size_t count, double max, double factor, double scale) {
  for (size_t i = 0; i < count; i += kDoubleLanes) {
    const size_t rest = count - i < kDoubleLanes ? count - i : kDoubleLanes;
    const Doubles v = rest == kDoubleLanes ? load_doubles(x + i) : load_some_doubles(x + i, rest, -__builtin_inff());
    const Doubles weight = exp_doubles((v - max) * factor);
    Doubles at = (max - v) * scale;
    at = at < static_cast<double>(kBuckets - 1) ? at : all_doubles(kBuckets - 1);
    const Longs bucket = __builtin_convertvector(at, Longs);
    for (size_t lane = 0; lane < rest; lane++) sums[bucket[lane]] += weight[lane];
  }
}

size_t find_between(uint32_t* ids, const float* x, size_t count, float low, float high) {
  size_t found = 0;
  for (size_t start = 0; start < count; start += kMaximaBlock) {
    const size_t end = count - start < kMaximaBlock ? count : start + kMaximaBlock;
    // Few blocks hold any: one branch a block, not one an element.
    Ints hits = {};
    size_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      const Floats v = load(x + i);
      hits |= (v >= low) & (v <= high);
    }
    int any = i < end;
    for (size_t lane = 0; lane < kLanes; lane++) any |= hits[lane];
    if (any == 0) continue;
    for (i = start; i < end; i++) {
      ids[found] = static_cast<uint32_t>(i);
      found += x[i] >= low && x[i] <= high;
    }
  }
  return found;
}

void divergence_sums(double* sums, const float* base, const float* other, size_t count, double max) {
  Doubles total = {}, gap = {};
  size_t i = 0;
  for (; i + kDoubleLanes <= count; i += kDoubleLanes) {
    const Doubles p = load_doubles(base + i), w = exp_doubles(p - max);
    total += w;
    gap += w == 0.0 ? Doubles{} : w * (p - load_doubles(other + i));
  }
  if (i < count) {
    const Doubles p = load_some_doubles(base + i, count - i, -__builtin_inff()), w = exp_doubles(p - max);
    total += w;
    gap += w == 0.0 ? Doubles{} : w * (p - load_some_doubles(other + i, count - i, 0));
  }
  sums[0] = sum(total);
  sums[1] = sum(gap);
}

}  // namespace
}  // namespace kvasir
