#include "graph_codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "knn.h"
#include "nibble_layout.h"

namespace kvasir {
namespace {

constexpr int32_t kUnit = 64;          // dimensions of 32 bytes
constexpr int32_t kSample = 4096;      // keys and queries that codes are fitted to
constexpr int32_t kPiece = 64;         // rows whose places are found before they are scored

void rotate(float* x, int32_t width) {
  for (int32_t i = 0; i < width; i += kNibbleBand) rotate_band(x + i);
}

// One key less the centre, rotated: wide [row_bytes * 2] to nibbles. Returns the scale.
float encode(uint8_t* to, const float* wide, size_t row_bytes) {
  float peak = 0;
  for (size_t i = 0; i < row_bytes * 2; i++) peak = std::max(peak, std::fabs(wide[i]));
  const float scale = peak / 7.5f, inverse = 1 / scale;
  // All copies of the centre, or out of what floats hold: the middle stands for it.
  if (!(scale > 0) || !std::isfinite(scale) || !std::isfinite(inverse)) return std::memset(to, 0x88, row_bytes), 0.0f;
  const auto nibble = [&](float x) {
    return static_cast<uint8_t>(std::min(15, std::max(0, static_cast<int32_t>(x * inverse + 8.5f))));
  };
  for (size_t i = 0; i < row_bytes; i++) {
    const float* x = wide + i / 32 * kUnit + i % 32;
    to[i] = static_cast<uint8_t>(nibble(x[0]) | nibble(x[32]) << 4);
  }
  return scale;
}

}  // namespace

void GraphCodes::fit(const GraphKeys& keys, const std::vector<float>& queries) {
  const size_t dim = static_cast<size_t>(keys.dim());
  row_bytes_ = row_bytes_of(keys.dim());
  std::vector<float> row(dim);
  std::vector<double> sums(dim), squares(dim), looks(dim);
  const int32_t count = std::min(keys.nodes(), kSample);
  for (int32_t i = 0; i < count; i++) {
    keys.read(row.data(), static_cast<int32_t>(static_cast<int64_t>(i) * keys.nodes() / count));
    for (size_t d = 0; d < dim; d++) {
      const double x = static_cast<double>(row[d]);
      sums[d] += x, squares[d] += x * x;
    }
  }
  const size_t asked = queries.size() / dim, some = std::min<size_t>(asked, kSample);
  for (size_t i = 0; i < some; i++) {
    for (size_t d = 0; d < dim; d++) {
      const double x = static_cast<double>(queries[i * asked / some * dim + d]);
      looks[d] += x * x / static_cast<double>(some);
    }
  }
  centre_.clear();
  weights_.clear();
  for (size_t d = 0; d < dim; d++) {
    const double mean = sums[d] / count, deviation = std::sqrt(std::max(0.0, squares[d] / count - mean * mean));
    const double weight = std::sqrt(std::sqrt(looks[d]) / deviation);
    centre_.push_back(static_cast<float>(mean));
    // A dimension that never varies, or is never asked about, or beyond reason.
    weights_.push_back(weight > 1e-6 && weight < 1e6 ? static_cast<float>(weight) : 1.0f);
  }
}

GraphCodes GraphCodes::next() const { return *this; }

// Block `block`, this version's own, with room for nodes up to `nodes`.
uint8_t* GraphCodes::grow(int32_t nodes, int32_t block) {
  std::shared_ptr<uint8_t> data = memory_->take(block_bytes());
  const size_t at = static_cast<size_t>(block);
  if (at < blocks_.size()) std::memcpy(data.get(), data_[at], block_bytes());
  else blocks_.push_back(nullptr), data_.push_back(nullptr);
  nodes_ = std::min(nodes, (block + 1) << kBlockBits);
  data_[at] = data.get();
  blocks_[at] = std::move(data);
  return blocks_[at].get();
}

void GraphCodes::append(const GraphKeys& keys, const RunTasks& run) {
  append(keys.nodes(), run, [&](float* row, int32_t node) { keys.read(row, node); });
}

std::shared_ptr<const GraphCodes> GraphCodes::of_rows(const std::vector<float>& rows, int32_t dim) {
  const size_t width = static_cast<size_t>(dim), count = rows.size() / width;
  auto codes = std::make_shared<GraphCodes>(std::make_shared<ChunkMemory>());
  codes->row_bytes_ = row_bytes_of(dim);
  codes->weights_.assign(width, 1.0f);
  std::vector<double> mean(width);
  for (size_t i = 0; i < rows.size(); i++) mean[i % width] += static_cast<double>(rows[i]) / static_cast<double>(count);
  codes->centre_.assign(mean.begin(), mean.end());
  codes->append(static_cast<int32_t>(count), run_inline, [&](float* row, int32_t node) {
    std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(node) * width), width, row);
  });
  return codes;
}

std::vector<float> GraphCodes::decode() const {
  const size_t dim = centre_.size();
  std::vector<float> rows(static_cast<size_t>(nodes_) * dim), wide(row_bytes_ * 2);
  for (int32_t node = 0; node < nodes_; node++) {
    const uint8_t* from = row(node);
    for (size_t i = 0; i < row_bytes_; i++) {
      float* x = wide.data() + i / 32 * kUnit + i % 32;
      x[0] = scale(node) * static_cast<float>((from[i] & 15) - 8);
      x[32] = scale(node) * static_cast<float>((from[i] >> 4) - 8);
    }
    rotate(wide.data(), static_cast<int32_t>(wide.size()));  // its own inverse
    float* to = rows.data() + static_cast<size_t>(node) * dim;
    for (size_t d = 0; d < dim; d++) to[d] = wide[d] / weights_[d] + centre_[d];
  }
  return rows;
}

