// Type "skew": InfiniGen (Lee et al. 2024, sections 4.2 and 4.3). The singular vectors of prompt queries make an
// orthogonal A; of q A and k A the columns with the largest sum over the prompt of |q_c| are kept. A key is wanted
// whose partial score is above max - alpha; how many is averaged over heads, capped at a share of the keys, and so many
// are taken by each head. Defaults: columns 0.2 (scripts; the flag says 0.1), alpha 5 (flag; 4 for OPT, 5.2 for
// Llama-2-13B), cap 0.2. What differs: the original scores layer j with the input of layer j - 1, to prefetch; ours
// uses the true query and prefetches nothing. A is made of the prompt at hand, not offline, the average is over a
// group's heads, scores are in units of the model's scale. Without enough prompt queries, or keys, all keys are
// scanned. Grows by appending columns. Memory: 4 bytes a column and key.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "error.h"
#include "kvasir_index.h"
#include "rotated.h"

namespace kvasir {
namespace {

constexpr int32_t kFewPositions = 16;

struct SkewOptions {
  double columns, alpha, cap;
  int32_t min;
};

class Skew final : public RotatedState {
 public:
  explicit Skew(const SkewOptions& options) : o_(options) {}
  std::shared_ptr<HeadState> copy() const override { return std::make_shared<Skew>(*this); }

  void grow(const HeadKeys& keys, const Asked& asked, int32_t) override {
    if (keys.count < o_.min || (rotated_.basis.empty() && asked.samples->count() < kFewPositions)) return;
    if (rotated_.basis.empty()) fit(keys, *asked.samples);
    take(keys);
  }

  int32_t wanted(const float* scores, int32_t n, int32_t k) const override {
    if (n == 0) return 0;
    const float least = *std::max_element(scores, scores + n) - static_cast<float>(o_.alpha);
    const auto above = std::count_if(scores, scores + n, [=](float s) { return s > least; });
    const double most = std::max(1.0, o_.cap * n);
    return static_cast<int32_t>(std::min({static_cast<double>(above), most, static_cast<double>(k)}));
  }
 private:
  void fit(const HeadKeys& keys, const QuerySamples& samples) {
    const int32_t dim = keys.dim(), group = keys.group();
    const size_t d = static_cast<size_t>(dim);
    std::vector<double> moment(d * d, 0);
    std::vector<float> q(static_cast<size_t>(group) * d);
    for (int32_t i = 0; i < samples.count(); i++) {
      samples.read(q.data(), *keys.shape, i, keys.head);
      add_moment(moment, q.data(), group, dim);
    }
    const std::vector<float> all = eigenvectors(std::move(moment), dim);
    std::vector<double> size(d, 0);
    for (int32_t i = 0; i < samples.count(); i++) {
      samples.read(q.data(), *keys.shape, i, keys.head);
      for (size_t row = 0; row < q.size(); row += d) {
        for (size_t c = 0; c < d; c++) {
          const float* direction = all.data() + c * d;
          size[c] += static_cast<double>(std::fabs(std::inner_product(direction, direction + d, q.data() + row, 0.0f)));
        }
      }
    }
    std::vector<size_t> order(d);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return size[a] > size[b]; });
    const size_t kept = std::max<size_t>(1, static_cast<size_t>(o_.columns * static_cast<double>(d)));
    for (size_t i = 0; i < kept; i++) {
      rotated_.basis.insert(rotated_.basis.end(), all.begin() + static_cast<std::ptrdiff_t>(order[i] * d),
                            all.begin() + static_cast<std::ptrdiff_t>((order[i] + 1) * d));
    }
  }

  SkewOptions o_;
};

Method make(const LayerShape&, const Params& params) {
  Method m;
  m.settings.selective = true;
  m.settings.sampled_queries = true;
  const SkewOptions o = {params.number("columns"), params.number("alpha"), params.number("cap"), params.integer("min", 1, 1 << 30)};
  if (!(o.columns > 0 && o.columns <= 1 && o.cap > 0 && o.cap <= 1 && o.alpha >= 0)) {
    fail(KVASIR_ARGUMENT, "Cannot use \"skew\": columns is %g, cap %g, alpha %g, expected shares, and at least 0", o.columns, o.cap,
         o.alpha);
  }
  m.empty = std::make_shared<Skew>(o);
  return m;
}

}  // namespace

extern const IndexType kSkew;
const IndexType kSkew = method_type<make>("skew", "columns=0.2,alpha=5,cap=0.2,min=256",
                                          "scores keys in the directions that prompt queries use most (InfiniGen)");

}  // namespace kvasir
