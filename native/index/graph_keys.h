// The keys of one KV head as a graph sees them: nodes are positions counted from the first, rows lie where the cache keeps them.
#pragma once
#include <cstdint>
#include <vector>

#include "graph_kernels.h"
#include "prefetch.h"
#include "rows.h"

namespace kvasir {

class GraphKeys {
 public:
  // Nodes [0, nodes) are positions [begin, begin + nodes).
  GraphKeys(const GraphKernels* kernels, Rows rows, int32_t head, int32_t begin, int32_t nodes);

  int32_t nodes() const { return nodes_; }
  int32_t begin() const { return begin_; }
  int32_t dim() const { return dim_; }
  int32_t head() const { return head_; }
  const Rows& rows() const { return rows_; }
  const GraphKernels& kernels() const { return *kernels_; }
  size_t row_bytes() const { return row_bytes_; }

  const void* row(int32_t node) const {
    const Span& s = span(node);
    return s.keys + static_cast<size_t>(node - s.from) * s.row_bytes;
  }
  void prefetch(int32_t node) const {
    const char* at = static_cast<const char*>(row(node));
    for (size_t i = 0; i < row_bytes_; i += 64) prefetch_line(at + i);
  }
  // out[i * group + g] = q[g] . key of nodes[i], key scales applied.
  void score(float* out, const float* q, int32_t group, const int32_t* nodes, int32_t count) const;
  // One key as floats, out [dim].
  void read(float* out, int32_t node) const;
  // The same less other floats [dim]; returns the squared length of what is left.
  float read_less(float* out, int32_t node, const float* less) const;

 private:
  struct Span {
    const char* keys;
    int32_t from, to;  // nodes
    size_t row_bytes;
    const Segment* segment;
    int32_t skip;  // rows of the segment before node `from`
  };
  const Span& span(int32_t node) const {
    const Span* s = &spans_[static_cast<size_t>(first_span_[static_cast<size_t>(node >> kGranuleBits)])];
    while (node >= s->to) s++;
    return *s;
  }
  static constexpr int32_t kGranuleBits = 8;

  const GraphKernels* kernels_;
  Rows rows_;
  int32_t head_, begin_, nodes_, dim_ = 0;
  int32_t dtype_ = -1;  // -1: segments of several element types
  size_t row_bytes_ = 0;
  std::vector<Span> spans_;
  std::vector<int32_t> first_span_;  // of each 256 nodes
};

}  // namespace kvasir