void GraphCodes::append(int32_t to, const RunTasks& run, const std::function<void(float* row, int32_t node)>& read) {
  const int32_t from = nodes_;
  if (from == to) return;
  const int32_t first = from >> kBlockBits, blocks = ((to - 1) >> kBlockBits) + 1 - first;
  std::vector<uint8_t*> own;
  for (int32_t b = 0; b < blocks; b++) own.push_back(grow(to, first + b));
  run(blocks, [&](int32_t b) {
    const size_t dim = centre_.size();
    std::vector<float> wide(row_bytes_ * 2);
    uint8_t* const block = own[static_cast<size_t>(b)];
    float* const scales = const_cast<float*>(scales_of(block));
    const int32_t start = (first + b) << kBlockBits;
    for (int32_t node = std::max(from, start); node < std::min(to, start + kBlockNodes); node++) {
      read(wide.data(), node);
      for (size_t d = 0; d < dim; d++) wide[d] = (wide[d] - centre_[d]) * weights_[d];
      std::fill(wide.begin() + static_cast<std::ptrdiff_t>(dim), wide.end(), 0.0f);
      rotate(wide.data(), static_cast<int32_t>(wide.size()));
      scales[place(node)] = encode(block + place(node) * row_bytes_, wide.data(), row_bytes_);
    }
  });
}

void GraphCodes::prepare(GraphCodeQuery& to, const float* q, int32_t group) const {
  const size_t dim = centre_.size(), width = row_bytes_ * 2, line = (row_bytes_ + 63) / 64 * 64, heads = static_cast<size_t>(group);
  to.group = group;
  to.lines.assign(heads * 2 * line, 0);
  to.offsets.resize(heads);
  to.factors.resize(heads);
  to.bases.resize(heads);
  to.turned.resize(width);
  for (size_t g = 0; g < heads; g++) {
    const float* from = q + g * dim;
    for (size_t d = 0; d < dim; d++) to.turned[d] = from[d] / weights_[d];
    std::fill(to.turned.begin() + static_cast<std::ptrdiff_t>(dim), to.turned.end(), 0.0f);
    rotate(to.turned.data(), static_cast<int32_t>(width));
    float peak = 0, base = 0;
    for (float x : to.turned) peak = std::max(peak, std::fabs(x));
    for (size_t d = 0; d < dim; d++) base += from[d] * centre_[d];
    const float factor = peak / 127, inverse = 1 / factor;
    const bool sound = factor > 0 && std::isfinite(factor) && std::isfinite(inverse);
    int32_t sum = 0;
    for (size_t i = 0; sound && i < width; i++) {
      const int32_t whole = static_cast<int32_t>(std::lrintf(to.turned[i] * inverse));
      sum += whole;
      const size_t at = i / kUnit * 32 + i % 32;
      to.lines[(g * 2 + (i % kUnit) / 32) * line + at] = static_cast<int8_t>(whole);
    }
    to.offsets[g] = -8 * sum;
    to.factors[g] = sound ? factor : 0;
    to.bases[g] = std::isfinite(base) ? base : 0;
  }
  to.terms = {to.lines.data(), line, row_bytes_, to.offsets.data(), to.factors.data(), to.bases.data()};
}

// Of `count` nodes, at most kPiece: where their rows lie, and their scales.
void GraphCodes::find(const uint8_t** rows, float* scales, const int32_t* nodes, int32_t count) const {
  for (int32_t i = 0; i < count; i++) {
    const uint8_t* block = data_[static_cast<size_t>(nodes[i] >> kBlockBits)];
    const size_t at = place(nodes[i]);
    rows[i] = block + at * row_bytes_;
    scales[i] = scales_of(block)[at];
  }
}

template <class Body>
void GraphCodes::in_pieces(const int32_t* nodes, int32_t count, const Body& body) const {
  const uint8_t* rows[kPiece];
  float scales[kPiece];
  for (int32_t done = 0; done < count; done += kPiece) {
    const int32_t some = std::min(kPiece, count - done);
    find(rows, scales, nodes + done, some);
    body(done, rows, scales, some);
  }
}

void GraphCodes::score(float* out, const GraphKernels& kernels, const GraphCodeQuery& query, const int32_t* nodes,
                       int32_t count) const {
  in_pieces(nodes, count, [&](int32_t done, const uint8_t* const* rows, const float* scales, int32_t some) {
    kernels.score_codes(out + static_cast<size_t>(done) * static_cast<size_t>(query.group), query.terms, query.group, rows, scales, some);
  });
}

void GraphCodes::score_heads(float* out, size_t stride, const GraphKernels& kernels, const GraphCodeQuery& query, const int32_t* nodes,
                             int32_t count) const {
  in_pieces(nodes, count, [&](int32_t done, const uint8_t* const* rows, const float* scales, int32_t some) {
    kernels.score_code_heads(out + done, stride, query.terms, query.group, rows, scales, some);
  });
}

void GraphCodes::restore(int32_t nodes, int32_t dim, const uint8_t* rows, const float* scales, const float* centre,
                         const float* weights) {
  row_bytes_ = row_bytes_of(dim);
  centre_.assign(centre, centre + dim);
  weights_.assign(weights, weights + dim);
  for (int32_t block = 0; block << kBlockBits < nodes; block++) {
    const size_t first = static_cast<size_t>(block) << kBlockBits, count = std::min<size_t>(kBlockNodes, static_cast<size_t>(nodes) - first);
    uint8_t* to = grow(nodes, block);
    std::memcpy(to, rows + first * row_bytes_, count * row_bytes_);
    std::memcpy(const_cast<float*>(scales_of(to)), scales + first, count * sizeof(float));
  }
}

}  // namespace kvasir
