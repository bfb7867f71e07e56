// Clusters of one KV head's keys, each with its members: what types "clusters" and "wave" rank.
#pragma once
#include <functional>
#include <vector>

#include "method.h"

namespace kvasir {

struct Cells {
  std::vector<float> centroids;   // [cells, dim]: plain means of members
  std::vector<int32_t> offsets = {0};  // [cells + 1] into ids
  std::vector<int32_t> ids;       // of each cell, ascending

  int32_t count() const { return static_cast<int32_t>(offsets.size()) - 1; }
  int32_t keys() const { return static_cast<int32_t>(ids.size()); }
  int32_t size(int32_t cell) const { return offsets[static_cast<size_t>(cell) + 1] - offsets[static_cast<size_t>(cell)]; }
  const int32_t* begin(int32_t cell) const { return ids.data() + offsets[static_cast<size_t>(cell)]; }

  // Spherical k-means of keys [from, to), at most `cells` of them, behind those that there are; `shift` [dim] (may be
  // null) is subtracted before. Cells without a member are left out.
  void cluster(const HeadKeys& keys, int32_t from, int32_t to, int32_t cells, int32_t iterations, uint32_t seed, const float* shift);
  void visit(Arrays& arrays);
  // Throws Error{KVASIR_ARGUMENT} unless the cells hold keys [0, keys()) once, of keys.count at most.
  void check(const HeadKeys& keys) const;
};

// Clusters that their means rank.
class CellState : public HeadState {
 public:
  int32_t covered() const override { return cells_.keys(); }
  int32_t units() const override { return cells_.count(); }
  bool keyed() const override { return false; }
  void members(std::vector<int32_t>& out, int32_t unit) const override {
    out.insert(out.end(), cells_.begin(unit), cells_.begin(unit) + cells_.size(unit));
  }
  void score(float* out, size_t stride, const HeadKeys& keys, const float* q) const override {
    score_rows(out, stride, keys, q, cells_.centroids);
  }
  double score_bytes() const override { return static_cast<double>(cells_.centroids.size()) * 4; }
  int32_t keys_scored() const override { return units(); }

 protected:
  Cells cells_;
};

}  // namespace kvasir
