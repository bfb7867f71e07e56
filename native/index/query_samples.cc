#include "query_samples.h"

#include <algorithm>
#include <cmath>

#include "file.h"
#include "spread.h"

namespace kvasir {

void QuerySamples::add(const LayerShape& shape, int32_t start, int32_t count, const float* queries) {
  const size_t heads = static_cast<size_t>(shape.heads), dim = static_cast<size_t>(shape.head_dim);
  const int32_t first = std::max(0, observed_ - start);
  observed_ = std::max(observed_, start + count);
  for (int32_t i = first; i < count; i++) {
    if (offered_++ % stride_ != 0) continue;
    positions_.push_back(start + i);
    for (size_t h = 0; h < heads; h++) {
      const float* q = queries + (static_cast<size_t>(i) * heads + h) * dim;
      float most = 0;
      for (size_t d = 0; d < dim; d++) most = std::max(most, std::fabs(q[d]));
      const float scale = most / 127;
      scales_.push_back(scale);
      for (size_t d = 0; d < dim; d++) {
        codes_.push_back(scale > 0 ? static_cast<int8_t>(std::lrintf(q[d] / scale)) : int8_t{0});
      }
    }
    const int32_t seen = start + i + 1;
    const int64_t most = std::max({3072, std::min(8192, seen / 4), seen / 6});
    if (static_cast<int64_t>(positions_.size()) * shape.group() > most) thin(heads * dim, heads);
  }
}

void QuerySamples::thin(size_t width, size_t heads) {
  const size_t kept = (positions_.size() + 1) / 2;
  for (size_t i = 1; i < kept; i++) {
    positions_[i] = positions_[2 * i];
    std::copy_n(codes_.begin() + static_cast<std::ptrdiff_t>(2 * i * width), width,
                codes_.begin() + static_cast<std::ptrdiff_t>(i * width));
    std::copy_n(scales_.begin() + static_cast<std::ptrdiff_t>(2 * i * heads), heads,
                scales_.begin() + static_cast<std::ptrdiff_t>(i * heads));
  }
  positions_.resize(kept);
  codes_.resize(kept * width);
  scales_.resize(kept * heads);
  stride_ *= 2;
}

std::vector<float> QuerySamples::moved(const LayerShape& shape, int32_t kv_head, int32_t from, int32_t horizon,
                                       const Holding& holding, bool held) const {
  const size_t group = static_cast<size_t>(shape.group()), dim = static_cast<size_t>(shape.head_dim);
  int32_t all = 0, passed = 0;
  for (int32_t i = 0; i < count(); i++) all += i % holding.every == holding.rest;
  std::vector<int32_t> chosen, where;
  for (int32_t i = 0; i < count(); i++) {
    const bool is_held = i % holding.every == holding.rest && all - passed++ <= holding.most;
    if (is_held == held) chosen.push_back(i);
  }
  std::vector<float> out(chosen.size() * group * dim);
  for (size_t i = 0; i < chosen.size(); i++) {
    read(out.data() + i * group * dim, shape, chosen[i], kv_head);
    where.insert(where.end(), group, positions_[static_cast<size_t>(chosen[i])]);
  }
  spread(shape, out.data(), where.data(), static_cast<int32_t>(where.size()), from, horizon);
  return out;
}

void QuerySamples::read(float* out, const LayerShape& shape, int32_t i, int32_t kv_head) const {
  const size_t group = static_cast<size_t>(shape.group()), dim = static_cast<size_t>(shape.head_dim);
  const size_t first = static_cast<size_t>(i) * static_cast<size_t>(shape.heads) + static_cast<size_t>(kv_head) * group;
  for (size_t g = 0; g < group; g++) {
    for (size_t d = 0; d < dim; d++) {
      *out++ = scales_[first + g] * static_cast<float>(codes_[(first + g) * dim + d]);
    }
  }
}

void QuerySamples::save(FileWriter& to) const {
  const int64_t head[4] = {offered_, stride_, static_cast<int64_t>(positions_.size()), observed_};
  to.add("samples", head, sizeof head);
  to.add("samples.positions", positions_.data(), positions_.size() * sizeof(int32_t));
  to.add("samples.codes", codes_.data(), codes_.size());
  to.add("samples.scales", scales_.data(), scales_.size() * sizeof(float));
}

void QuerySamples::restore(const FileReader& from, const LayerShape& shape) {
  const int64_t* head = from.array<int64_t>("samples", 4);
  if (head[0] < 0 || head[1] < 1 || head[1] > (1 << 30) || head[2] < 0 || head[2] > INT32_MAX || head[3] < 0 ||
      head[3] > INT32_MAX) {
    fail(KVASIR_ARGUMENT, "Cannot open index: its sampled queries are counted wrongly");
  }
  offered_ = head[0];
  stride_ = static_cast<int32_t>(head[1]);
  observed_ = static_cast<int32_t>(head[3]);
  const size_t n = static_cast<size_t>(head[2]), heads = static_cast<size_t>(shape.heads);
  const int32_t* positions = from.array<int32_t>("samples.positions", n);
  const int8_t* codes = from.array<int8_t>("samples.codes", n * heads * static_cast<size_t>(shape.head_dim));
  const float* scales = from.array<float>("samples.scales", n * heads);
  positions_.assign(positions, positions + n);
  codes_.assign(codes, codes + n * heads * static_cast<size_t>(shape.head_dim));
  scales_.assign(scales, scales + n * heads);
  for (size_t i = 0; i < n; i++) {
    if (positions_[i] < 0 || (i > 0 && positions_[i] <= positions_[i - 1])) {
      fail(KVASIR_ARGUMENT, "Cannot open index: positions of its sampled queries do not ascend");
    }
  }
  if (n > 0 && positions_.back() >= observed_) fail(KVASIR_ARGUMENT, "Cannot open index: its sampled queries lie ahead");
  for (float s : scales_) {
    if (!std::isfinite(s)) fail(KVASIR_ARGUMENT, "Cannot open index: a scale of its sampled queries is not finite");
  }
}

}  // namespace kvasir
