// Splits a range among the pool's workers where that repays the microsecond it costs.
#pragma once
#include <algorithm>
#include <cstddef>

#include "pool.h"

namespace kvasir {

// Calls body(from, to) over [0, count) in pieces of at least `grain` items, all at once when there is no second piece.
// Pieces depend on count, grain and threads only. body must not throw.
template <class F>
void parallel_for(Pool& pool, size_t count, size_t grain, F&& body) {
  if (count == 0) return;
  // Four pieces a worker even out a core that is busy with something else.
  const size_t most = static_cast<size_t>(pool.threads()) * 4;
  const size_t pieces = std::max<size_t>(1, std::min(most, count / std::max<size_t>(1, grain)));
  if (pieces == 1) {
    body(size_t{0}, count);
    return;
  }
  pool.run(static_cast<int>(pieces), [&](int piece, int) {
    const size_t p = static_cast<size_t>(piece);
    body(count / pieces * p + std::min(p, count % pieces), count / pieces * (p + 1) + std::min(p + 1, count % pieces));
  });
}

}  // namespace kvasir
