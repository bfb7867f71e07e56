// The last queries that were asked, as they were: what methods vote with.
#pragma once
#include <cstdint>
#include <vector>

#include "index.h"

namespace kvasir {

class RecentQueries {
 public:
  // Of positions divisible by `every` the last `most`.
  RecentQueries(int32_t most, int32_t every) : most_(most), every_(every) {}
  // Queries [count, heads, dim] of positions from `start` on, in place of what was noted of those and later ones: an
  // interrupted step asks again, and a fork asks something else.
  void add(const LayerShape& shape, int32_t start, int32_t count, const float* queries);
  int32_t count() const { return static_cast<int32_t>(positions_.size()); }
  int32_t position(int32_t i) const { return positions_[static_cast<size_t>(i)]; }  // ascending
  // The group's queries of one KV head: [group, dim].
  const float* of(const LayerShape& shape, int32_t i, int32_t kv_head) const {
    const size_t width = static_cast<size_t>(shape.heads) * static_cast<size_t>(shape.head_dim);
    return queries_.data() + static_cast<size_t>(i) * width +
           static_cast<size_t>(kv_head * shape.group()) * static_cast<size_t>(shape.head_dim);
  }
  size_t bytes() const { return queries_.size() * sizeof(float) + positions_.size() * sizeof(int32_t); }

  void save(FileWriter& to) const;
  void restore(const FileReader& from, const LayerShape& shape);

 private:
  int32_t most_, every_;
  std::vector<int32_t> positions_;
  std::vector<float> queries_;  // [positions, heads, dim]
};

}  // namespace kvasir
