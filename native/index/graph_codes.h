// What a walk scores: every key as 4 bits a dimension, row by row, so that a key of 128 dimensions is one cache line. Codes of the
// scans (codes.h) lie lane by key and would cost a line a dimension or two here; rows of the cache cost four times the lines.
//
// A code of a key k under the centre c approximates x = R W (k - c): x[i] ~ scale * (nibble[i] - 8). R is a Hadamard transform within
// 32 dimensions (nibble_layout.h), W weighs dimensions by the root of query deviation / key deviation, which minimizes the expected
// error of q . k: keys vary most where queries do not look. Byte i of each 32 bytes holds dimension i of 64 low and 32 + i high;
// dimensions are padded with zeros. Versions of a graph share blocks, as those of its links do.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "chunk_memory.h"
#include "graph_kernels.h"
#include "graph_keys.h"
#include "kmeans.h"
#include "prefetch.h"

namespace kvasir {

// A group's queries as codes want them. Reused from search to search; its memory only grows.
struct GraphCodeQuery {
  int32_t group = 0;
  GraphCodeTerms terms{};      // points into what follows
  std::vector<int8_t> lines;
  std::vector<int32_t> offsets;
  std::vector<float> factors, bases, turned;
};

class GraphCodes {
 public:
  static constexpr int32_t kBlockBits = 10, kBlockNodes = 1 << kBlockBits;

  explicit GraphCodes(std::shared_ptr<ChunkMemory> memory) : memory_(std::move(memory)) {}
  // Finds centre and weights from even samples of keys and of queries [.., dim]. Once, before the first append.
  void fit(const GraphKeys& keys, const std::vector<float>& queries);
  // A version to append to: shares all blocks.
  GraphCodes next() const;
  // Encodes nodes [nodes(), keys.nodes()).
  void append(const GraphKeys& keys, const RunTasks& run);
  // Codes of rows [count, dim] alone, about their mean, unweighed: what lists are found by.
  static std::shared_ptr<const GraphCodes> of_rows(const std::vector<float>& rows, int32_t dim);
  // What codes stand for: [nodes, dim].
  std::vector<float> decode() const;

  int32_t nodes() const { return nodes_; }
  int32_t dim() const { return static_cast<int32_t>(centre_.size()); }
  size_t row_bytes() const { return row_bytes_; }
  size_t bytes() const { return blocks_.size() * block_bytes() + 2 * centre_.size() * sizeof(float); }  // shared ones included
  const uint8_t* row(int32_t node) const { return data_[static_cast<size_t>(node >> kBlockBits)] + place(node) * row_bytes_; }
  float scale(int32_t node) const { return scales_of(data_[static_cast<size_t>(node >> kBlockBits)])[place(node)]; }
  void prefetch(int32_t node) const {
    const uint8_t* at = row(node);
    for (size_t i = 0; i < row_bytes_; i += 64) prefetch_line(at + i);
    prefetch_line(scales_of(data_[static_cast<size_t>(node >> kBlockBits)]) + place(node));
  }

  // q [group, dim].
  void prepare(GraphCodeQuery& to, const float* q, int32_t group) const;
  // out[i * group + g] ~ q[g] . key of nodes[i].
  void score(float* out, const GraphKernels& kernels, const GraphCodeQuery& query, const int32_t* nodes, int32_t count) const;
  // The same, out[g * stride + i].
  void score_heads(float* out, size_t stride, const GraphKernels& kernels, const GraphCodeQuery& query, const int32_t* nodes,
                   int32_t count) const;

  // Codes of all nodes [nodes, row_bytes], their scales [nodes], centre and weights (positive) [dim]: what a file holds.
  const std::vector<float>& centre() const { return centre_; }
  const std::vector<float>& weights() const { return weights_; }
  void restore(int32_t nodes, int32_t dim, const uint8_t* rows, const float* scales, const float* centre, const float* weights);
  static size_t row_bytes_of(int32_t dim) { return (static_cast<size_t>(dim) + 63) / 64 * 32; }

 private:
  static size_t place(int32_t node) { return static_cast<size_t>(node & (kBlockNodes - 1)); }
  size_t block_bytes() const { return kBlockNodes * (row_bytes_ + sizeof(float)); }
  const float* scales_of(const uint8_t* block) const { return reinterpret_cast<const float*>(block + kBlockNodes * row_bytes_); }
  void find(const uint8_t** rows, float* scales, const int32_t* nodes, int32_t count) const;
  // body(first, rows, scales, count) for each of the pieces that nodes [count] are found in.
  template <class Body>
  void in_pieces(const int32_t* nodes, int32_t count, const Body& body) const;
  uint8_t* grow(int32_t nodes, int32_t block);
  void append(int32_t to, const RunTasks& run, const std::function<void(float* row, int32_t node)>& read);

  std::shared_ptr<ChunkMemory> memory_;
  int32_t nodes_ = 0;
  size_t row_bytes_ = 0;
  std::vector<float> centre_, weights_;
  std::vector<std::shared_ptr<uint8_t>> blocks_;
  std::vector<const uint8_t*> data_;
};

}  // namespace kvasir
