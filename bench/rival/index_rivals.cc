// hnswlib and faiss on recorded heads: maximum inner product search over the keys that an index is asked about, single thread.
// Compiled by bench/index.ts from Debian's libhnswlib-dev and libfaiss-dev; no part of the product.
//   ./index_rivals heads.kvqk --spec hnswlib --spec faiss-ivf:centred --goal top100 --queries 8
// Families: hnswlib, faiss-hnsw, faiss-ivf, faiss-ivfpq; ":centred" takes the mean key off first, which changes no ranking. Each is
// swept over its own knob, one JSON line a setting, named family:knob=value. Heads of a group are searched one after the other
// (faiss: as one batch): none of them can share a pass.
#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/IndexIVFFlat.h>
#include <faiss/IndexIVFPQ.h>
#include <faiss/IndexRefine.h>
#include <hnswlib/hnswlib.h>
#include <omp.h>

#include <memory>

#include "measure.h"

using namespace kvasir_bench;

namespace {

constexpr int kLinks = 16, kBuildWidth = 200;
constexpr double kMostMicroseconds = 4000;  // a sweep ends where it is hopeless

struct Hit {
  std::vector<std::vector<int32_t>> rows;
  double scored = 0;
};

// One library's index; ids count from 0.
class Rival {
 public:
  virtual ~Rival() = default;
  virtual void add(const float* keys, size_t count) = 0;
  virtual std::vector<double> knobs() const = 0;
  virtual const char* knob() const = 0;
  virtual void set(double knob) = 0;
  // k best of `group` queries.
  virtual void search(const float* q, size_t group, size_t k, Hit* hit) = 0;
  virtual double bytes_per_key() const = 0;
};

class Hnswlib : public Rival {
 public:
  Hnswlib(size_t dim, size_t capacity) : dim_(dim), space_(dim), index_(&space_, capacity, kLinks, kBuildWidth) {}
  void add(const float* keys, size_t count) override {
    for (size_t i = 0; i < count; i++) index_.addPoint(keys + i * dim_, size_++);
  }
  std::vector<double> knobs() const override { return {100, 200, 400, 800, 1600, 3200}; }
  const char* knob() const override { return "ef"; }
  void set(double ef) override { index_.setEf(static_cast<size_t>(ef)); }
  void search(const float* q, size_t group, size_t k, Hit* hit) override {
    hit->rows.assign(group, {});
    for (size_t g = 0; g < group; g++) {
      auto found = index_.searchKnn(q + g * dim_, k);
      for (; !found.empty(); found.pop()) hit->rows[g].push_back(static_cast<int32_t>(found.top().second));
    }
    // It counts links followed, not keys scored, so that nothing comparable can be said.
    hit->scored = std::numeric_limits<double>::quiet_NaN();
  }
  double bytes_per_key() const override { return static_cast<double>(index_.size_data_per_element_); }

 private:
  size_t dim_, size_ = 0;
  hnswlib::InnerProductSpace space_;
  hnswlib::HierarchicalNSW<float> index_;
};

class Faiss : public Rival {
 public:
  enum Kind { kHnsw, kIvf, kIvfpq };
  Faiss(Kind kind, size_t dim, size_t expected) : kind_(kind), dim_(dim), flat_(static_cast<faiss::Index::idx_t>(dim)) {
    const auto d = static_cast<int>(dim);
    lists_ = static_cast<size_t>(4 * std::sqrt(static_cast<double>(expected)));
    if (kind == kHnsw) {
      auto index = std::make_unique<faiss::IndexHNSWFlat>(d, kLinks, faiss::METRIC_INNER_PRODUCT);
      index->hnsw.efConstruction = kBuildWidth;
      index_ = std::move(index);
    } else if (kind == kIvf) {
      index_ = std::make_unique<faiss::IndexIVFFlat>(&flat_, dim, lists_, faiss::METRIC_INNER_PRODUCT);
    } else {
      index_ = std::make_unique<faiss::IndexIVFPQ>(&flat_, dim, lists_, dim / 4, 8, faiss::METRIC_INNER_PRODUCT);
      refine_ = std::make_unique<faiss::IndexRefineFlat>(index_.get());
      refine_->k_factor = 8;
    }
  }
  void add(const float* keys, size_t count) override {
    if (!top().is_trained) top().train(static_cast<faiss::Index::idx_t>(count), keys);
    top().add(static_cast<faiss::Index::idx_t>(count), keys);
  }
  std::vector<double> knobs() const override {
    if (kind_ == kHnsw) return {100, 200, 400, 800, 1600, 3200};
    std::vector<double> out;
    for (double share : {.01, .02, .05, .1, .2, .3, .5, .7}) out.push_back(std::ceil(share * static_cast<double>(lists_)));
    return out;
  }
  const char* knob() const override { return kind_ == kHnsw ? "ef" : "nprobe"; }
  void set(double value) override {
    if (auto* hnsw = dynamic_cast<faiss::IndexHNSWFlat*>(index_.get())) hnsw->hnsw.efSearch = static_cast<int>(value);
    if (auto* ivf = dynamic_cast<faiss::IndexIVF*>(index_.get())) ivf->nprobe = static_cast<size_t>(value);
  }
  void search(const float* q, size_t group, size_t k, Hit* hit) override {
    distances_.resize(group * k);
    labels_.resize(group * k);
    faiss::hnsw_stats.reset();
    faiss::indexIVF_stats.reset();
    top().search(static_cast<faiss::Index::idx_t>(group), q, static_cast<faiss::Index::idx_t>(k), distances_.data(), labels_.data());
    hit->rows.assign(group, {});
    for (size_t i = 0; i < labels_.size(); i++) {
      if (labels_[i] >= 0) hit->rows[i / k].push_back(static_cast<int32_t>(labels_[i]));
    }
    const double counted = kind_ == kHnsw ? static_cast<double>(faiss::hnsw_stats.n3) : static_cast<double>(faiss::indexIVF_stats.ndis);
    hit->scored = counted / static_cast<double>(group);
  }
  double bytes_per_key() const override {
    const double row = 4.0 * static_cast<double>(dim_);
    if (kind_ == kHnsw) return row + 4.0 * 2 * kLinks;
    return kind_ == kIvf ? row + 8 : row + static_cast<double>(dim_) / 4 + 8;
  }

