// A cache with random rows, queries, and what attending to it should give.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "attention.h"
#include "device_array.h"
#include "harness.h"
#include "options.h"

namespace kvasir {

// IEEE halves of numbers that are nowhere near their limits.
inline uint16_t test_half(float x) {
  const _Float16 h = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
inline float test_widened(uint16_t bits) {
  _Float16 h;
  std::memcpy(&h, &bits, 2);
  return static_cast<float>(h);
}

inline Options seeded(uint64_t seed, bool wgmma = false, bool tma = false) {
  Options options;
  options.wgmma = wgmma, options.tma = tma;
#ifdef KVASIR_EMULATION
  options.seed = seed * 1000;
#else
  (void)seed;
#endif
  return options;
}

class AttentionCase {
 public:
  std::unique_ptr<Runtime> runtime;
  std::vector<float> o, lse;  // what the last run() gave

  AttentionCase(int32_t dtype, int32_t n, int32_t length, int32_t kv_heads, int32_t group, int32_t dim, int32_t start,
                const std::vector<int32_t>& cuts, float softcap, float sharp, uint64_t seed = 1, bool wgmma = false,
                bool tma = false)
      : runtime(Runtime::open(seeded(seed, wgmma, tma))), dtype_(dtype), n_(n), length_(length), kv_heads_(kv_heads), group_(group), dim_(dim),
        start_(start), softcap_(softcap) {
    std::mt19937 random(static_cast<uint32_t>(length * 31 + dim));
    std::normal_distribution<float> bell;
    const size_t heads = static_cast<size_t>(kv_heads) * static_cast<size_t>(group);
    q.resize(static_cast<size_t>(n) * heads * static_cast<size_t>(dim));
    for (float& x : q) x = sharp * bell(random);
    std::vector<int32_t> bounds = {0};
    bounds.insert(bounds.end(), cuts.begin(), cuts.end());
    bounds.push_back(length);
    keys_.resize(static_cast<size_t>(kv_heads) * static_cast<size_t>(length) * static_cast<size_t>(dim));
    values_.resize(keys_.size());
    for (size_t s = 0; s + 1 < bounds.size(); s++) {
      const int32_t rows = bounds[s + 1] - bounds[s], capacity = rows + (s % 2 == 0 ? 3 : 0);
      KeySegment segment{};
      segment.start = start + bounds[s], segment.count = rows, segment.capacity = capacity;
      segment.keys = store(random, keys_, bounds[s], rows, capacity, &segment.key_scales);
      segment.values = store(random, values_, bounds[s], rows, capacity, &segment.value_scales);
      segments_.push_back(segment);
    }
    queries_.emplace(*runtime, q);
    outputs_.emplace(*runtime, q.size());
    sums_.emplace(*runtime, static_cast<size_t>(n) * heads);
    work_.emplace(*runtime);
  }

  // body(workspace, call) attends.
  template <class F>
  void run(F&& body) {
    Attention a;
    a.dtype = dtype_, a.kv_heads = kv_heads_, a.head_dim = dim_;
    a.start = start_, a.end = start_ + length_;
    a.segments = segments_;
    a.scale = 1 / std::sqrt(static_cast<float>(dim_)), a.softcap = softcap_;
    a.n = n_, a.heads = kv_heads_ * group_;
    a.q = queries_->data(), a.o = outputs_->data(), a.lse = sums_->data();
    body(*work_, a);
    o = outputs_->read(), lse = sums_->read();
  }

  // Of query i, head h and the cache's row, in double.
  double logit(int32_t i, int32_t h, int32_t row) const {
    const size_t dim = static_cast<size_t>(dim_), at = (static_cast<size_t>(i) * static_cast<size_t>(kv_heads_ * group_) + static_cast<size_t>(h)) * dim;
    const size_t key = (static_cast<size_t>(h / group_) * static_cast<size_t>(length_) + static_cast<size_t>(row)) * dim;
    double dot = 0;
    for (size_t d = 0; d < dim; d++) dot += static_cast<double>(q[at + d]) * static_cast<double>(keys_[key + d]);
    dot /= std::sqrt(static_cast<double>(dim_));
    return softcap_ > 0 ? static_cast<double>(softcap_) * std::tanh(dot / static_cast<double>(softcap_)) : dot;
  }

  // bias(query, head, row): what is added to the logit, -INFINITY where the row is not seen.
  template <class F>
  void expect(const char* what, F&& bias) const {
    const double unit = dtype_ == KVASIR_F32 ? 3e-6 : 2.5e-3;
    double off = 0, size = 0;
    for (int32_t i = 0; i < n_; i++) {
      for (int32_t h = 0; h < kv_heads_ * group_; h++) {
        const size_t at = static_cast<size_t>(i) * static_cast<size_t>(kv_heads_ * group_) + static_cast<size_t>(h);
        double sum = 0, most = -INFINITY;
        std::vector<double> logits(static_cast<size_t>(length_)), want(static_cast<size_t>(dim_));
        for (int32_t row = 0; row < length_; row++) {
          logits[static_cast<size_t>(row)] = logit(i, h, row) + bias(i, h, row);
          most = std::max(most, logits[static_cast<size_t>(row)]);
        }
        for (int32_t row = 0; row < length_ && most > -INFINITY; row++) {
          const double weight = std::exp(logits[static_cast<size_t>(row)] - most);
          sum += weight;
          const size_t value = (static_cast<size_t>(h / group_) * static_cast<size_t>(length_) + static_cast<size_t>(row)) * static_cast<size_t>(dim_);
          for (size_t d = 0; d < want.size(); d++) want[d] += weight * static_cast<double>(values_[value + d]);
        }
        const double l = sum > 0 ? most + std::log(sum) : -INFINITY;
        const double got = static_cast<double>(lse[at]);
        const bool same = l == -INFINITY ? got == l : std::fabs(got - l) <= unit * std::max(1.0, std::fabs(l)) * 4;
        if (!same) kvasir_test::fail(__FILE__, __LINE__, name(what) + ": lse is " + std::to_string(got) + ", expected " + std::to_string(l));
        for (size_t d = 0; d < want.size(); d++) {
          const double expected = sum > 0 ? want[d] / sum : 0, x = static_cast<double>(o[at * static_cast<size_t>(dim_) + d]);
          off += (x - expected) * (x - expected), size += expected * expected;
          if (sum == 0 && x != 0) kvasir_test::fail(__FILE__, __LINE__, name(what) + ": output of nothing is not 0");
        }
      }
    }
    if (!(std::sqrt(off) <= unit * std::sqrt(size))) {
      kvasir_test::fail(__FILE__, __LINE__, name(what) + ": off by " + std::to_string(std::sqrt(off / size)) + " of its norm");
    }
  }

 private:
  std::string name(const char* what) const {
    return std::string(what) + " type " + std::to_string(dtype_) + " n " + std::to_string(n_) + " length " + std::to_string(length_) +
           " kv heads " + std::to_string(kv_heads_) + " group " + std::to_string(group_) + " dim " + std::to_string(dim_);
  }

  // Rows as the cache has them; those behind `rows` hold what must not matter. Widened: what they stand for.
  const char* store(std::mt19937& random, std::vector<float>& widened, int32_t from, int32_t rows, int32_t capacity, const float** scales) {
    std::normal_distribution<float> bell;
    const size_t dim = static_cast<size_t>(dim_), all = static_cast<size_t>(kv_heads_) * static_cast<size_t>(capacity);
    // NaN in every type that has one.
    std::vector<uint8_t> stored(all * dim * (dtype_ == KVASIR_F32 ? 4 : dtype_ == KVASIR_F16 ? 2 : 1), 0xff);
    std::vector<float> factors(all, NAN);
    for (size_t h = 0; h < static_cast<size_t>(kv_heads_); h++) {
      for (size_t r = 0; r < static_cast<size_t>(rows); r++) {
        const size_t row = h * static_cast<size_t>(capacity) + r;
        const float scale = factors[row] = 0.01f * (1.0f + 0.5f * static_cast<float>(r % 5));
        for (size_t d = 0; d < dim; d++) {
          float x = bell(random);
          const size_t at = row * dim + d;
          if (dtype_ == KVASIR_F32) std::memcpy(&stored[4 * at], &x, 4);
          if (dtype_ == KVASIR_F16) {
            const uint16_t half = test_half(x);
            std::memcpy(&stored[2 * at], &half, 2);
            x = test_widened(half);
          }
          if (dtype_ == KVASIR_I8) {
            const int8_t code = static_cast<int8_t>(std::clamp(std::lround(x * 60.0f), -127l, 127l));
            stored[at] = static_cast<uint8_t>(code);
            x = static_cast<float>(code) * scale;
          }
          widened[(h * static_cast<size_t>(length_) + static_cast<size_t>(from) + r) * dim + d] = x;
        }
      }
    }
    rows_.emplace_back(*runtime, stored);
    if (dtype_ == KVASIR_I8) {
      scales_.emplace_back(*runtime, factors);
      *scales = scales_.back().data();
    }
    return reinterpret_cast<const char*>(rows_.back().data());
  }

  int32_t dtype_, n_, length_, kv_heads_, group_, dim_, start_;
  float softcap_;
  std::vector<float> keys_, values_;  // [kv_heads, length, dim]
  std::vector<float> q;
  std::vector<DeviceArray<uint8_t>> rows_;
  std::vector<DeviceArray<float>> scales_;
  std::optional<DeviceArray<float>> queries_, outputs_, sums_;
  std::optional<DeviceScratch> work_;
  std::vector<KeySegment> segments_;
};

// Lists of about 40 % of the rows, each third one empty.
class TestHits {
 public:
  TestHits(Runtime& runtime, int32_t lists, int32_t length, int32_t start, bool biased, uint32_t seed)
      : length_(length), capacity_(length + 3), biased_(biased),
        tokens_(static_cast<size_t>(lists * capacity_), -5), counts_(static_cast<size_t>(lists)),
        biases_(tokens_.size(), NAN), all_(static_cast<size_t>(lists * length), -INFINITY) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform;
    for (int32_t l = 0; l < lists; l++) {
      int32_t& count = counts_[static_cast<size_t>(l)];
      for (int32_t row = 0; row < length && l % 3 != 2; row++) {
        if (uniform(random) > 0.4f) continue;
        const float bias = biased ? 4 * uniform(random) : 0;
        tokens_[static_cast<size_t>(l * capacity_ + count)] = start + row;
        biases_[static_cast<size_t>(l * capacity_ + count++)] = bias;
        all_[static_cast<size_t>(l * length + row)] = static_cast<double>(bias);
      }
    }
    device_tokens_.emplace(runtime, tokens_), device_counts_.emplace(runtime, counts_), device_biases_.emplace(runtime, biases_);
  }
  HitLists lists() const {
    return {static_cast<int32_t>(counts_.size()), capacity_, device_tokens_->data(), device_counts_->data(),
            biased_ ? device_biases_->data() : nullptr};
  }
  double bias(int32_t list, int32_t row) const { return all_[static_cast<size_t>(list * length_ + row)]; }

 private:
  int32_t length_, capacity_;
  bool biased_;
  std::vector<int32_t> tokens_, counts_;
  std::vector<float> biases_;
  std::vector<double> all_;
  std::optional<DeviceArray<int32_t>> device_tokens_, device_counts_;
  std::optional<DeviceArray<float>> device_biases_;
};

}  // namespace kvasir
