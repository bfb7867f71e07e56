#include "method.h"

#include <algorithm>
#include <cmath>

#include "builders.h"
#include "file.h"
#include "kvasir_index.h"
#include "method_found.h"
#include "row_kernels.h"
#include "select_kernels.h"

namespace kvasir {
namespace {

class Counter final : public Arrays {
 public:
  size_t bytes = 0;
  void operator()(const char*, std::vector<float>& a) override { bytes += a.size() * sizeof a[0]; }
  void operator()(const char*, std::vector<int32_t>& a) override { bytes += a.size() * sizeof a[0]; }
  void operator()(const char*, std::vector<uint16_t>& a) override { bytes += a.size() * sizeof a[0]; }
  void operator()(const char*, std::vector<uint8_t>& a) override { bytes += a.size(); }
};

class Saver final : public Arrays {
 public:
  Saver(FileWriter& to, std::string prefix) : to_(to), prefix_(std::move(prefix)) {}
  void operator()(const char* name, std::vector<float>& a) override { put(name, a); }
  void operator()(const char* name, std::vector<int32_t>& a) override { put(name, a); }
  void operator()(const char* name, std::vector<uint16_t>& a) override { put(name, a); }
  void operator()(const char* name, std::vector<uint8_t>& a) override { put(name, a); }

 private:
  template <class T>
  void put(const char* name, const std::vector<T>& a) {
    to_.add(prefix_ + name, a.data(), a.size() * sizeof(T));
  }
  FileWriter& to_;
  std::string prefix_;
};

class Restorer final : public Arrays {
 public:
  Restorer(const FileReader& from, std::string prefix) : from_(from), prefix_(std::move(prefix)) {}
  void operator()(const char* name, std::vector<float>& a) override {
    take(name, a);
    if (!std::all_of(a.begin(), a.end(), [](float x) { return std::isfinite(x); })) {
      fail(KVASIR_ARGUMENT, "Cannot open index: section \"%s%s\" has numbers that are not finite", prefix_.c_str(), name);
    }
  }
  void operator()(const char* name, std::vector<int32_t>& a) override { take(name, a); }
  void operator()(const char* name, std::vector<uint16_t>& a) override { take(name, a); }
  void operator()(const char* name, std::vector<uint8_t>& a) override { take(name, a); }

