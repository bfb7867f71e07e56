// Type "pq": PQCache (Zhang et al. 2024, section 3; product quantization: Jégou, Douze, Schmid 2011). Keys are cut into
// m parts, each replaced by the nearest of 2^bits centroids; a query's products with all centroids make a table, whose
// sums score keys. The best by softmax weights summed over the group. Defaults: m 2, bits 6; 8 bits and m 4 above 16K
// tokens in the paper. Budgets of 0.1 to 0.2 n, half of it recent, and 32 sinks are the policy's. What differs: k-means
// trains on at most 64 keys a centroid, for a fixed number of iterations (published: 3 to 300, as fit the prefill).
// Fewer than `min` keys are scanned. Grows: codes by frozen books. Memory: m bytes a key, and books.
#include <algorithm>

#include "error.h"
#include "kmeans.h"
#include "kvasir_index.h"
#include "method.h"

namespace kvasir {
namespace {

constexpr int32_t kTrainedPerCentroid = 64, kBatch = 256;

struct PqOptions {
  int32_t m, bits, iterations, min;
  uint32_t seed;
};

class Pq final : public HeadState {
 public:
  explicit Pq(const PqOptions& options) : o_(options) {}
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<Pq>(*this); }

  void grow(const HeadKeys& keys, const Asked&, int32_t) override {
    if (keys.count < o_.min) return;
    if (books_.empty()) train(keys);
    encode(keys);
  }
  int32_t covered() const override { return static_cast<int32_t>(codes_.size()) / o_.m; }

  void score(float* out, size_t stride, const HeadKeys& keys, const float* q) const override {
    const int32_t dim = keys.dim(), n = covered(), centroids = 1 << o_.bits;
    std::vector<float> table(static_cast<size_t>(o_.m * centroids));
    for (int32_t g = 0; g < keys.group(); g++) {
      const float* own = q + static_cast<size_t>(g * dim);
      for (int32_t p = 0; p < o_.m; p++) {
        const int32_t from = part(p, dim), width = part(p + 1, dim) - from;
        for (int32_t c = 0; c < centroids; c++) {
          const float* centroid = books_.data() + static_cast<size_t>(from * centroids + c * width);
          float dot = 0;
          for (int32_t j = 0; j < width; j++) dot += own[from + j] * centroid[j];
          table[static_cast<size_t>(p * centroids + c)] = keys.shape->scale * dot;
        }
      }
      float* to = out + static_cast<size_t>(g) * stride;
      const uint8_t* codes = codes_.data();
      for (int32_t i = 0; i < n; i++, codes += o_.m) {
        float sum = 0;
        for (int32_t p = 0; p < o_.m; p++) sum += table[static_cast<size_t>(p * centroids + codes[p])];
        to[i] = sum;
      }
    }
  }
  double score_bytes() const override { return static_cast<double>(bytes()); }
  void visit(Arrays& arrays) override {
    arrays("books", books_);
    arrays("codes", codes_);
  }
  void check(const HeadKeys& keys) const override {
    if (books_.empty()) return expect_size("codes", codes_.size(), 0);
    expect_size("books", books_.size(), static_cast<size_t>(keys.dim()) << o_.bits);
    expect_size("codes", codes_.size(), static_cast<size_t>(keys.count) * static_cast<size_t>(o_.m));
    for (uint8_t code : codes_) {
      if (code >= 1 << o_.bits) fail(KVASIR_ARGUMENT, "Cannot open index: code %d of %d", code, 1 << o_.bits);
    }
  }

 private:
  // First dimension of a part.
  int32_t part(int32_t p, int32_t dim) const { return p * dim / o_.m; }

  void train(const HeadKeys& keys) {
    const int32_t dim = keys.dim(), centroids = 1 << o_.bits, most = kTrainedPerCentroid * centroids;
    const int32_t count = std::min(keys.count, most);
    const RunTasks run = [](int32_t tasks, const std::function<void(int32_t)>& body) {
      for (int32_t i = 0; i < tasks; i++) body(i);
    };
    std::vector<float> rows(static_cast<size_t>(count * dim)), points;
    for (int32_t i = 0; i < count; i++) {
      const int32_t from = static_cast<int32_t>(static_cast<int64_t>(i) * keys.count / count);
      keys.read(rows.data() + static_cast<size_t>(i) * static_cast<size_t>(dim), from, 1);
    }
    for (int32_t p = 0; p < o_.m; p++) {
      const int32_t from = part(p, dim), width = part(p + 1, dim) - from;
      points.clear();
      for (int32_t i = 0; i < count; i++) {
        const float* row = rows.data() + static_cast<size_t>(i) * static_cast<size_t>(dim) + from;
        points.insert(points.end(), row, row + width);
      }
      const KMeans options = {centroids, o_.iterations, false, o_.seed + static_cast<uint32_t>(p + o_.m * keys.head)};
      const std::vector<float> book = kmeans(*keys.environment->isa->panels, run, points.data(), count, width, options);
      books_.insert(books_.end(), book.begin(), book.end());
    }
  }

  void encode(const HeadKeys& keys) {
    const int32_t dim = keys.dim(), centroids = 1 << o_.bits, from = covered();
    codes_.resize(static_cast<size_t>(keys.count) * static_cast<size_t>(o_.m));
    std::vector<Nearest> nearest;
    for (int32_t p = 0; p < o_.m; p++) {
      const int32_t first = part(p, dim);
      nearest.emplace_back(books_.data() + static_cast<size_t>(first * centroids), centroids, part(p + 1, dim) - first, false);
    }
    std::vector<float> rows(static_cast<size_t>(kBatch * dim)), points;
    std::vector<int32_t> codes(kBatch);
    for (int32_t i = from; i < keys.count; i += kBatch) {
      const int32_t n = std::min(kBatch, keys.count - i);
      keys.read(rows.data(), i, n);
      for (int32_t p = 0; p < o_.m; p++) {
        const int32_t first = part(p, dim), width = part(p + 1, dim) - first;
        points.clear();
        for (int32_t j = 0; j < n; j++) {
          const float* row = rows.data() + static_cast<size_t>(j * dim + first);
          points.insert(points.end(), row, row + width);
        }
        nearest[static_cast<size_t>(p)].find(*keys.environment->isa->panels, codes.data(), nullptr, points.data(), n);
        for (int32_t j = 0; j < n; j++) {
          codes_[static_cast<size_t>(i + j) * static_cast<size_t>(o_.m) + static_cast<size_t>(p)] =
              static_cast<uint8_t>(codes[static_cast<size_t>(j)]);
        }
      }
    }
  }

  PqOptions o_;
  std::vector<float> books_;    // by part: [2^bits, dimensions of the part]
  std::vector<uint8_t> codes_;  // [keys, m]
};

Method make(const LayerShape& shape, const Params& params) {
  Method m;
  m.settings.sharing = parse_sharing(params);
  const PqOptions o = {params.integer("m", 1, 256), params.integer("bits", 1, 8), params.integer("iterations", 1, 300),
                       params.integer("min", 1, 1 << 30), shape.seed};
  if (o.m > shape.head_dim) {
    fail(KVASIR_ARGUMENT, "Cannot use \"pq\": m is %d, the head has %d dimensions", o.m, shape.head_dim);
  }
  m.empty = std::make_shared<Pq>(o);
  return m;
}

}  // namespace

extern const IndexType kPq;
const IndexType kPq = method_type<make>("pq", "m=2,bits=6,iterations=10,min=256,group=sum",
                                        "scores keys by product quantization (PQCache)");

}  // namespace kvasir
