// Type "pca": Loki (Singhania et al. 2024, algorithm 1): keys in the first r principal coordinates (a rotation only,
// uncentred) score all keys; the best are attended exactly. Defaults: r a quarter of the head (r=0), k a quarter of the
// keys in the paper; here k is the policy's budget. What differs: the rotation is fitted to the first keys of the cache
// (post-rope), not to a corpus, and frozen. Fewer than `min` keys are scanned. Grows by appending. Memory: 4 r bytes a
// key.
#include <algorithm>

#include "rotated.h"

namespace kvasir {
namespace {

constexpr int32_t kMostFitted = 4096;

class Pca final : public RotatedState {
 public:
  Pca(int32_t r, int32_t min) : r_(r), min_(min) {}
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<Pca>(*this); }

  void grow(const HeadKeys& keys, const Asked&, int32_t) override {
    if (keys.count < min_) return;
    if (rotated_.basis.empty()) fit(keys);
    take(keys);
  }
 private:
  void fit(const HeadKeys& keys) {
    const int32_t dim = keys.dim(), r = std::min(dim, r_ > 0 ? r_ : std::max(1, dim / 4));
    std::vector<double> moment(static_cast<size_t>(dim) * static_cast<size_t>(dim), 0);
    std::vector<float> row(static_cast<size_t>(dim));
    const int32_t step = std::max(1, keys.count / kMostFitted);
    for (int32_t i = 0; i < keys.count; i += step) {
      keys.read(row.data(), i, 1);
      add_moment(moment, row.data(), 1, dim);
    }
    rotated_.basis = eigenvectors(std::move(moment), dim);
    rotated_.basis.resize(static_cast<size_t>(r) * static_cast<size_t>(dim));
  }

  int32_t r_, min_;
};

Method make(const LayerShape&, const Params& params) {
  Method m;
  m.settings.sharing = parse_sharing(params);
  m.empty = std::make_shared<Pca>(params.integer("r", 0, 4096), params.integer("min", 1, 1 << 30));
  return m;
}

}  // namespace

extern const IndexType kPca;
const IndexType kPca = method_type<make>("pca", "r=0,min=256,group=head",
                                         "scores keys in their first principal coordinates (Loki); r=0: a quarter of the head");

}  // namespace kvasir
