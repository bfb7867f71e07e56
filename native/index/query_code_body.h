// CodeKernels::encode_query for every instruction set. Included once per set.
#pragma once
#include "code_kernels.h"

namespace kvasir {
namespace {

constexpr size_t kQueryLanes = 8;
typedef double QueryDoubles __attribute__((vector_size(64)));
typedef int64_t QueryLongs __attribute__((vector_size(64)));
typedef float QueryFloats __attribute__((vector_size(32)));
typedef int32_t QueryInts __attribute__((vector_size(32)));

inline void widen_query(QueryDoubles* to, const float* from) {
  QueryFloats x;
  std::memcpy(&x, from, sizeof x);
  *to = __builtin_convertvector(x, QueryDoubles);
}

inline double sum_query(const QueryDoubles& x) { return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])); }

QueryCode encode_query(int32_t* whole, int32_t* sums, double* energies, float* x, size_t width, int32_t most) {
  QueryDoubles peaks = {}, squares = {}, lost = {};
  for (size_t band = 0; band * kBand < width; band++) {
    QueryDoubles energy = {}, v;
    for (size_t i = band * kBand; i < width && i < (band + 1) * kBand; i += kQueryLanes) {
      widen_query(&v, x + i);
      energy += v * v;
      const QueryDoubles size = v < 0 ? -v : v;
      peaks = size > peaks ? size : peaks;
    }
    energies[band] = sum_query(energy);
    squares += energy;
  }
  double peak = 0;
  for (size_t i = 0; i < kQueryLanes; i++) peak = peaks[i] > peak ? peaks[i] : peak;
  const double step = peak / most, per_step = step > 0 ? most / peak : 1;
  for (size_t band = 0; band * kBand < width; band++) {
    QueryInts sum = {};
    for (size_t i = band * kBand; i < width && i < (band + 1) * kBand; i += kQueryLanes) {
      QueryDoubles v;
      widen_query(&v, x + i);
      // The nearest integer, ties to even, of what is below 2^51 (a division takes as long as all the rest).
      const QueryDoubles all = v * per_step + 0x1.8p52 - 0x1.8p52, rest = v - all * step;
      lost += rest * rest;
      const QueryInts integers = __builtin_convertvector(all, QueryInts);
      std::memcpy(whole + i, &integers, sizeof integers);
      sum += integers;
    }
    sums[band] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
  }
  return {step, sum_query(squares), sum_query(lost)};
}

}  // namespace
}  // namespace kvasir
