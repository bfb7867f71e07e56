// Exact nearest keys of sampled queries, one KV head: what lists, graphs and their calibration are made from.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

#include "isa.h"
#include "kmeans.h"
#include "rows.h"

namespace kvasir {

// The k keys of largest inner product with each query, best first; of equals the lower position first.
struct Neighbours {
  int32_t queries = 0, k = 0;      // k <= keys searched
  std::vector<int32_t> positions;  // [queries, k]
  std::vector<float> scores;       // [queries, k], q . k without the layer's scale

  const int32_t* of(int32_t query) const { return positions.data() + static_cast<size_t>(query) * static_cast<size_t>(k); }
  const float* scores_of(int32_t query) const { return scores.data() + static_cast<size_t>(query) * static_cast<size_t>(k); }
};

// Scores all keys [from, to) of a KV head for queries [count, head_dim] in float32 and keeps the best min(k, to - from) of each:
// a threshold per query lets through what may still belong, into a buffer that is cut back to k when full. Keys are visited newest
// first, as the best keys of spread queries are often young. Runs on the threads of `run`; the result depends on none of them.
// cancel (may be null): when it becomes true the call returns soon, with contents undefined.
Neighbours nearest_keys(const IndexIsa& isa, const RunTasks& run, const Rows& rows, int32_t head, int32_t from, int32_t to,
                        const float* queries, int32_t count, int32_t k, const std::atomic<bool>* cancel = nullptr);

// Tasks one after another on the calling thread.
void run_inline(int32_t count, const std::function<void(int32_t)>& body);

}  // namespace kvasir