 private:
  faiss::Index& top() { return refine_ != nullptr ? *static_cast<faiss::Index*>(refine_.get()) : *index_; }
  Kind kind_;
  size_t dim_, lists_ = 0;
  faiss::IndexFlatIP flat_;
  std::unique_ptr<faiss::Index> index_;
  std::unique_ptr<faiss::IndexRefineFlat> refine_;
  std::vector<float> distances_;
  std::vector<faiss::Index::idx_t> labels_;
};

std::unique_ptr<Rival> make(const std::string& family, size_t dim, size_t tokens) {
  if (family == "hnswlib") return std::make_unique<Hnswlib>(dim, tokens);
  if (family == "faiss-hnsw") return std::make_unique<Faiss>(Faiss::kHnsw, dim, tokens);
  if (family == "faiss-ivf") return std::make_unique<Faiss>(Faiss::kIvf, dim, tokens);
  if (family == "faiss-ivfpq") return std::make_unique<Faiss>(Faiss::kIvfpq, dim, tokens);
  Options::usage(family.c_str());
}

// Every setting of one family on one KV head.
void run(const std::string& file, const std::string& spec, const Options& options, const RecordedLayer& layer, uint32_t kv,
         const HeadRows& rows, const std::vector<Truth>& truths) {
  const size_t colon = spec.find(':');
  const bool centred = colon != std::string::npos;
  if (centred && spec.substr(colon) != ":centred") Options::usage(spec.c_str());
  const uint32_t dim = rows.dim, count = truths.back().to - kSinks;
  std::vector<float> keys(rows.keys.begin() + kSinks * dim, rows.keys.begin() + static_cast<std::ptrdiff_t>(kSinks + count) * dim);
  if (centred) {
    for (uint32_t j = 0; j < dim; j++) {
      double sum = 0;
      for (uint32_t i = 0; i < count; i++) sum += static_cast<double>(keys[static_cast<size_t>(i) * dim + j]);
      const float centre = static_cast<float>(sum / count);
      for (uint32_t i = 0; i < count; i++) keys[static_cast<size_t>(i) * dim + j] -= centre;
    }
  }
  const auto rival = make(spec.substr(0, colon), dim, layer.tokens);
  const double start = thread_seconds();
  rival->add(keys.data(), count);
  const double built = thread_seconds() - start;
  for (const std::string& text : options.goals) {
    const GoalText goal(text);
    for (double knob : rival->knobs()) {
      rival->set(knob);
      Figures figures;
      figures.build_seconds = built;
      figures.bytes_per_key = rival->bytes_per_key();
      for (const Truth& truth : truths) {
        Hit hit;
        time_search([&] { rival->search(truth.q.data(), rows.group, goal.k(), &hit); }, nullptr, &figures);
        Answer answer;
        answer.tokens = hit.rows;
        for (auto& row : answer.tokens) for (int32_t& token : row) token += static_cast<int32_t>(kSinks);
        answer.scored = hit.scored;
        answer.bytes = hit.scored * 4 * dim;
        figures.add(rows, truth, answer, goal.k());
      }
      char name[96];
      std::snprintf(name, sizeof name, "%s%s%s=%g", spec.c_str(), centred ? "," : ":", rival->knob(), knob);
      print_line(file, name, text, layer, kv, count, figures);
      if (mean(figures.recall) >= .995 || median(figures.warm) > kMostMicroseconds) break;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options(argc, argv);
  omp_set_num_threads(1);
  const Recorded heads(options.file);
  each_head(heads, options, [&](const RecordedLayer& layer, uint32_t kv) {
    const HeadRows rows(layer, kv);
    std::vector<Truth> truths;
    // The rest ends where the rivals' contents end.
    for (uint32_t query : chosen_queries(layer, options)) truths.emplace_back(rows, layer, kv, query, layer.tokens - layer.decoded - kWindow);
    for (const std::string& spec : options.specs) run(heads.name(), spec, options, layer, kv, rows, truths);
  });
}
