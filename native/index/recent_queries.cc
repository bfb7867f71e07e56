#include "recent_queries.h"

#include <algorithm>
#include <cmath>

#include "file.h"
#include "kvasir_index.h"

namespace kvasir {

void RecentQueries::add(const LayerShape& shape, int32_t start, int32_t count, const float* queries) {
  const size_t width = static_cast<size_t>(shape.heads) * static_cast<size_t>(shape.head_dim);
  positions_.erase(std::lower_bound(positions_.begin(), positions_.end(), start), positions_.end());
  queries_.resize(positions_.size() * width);
  const int32_t first = (start + every_ - 1) / every_ * every_, end = start + count;
  const int32_t offered = first < end ? (end - 1 - first) / every_ + 1 : 0, taken = std::min(offered, most_);
  const size_t drop = static_cast<size_t>(std::max(0, static_cast<int32_t>(positions_.size()) - (most_ - taken)));
  positions_.erase(positions_.begin(), positions_.begin() + static_cast<std::ptrdiff_t>(drop));
  queries_.erase(queries_.begin(), queries_.begin() + static_cast<std::ptrdiff_t>(drop * width));
  for (int32_t i = offered - taken; i < offered; i++) {
    const int32_t position = first + i * every_;
    positions_.push_back(position);
    const float* from = queries + static_cast<size_t>(position - start) * width;
    queries_.insert(queries_.end(), from, from + width);
  }
}

void RecentQueries::save(FileWriter& to) const {
  const int64_t count = static_cast<int64_t>(positions_.size());
  to.add("recent", &count, sizeof count);
  to.add("recent.positions", positions_.data(), positions_.size() * sizeof(int32_t));
  to.add("recent.queries", queries_.data(), queries_.size() * sizeof(float));
}

void RecentQueries::restore(const FileReader& from, const LayerShape& shape) {
  const int64_t count = *from.array<int64_t>("recent", 1);
  if (count < 0 || count > most_) fail(KVASIR_ARGUMENT, "Cannot open index: it keeps %lld queries", static_cast<long long>(count));
  const size_t n = static_cast<size_t>(count), width = static_cast<size_t>(shape.heads) * static_cast<size_t>(shape.head_dim);
  const int32_t* positions = from.array<int32_t>("recent.positions", n);
  const float* queries = from.array<float>("recent.queries", n * width);
  for (size_t i = 0; i < n; i++) {
    if (positions[i] < 0 || (i > 0 && positions[i] <= positions[i - 1])) {
      fail(KVASIR_ARGUMENT, "Cannot open index: positions of its last queries do not ascend");
    }
  }
  if (!std::all_of(queries, queries + n * width, [](float x) { return std::isfinite(x); })) {
    fail(KVASIR_ARGUMENT, "Cannot open index: one of its last queries is not finite");
  }
  positions_.assign(positions, positions + n);
  queries_.assign(queries, queries + n * width);
}

}  // namespace kvasir
