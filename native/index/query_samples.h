// Queries of the prompt, thinned: what lists train on.
#pragma once
#include <cstdint>
#include <vector>

#include "index.h"

namespace kvasir {

class FileReader;
class FileWriter;

// Which sampled positions are held out of training: those whose place i has i % every == rest, of many the latest.
struct Holding {
  int32_t every = 1, rest = -1;  // none
  int32_t most = INT32_MAX;
};

// All heads' queries of some positions, as int8 with a scale each. Of the positions that were offered it keeps every stride-th,
// and doubles the stride when there are more than max(3072, min(8192, position / 4), position / 6) queries a KV head: a function of
// what was offered, however it was cut.
class QuerySamples {
 public:
  // Offers the queries [count, heads, dim] of positions [start, start + count); those before observed() were offered before.
  void add(const LayerShape& shape, int32_t start, int32_t count, const float* queries);
  // Behind the last position that was offered.
  int32_t observed() const { return observed_; }

  int32_t count() const { return static_cast<int32_t>(positions_.size()); }
  const std::vector<int32_t>& positions() const { return positions_; }
  size_t bytes() const { return codes_.size() + scales_.size() * 4 + positions_.size() * 4; }
  // Queries of one KV head's group at sampled positions that are held out, or at all others, moved to positions spread over
  // [from, from + horizon): [n, group, dim] floats.
  std::vector<float> moved(const LayerShape& shape, int32_t kv_head, int32_t from, int32_t horizon, const Holding& holding,
                           bool held) const;

  // The i-th as it was asked: the group's of one KV head, out [group, dim].
  void read(float* out, const LayerShape& shape, int32_t i, int32_t kv_head) const;

  void save(FileWriter& to) const;
  void restore(const FileReader& from, const LayerShape& shape);

 private:
  void thin(size_t width, size_t heads);
  int64_t offered_ = 0;
  int32_t stride_ = 1, observed_ = 0;
  std::vector<int32_t> positions_;
  std::vector<int8_t> codes_;   // [positions, heads, dim]
  std::vector<float> scales_;   // [positions, heads]
};

}  // namespace kvasir
