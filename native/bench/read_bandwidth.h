// What a plain loop reads, beside which scans are told. Compiled for the CPU it runs on.
#pragma once
#include <immintrin.h>

#include <cstring>

#include "memory.h"
#include "pool.h"

namespace kvasir_bench {

// Bytes a second of a read loop over memory that no cache holds, by all threads of the pool; seconds: the clock of everything else.
inline double read_bandwidth(kvasir::Pool& pool, double (*seconds)()) {
  constexpr size_t kBytes = size_t{512} << 20, pieces = 64, some = kBytes / 8 / pieces;
  static uint64_t* memory = static_cast<uint64_t*>(std::memset(kvasir::aligned_allocate(kBytes), 1, kBytes));
  static volatile uint64_t sink [[maybe_unused]];
  const double start = seconds();
  pool.run(static_cast<int>(pieces), [&](int piece, int) {
    const uint64_t* p = memory + static_cast<size_t>(piece) * some;
    __m256i sums[4] = {};
    for (size_t i = 0; i < some; i += 16) {
      for (size_t j = 0; j < 4; j++) sums[j] += _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i + 4 * j));
    }
    sink = static_cast<uint64_t>((sums[0] + sums[1] + sums[2] + sums[3])[0]);
  });
  return static_cast<double>(kBytes) / (seconds() - start);
}

}  // namespace kvasir_bench