 private:
  template <class T>
  void take(const char* name, std::vector<T>& a) {
    const FileReader::Section section = from_.find(prefix_ + name);
    if (section.bytes % sizeof(T) != 0) {
      fail(KVASIR_ARGUMENT, "Cannot open index: section \"%s%s\" has %zu bytes", prefix_.c_str(), name, section.bytes);
    }
    const T* data = reinterpret_cast<const T*>(section.data);
    a.assign(data, data + section.bytes / sizeof(T));
  }
  const FileReader& from_;
  std::string prefix_;
};

std::string prefix_of(size_t head) { return "head" + std::to_string(head) + "."; }

}  // namespace

void expect_size(const char* what, size_t size, size_t expected) {
  if (size != expected) fail(KVASIR_ARGUMENT, "Cannot open index: %zu numbers in its %s, expected %zu", size, what, expected);
}

Sharing parse_sharing(const Params& params) {
  const Sharing all[] = {Sharing::kHead, Sharing::kSum, Sharing::kMax, Sharing::kMean, Sharing::kLayer};
  return all[params.choice("group", {"head", "sum", "max", "mean", "layer"})];
}

void HeadKeys::score(float* out, size_t stride, const float* q, int32_t queries, int32_t from, int32_t to) const {
  const RowKernels& kernels = *environment->isa->rows;
  const int32_t d = dim();
  std::vector<float> dots(static_cast<size_t>(queries));
  for (int32_t i = from; i < to;) {
    const Segment& s = rows->find(begin + i);
    const int32_t end = std::min(to, s.start() + s.capacity() - begin);
    for (; i < end; i++) {
      const int32_t row = begin + i - s.start();
      const void* key = s.key(head, row);
      if (s.dtype() == KVASIR_F32) kernels.dot_f32(dots.data(), q, static_cast<const float*>(key), queries, d);
      else if (s.dtype() == KVASIR_F16) kernels.dot_f16(dots.data(), q, static_cast<const uint16_t*>(key), queries, d);
      else kernels.dot_i8(dots.data(), q, static_cast<const int8_t*>(key), queries, d);
      const float factor = shape->scale * s.key_scale(head, row);
      for (int32_t g = 0; g < queries; g++) {
        float logit = dots[static_cast<size_t>(g)] * factor;
        if (!std::isfinite(logit)) {
          logit = rows->logit(head, begin + i, q + static_cast<size_t>(g) * static_cast<size_t>(d), shape->scale);
        }
        out[static_cast<size_t>(g) * stride + static_cast<size_t>(i - from)] = logit;
      }
    }
  }
}

void HeadKeys::score_ids(float* out, const float* q, const int32_t* ids, int32_t n) const {
  for (int32_t i = 0; i < n;) {
    const Segment& s = rows->find(begin + ids[i]);
    const int32_t offset = begin - s.start(), end = s.start() + s.capacity() - begin;
    const int32_t some = static_cast<int32_t>(std::lower_bound(ids + i, ids + n, end) - (ids + i));
    environment->isa->select->rescore(out + i, q, s.key(head, 0), s.dtype(), dim(), offset, ids + i, some);
    for (const int32_t last = i + some; i < last; i++) {
      out[i] *= shape->scale * s.key_scale(head, ids[i] + offset);
      if (!std::isfinite(out[i])) out[i] = rows->logit(head, begin + ids[i], q, shape->scale);
    }
  }
}

void score_rows(float* out, size_t stride, const HeadKeys& keys, const float* q, const std::vector<float>& rows) {
  const int32_t group = keys.group();
  const size_t dim = static_cast<size_t>(keys.dim()), n = rows.size() / dim;
  std::vector<float> dots(static_cast<size_t>(group));
  for (size_t i = 0; i < n; i++) {
    keys.environment->isa->rows->dot_f32(dots.data(), q, rows.data() + i * dim, group, keys.dim());
    for (int32_t g = 0; g < group; g++) out[static_cast<size_t>(g) * stride + i] = keys.shape->scale * dots[static_cast<size_t>(g)];
  }
}

size_t HeadState::bytes() const {
  Counter counter;
  const_cast<HeadState*>(this)->visit(counter);
  return counter.bytes;
}

MethodIndex::MethodIndex(const Environment& environment, const LayerShape& shape, Rows rows, Method method)
    : Index(environment, shape, std::move(rows)), method_(std::move(method)), samples_(std::make_shared<QuerySamples>()),
      recent_(std::make_shared<RecentQueries>(method_.settings.recent_queries, method_.settings.recent_every)) {
  for (int32_t head = 0; head < shape.kv_heads; head++) heads_.push_back(method_.empty->copy());
}

MethodIndex::~MethodIndex() = default;

void MethodIndex::observe(int32_t start, int32_t count, const float* queries) {
  if (method_.settings.recent_queries > 0) {
    if (recent_.use_count() > 1) recent_ = std::make_shared<RecentQueries>(*recent_);
    recent_->add(shape_, start, count, queries);
  }
  if (method_.settings.sampled_queries && start + count > samples_->observed()) {
    if (samples_.use_count() > 1) samples_ = std::make_shared<QuerySamples>(*samples_);
    samples_->add(shape_, start, count, queries);
  }
}

void MethodIndex::commit() {
  const int32_t count = end_ - begin_, from = committed_;
  if (count == 0) return;
  const double start = wall_seconds();
  environment_.pool->run(shape_.kv_heads, [&](int32_t head, int) {
    std::shared_ptr<HeadState>& state = heads_[static_cast<size_t>(head)];
    if (state.use_count() > 1) state = state->copy();
    state->grow(keys(head, count), {samples_.get(), recent_.get()}, from);
  });
  const MethodSettings& settings = method_.settings;
  if (settings.consumes) recent_ = std::make_shared<RecentQueries>(settings.recent_queries, settings.recent_every);
  committed_ = count;
  build_seconds_ += wall_seconds() - start;
}

std::unique_ptr<Index> MethodIndex::fork(const Rows& rows) const {
  auto copy = std::make_unique<MethodIndex>(environment_, shape_, rows, method_);
  copy->begin_ = begin_, copy->end_ = end_, copy->committed_ = committed_;
  copy->heads_ = heads_;
  copy->samples_ = samples_;
  copy->recent_ = recent_;
  return copy;
}

void MethodIndex::save(FileWriter& to) const {
  const int32_t range[3] = {begin_, end_, committed_};
  to.add("range", range, sizeof range);
  if (method_.settings.sampled_queries) samples_->save(to);
  if (method_.settings.recent_queries > 0) recent_->save(to);
  for (size_t head = 0; head < heads_.size(); head++) {
    Saver saver(to, prefix_of(head));
    heads_[head]->visit(saver);
  }
}

void MethodIndex::restore(const FileReader& from) {
  const int32_t* range = from.array<int32_t>("range", 3);
  if (range[0] < 0 || range[1] < range[0] || range[2] < 0 || range[2] > range[1] - range[0] ||
      (range[1] > range[0] && (range[0] < rows_.begin() || range[1] > rows_.end()))) {
    fail(KVASIR_ARGUMENT, "Cannot open index: positions %d to %d, segments hold %d to %d", range[0], range[1], rows_.begin(),
         rows_.end());
  }
  begin_ = range[0], end_ = range[1], committed_ = range[2];
  if (method_.settings.sampled_queries) samples_->restore(from, shape_);
  if (method_.settings.recent_queries > 0) recent_->restore(from, shape_);
  for (size_t head = 0; head < heads_.size(); head++) {
    Restorer restorer(from, prefix_of(head));
    heads_[head]->visit(restorer);
    heads_[head]->check(keys(static_cast<int32_t>(head), committed_));
    if (heads_[head]->covered() < 0 || heads_[head]->covered() > committed_) {
      fail(KVASIR_ARGUMENT, "Cannot open index: %d of %d keys are covered", heads_[head]->covered(), committed_);
    }
  }
}

IndexStats MethodIndex::stats() const {
  IndexStats s;
  s.tokens = end_ - begin_;
  s.bytes = static_cast<double>(samples_->bytes() + recent_->bytes());
  s.build_seconds = build_seconds_;
  int32_t covered = committed_;
  for (size_t head = 0; head < heads_.size(); head++) {
    s.bytes += static_cast<double>(heads_[head]->bytes());
    covered = std::min(covered, heads_[head]->covered());
    const std::string decision = heads_[head]->decision();
    if (!decision.empty()) s.decisions.push_back("KV head " + std::to_string(head) + ": " + decision);
  }
  s.pending = end_ - begin_ - covered;
  return s;
}

}  // namespace kvasir
