#include "sampler.h"

#include <algorithm>
#include <cmath>

#include "draw_offsets.h"
#include "sampling.h"

namespace kvasir {

Sampling::Sampling(const Environment& environment, const LayerShape& shape, const Codes& codes, const Rows& rows, int32_t count,
                   const int32_t* kv_heads, const Query& query, SampleMemory& memory)
    : environment_(environment), shape_(shape), codes_(codes), names_(kv_heads), rows_(rows), query_(query),
      kernels_(*environment.isa->sample), count_(count), group_(shape.group()), chunks_((count + kChunk - 1) / kChunk), m_(memory) {
  const size_t heads = static_cast<size_t>(shape.heads), parts = static_cast<size_t>(chunks_);
  for (int32_t head = 0; head < shape.kv_heads; head++) codes_.fetch(names_[head]);
  place();
  m_.prepared.resize(static_cast<size_t>(shape.kv_heads));
  m_.gains.resize(heads), m_.ref.resize(heads), m_.sums.resize(heads), m_.offsets.resize(heads);
  const size_t sums = apart() * static_cast<size_t>(shape.kv_heads);
  if (m_.so_far.size() < sums) m_.so_far = std::vector<std::atomic<float>>(sums);
  m_.parts.resize(parts * heads), m_.squares.resize(parts * heads);
  m_.found.resize(parts * static_cast<size_t>(shape.kv_heads)), m_.starts.resize(m_.found.size());
  m_.unrefined.assign(environment_.scratch->size(), -1);
  const bool nibbles = codes.kind() == Codes::kInt4;
  environment_.pool->run(shape.kv_heads, [&](int32_t head, int) {
    const float* q = query.q + static_cast<size_t>(names_[head] * group_ * shape.head_dim);
    PreparedQuery& prepared = m_.prepared[static_cast<size_t>(head)];
    codes_.prepare(prepared, names_[head], q, group_, shape.scale, 1, Codes::kPlain);
    for (int32_t g = 0; g < group_ && nibbles; g++) {
      m_.gains[static_cast<size_t>(head * group_ + g)] = prepared.codes().factors[g] * kLogUnit;
    }
  });
  // Logarithms straight from integers want scores that a float holds to a fraction of a unit.
  double reach = 0;
  planes_ = nibbles && shape.softcap == 0;
  for (int32_t head = 0; head < shape.kv_heads && planes_; head++) {
    reach = std::max(reach, prepared(head).reach());
    planes_ = !prepared(head).risky();
  }
  for (size_t h = 0; h < heads && planes_; h++) {
    if (std::isfinite(exact_of(h))) reach = std::max(reach, std::fabs(static_cast<double>(exact_of(h))));
  }
  planes_ = planes_ && reach < 5e5;
  tau_ = query.goal.value * query.goal.value * (planes_ ? kPlanesTau : 1);
}

void Sampling::run(const Hits& hits, Report& report) {
  if (!known_references() || !scan_and_draw() || !sift()) {
    find_references();
    scan_and_draw(), sift();
  }
  set_offsets();
  each_chunk([&](int32_t head, int32_t chunk, int32_t, size_t&, int32_t) { settle(head, chunk, m_.offsets.data() + head * group_); });
  for (int32_t head = 0; head < shape_.kv_heads; head++) finish(head, hits, report);
  report.keys_scored += scored_;
  report.bytes_read += read_ + sifted_ * static_cast<double>(codes_.fine_bytes());
}

void Sampling::set_offsets() {
  for (size_t h = 0; h < m_.sums.size(); h++) {
    m_.offsets[h] = draw_offset(m_.sums[h], static_cast<double>(exact_of(h)), static_cast<double>(m_.ref[h]), tau_);
  }
}

int16_t Sampling::for_candidates(int16_t offset, int32_t head, int32_t chunk, int32_t g) const {
  return planes_ ? with_margin(offset, prepared(head).spread(chunk)[g]) : offset;
}

// Sums of parts in order; false where one is no number.
bool Sampling::add_parts() {
  bool finite = true;
  for (size_t h = 0; h < m_.sums.size(); h++) {
    m_.sums[h] = 0;
    for (size_t c = 0; c < static_cast<size_t>(chunks_); c++) m_.sums[h] += static_cast<double>(m_.parts[c * m_.sums.size() + h]);
    finite = finite && m_.sums[h] < 1e30;
  }
  return finite;
}

// Of 4-bit codes: candidates by the sum of all coarse scores, whose threads and timing are forgotten here; and from them the sum of whole ones,
// each over its chance to be among them. What is kept is drawn by the smaller of what either says (never more often than it became a
// candidate), so that its probability is known. False where a sum is no number.
bool Sampling::sift() {
  if (!planes_) return true;
  set_offsets();
  each_chunk([&](int32_t head, int32_t chunk, int32_t, size_t&, int32_t worker) {
    int16_t* const offsets = m_.logs[static_cast<size_t>(worker)];
    float* const sums = part(m_.parts, head, chunk);
    for (int32_t g = 0; g < group_; g++) {
      offsets[g] = for_candidates(m_.offsets[static_cast<size_t>(head * group_ + g)], head, chunk, g);
      sums[g] = 0;
    }
    const size_t at = start(head, chunk);
    found(head, chunk) = kernels_.sift(candidates_at(at), refined_ + at, tops_ + at, offsets, group_, chunk * kChunk, count_,
                                       found(head, chunk), draw_keys(head), sums);
  });
  for (const int32_t some : m_.found) sifted_ += some;
  return add_parts();
}

// What is kept of a chunk's candidates stays where they were, numbered from key 0 on.
void Sampling::settle(int32_t head, int32_t chunk, const int16_t* offsets) {
  const size_t at = start(head, chunk);
  double* squares = part(m_.squares, head, chunk);
  std::fill(squares, squares + group_, 0.0);
  found(head, chunk) = kernels_.settle(candidates_at(at), tops_ + at, offsets, group_, chunk * kChunk, count_,
                                       found(head, chunk), draw_keys(head), planes_, squares);
}

void Sampling::finish(int32_t head, const Hits& hits, Report& report) {
  constexpr float kStep = 0.6931471805599453f / 128;
  int32_t total = 0;
  for (int32_t c = 0; c < chunks_; c++) total += found(head, c);
  const int32_t row = names_[head];
  hits.counts[row] = total;
  report.keys_kept += total;
  const bool fits = total <= hits.capacity;
  int32_t* tokens = hits.tokens + static_cast<size_t>(row) * static_cast<size_t>(fits ? hits.capacity : 0);
  float* bias = hits.bias + static_cast<size_t>(row) * static_cast<size_t>(fits ? hits.capacity : 0);
  for (int32_t c = 0; c < chunks_ && fits; c++) {
    const int32_t* keys = keys_ + start(head, c);
    const int16_t* tops = tops_ + start(head, c);
    const int32_t n = found(head, c);
    for (int32_t i = 0; i < n; i++) {
      tokens[i] = codes_.begin() + keys[i];
      bias[i] = static_cast<float>(std::max(0, kDrawOne - tops[i])) * kStep;
    }
    tokens += n, bias += n;
  }
  hits.errors[row] = estimate(head);
}

// Root of sum (1 - p) w^2 over what was kept, w = exp(s) / (Z p), as if values had the output's norm; the worst head's.
float Sampling::estimate(int32_t head) {
  double worst = 0;
  for (int32_t g = 0; g < group_; g++) {
    double squares = 0;
    for (int32_t c = 0; c < chunks_; c++) squares += part(m_.squares, head, c)[g];
    worst = std::max(worst, squares);
  }
  return static_cast<float>(tau_ * std::sqrt(worst));
}

namespace {

// An error of 0: everything is kept.
void take_all(const int32_t* kv_heads, int32_t num_heads, int32_t begin, int32_t count, const Hits& hits, Report& report) {
  for (int32_t h = 0; h < num_heads; h++) {
    const int32_t head = kv_heads[h];
    hits.counts[head] = count;
    hits.errors[head] = 0;
    for (int32_t i = 0; i < count && count <= hits.capacity; i++) {
      const size_t at = static_cast<size_t>(head) * static_cast<size_t>(hits.capacity) + static_cast<size_t>(i);
      hits.tokens[at] = begin + i;
      hits.bias[at] = 0;
    }
    report.keys_kept += count;
  }
}

}  // namespace

void sample_by_error(const Environment& environment, const LayerShape& shape, const Codes& codes, const Rows& rows,
                     int32_t count, const int32_t* kv_heads, int32_t num_heads, const Query& query, const Hits& hits,
                     Report& report) {
  // So small an error is none in the floats that carry it.
  if (count == 0 || query.goal.value * query.goal.value < 1e-30) {
    return take_all(kv_heads, num_heads, codes.begin(), count, hits, report);
  }
  LayerShape named = shape;
  named.kv_heads = num_heads;
  named.heads = num_heads * shape.group();
  Sampling(environment, named, codes, rows, count, kv_heads, query, *environment.samples).run(hits, report);
}

}  // namespace kvasir
