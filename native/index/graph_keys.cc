#include "graph_keys.h"

#include <algorithm>

#include "kvasir_abi.h"

namespace kvasir {

GraphKeys::GraphKeys(const GraphKernels* kernels, Rows rows, int32_t head, int32_t begin, int32_t nodes)
    : kernels_(kernels), rows_(std::move(rows)), head_(head), begin_(begin), nodes_(nodes) {
  bool mixed = false;
  for (int32_t at = begin; at < begin + nodes;) {
    const Segment& s = rows_.find(at);
    const int32_t skip = at - s.start(), count = std::min(begin + nodes - at, s.capacity() - skip);
    mixed |= !spans_.empty() && s.dtype() != dtype_;
    dtype_ = s.dtype();
    dim_ = s.head_dim();
    row_bytes_ = std::max(row_bytes_, s.row_bytes());
    spans_.push_back({static_cast<const char*>(s.key(head, skip)), at - begin, at - begin + count, s.row_bytes(), &s, skip});
    at += count;
  }
  if (mixed) dtype_ = -1;
  for (int32_t node = 0, i = 0; node < nodes; node += 1 << kGranuleBits) {
    while (node >= spans_[static_cast<size_t>(i)].to) i++;
    first_span_.push_back(i);
  }
}

void GraphKeys::score(float* out, const float* q, int32_t group, const int32_t* nodes, int32_t count) const {
  constexpr int32_t kPiece = 64;
  const void* rows[kPiece];
  for (int32_t done = 0; done < count; done += kPiece) {
    const int32_t some = std::min(kPiece, count - done);
    for (int32_t i = 0; i < some; i++) rows[i] = row(nodes[done + i]);
    float* to = out + static_cast<size_t>(done) * static_cast<size_t>(group);
    if (dtype_ >= 0) {
      kernels_->score(to, q, rows, some, dtype_, group, dim_);
    } else {
      for (int32_t i = 0; i < some; i++) {
        kernels_->score(to + static_cast<size_t>(i) * group, q, rows + i, 1, span(nodes[done + i]).segment->dtype(), group, dim_);
      }
    }
    if (dtype_ == KVASIR_F32 || dtype_ == KVASIR_F16) continue;
    for (int32_t i = 0; i < some; i++) {
      const Span& s = span(nodes[done + i]);
      const float scale = s.segment->key_scale(head_, s.skip + nodes[done + i] - s.from);
      for (int32_t g = 0; g < group; g++) to[static_cast<size_t>(i) * group + g] *= scale;
    }
  }
}

void GraphKeys::read(float* out, int32_t node) const {
  const Span& s = span(node);
  kernels_->widen(out, row(node), s.segment->dtype(), dim_);
  const float scale = s.segment->key_scale(head_, s.skip + node - s.from);
  if (scale != 1) {
    for (int32_t d = 0; d < dim_; d++) out[d] *= scale;
  }
}

float GraphKeys::read_less(float* out, int32_t node, const float* less) const {
  const Span& s = span(node);
  if (s.segment->key_scale(head_, s.skip + node - s.from) == 1) {
    return kernels_->widen_less(out, row(node), s.segment->dtype(), dim_, less);
  }
  read(out, node);
  return kernels_->widen_less(out, out, KVASIR_F32, dim_, less);
}

}  // namespace kvasir
