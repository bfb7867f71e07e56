// What full attention says about recorded queries, in double precision, and how far what an index returned is from it.
//
// A query at position p attends its first 4 keys and its last 512 exactly, as the engine does; an index is asked about the rest.
#pragma once
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "half.h"
#include "recorded.h"

namespace kvasir_bench {

constexpr uint32_t kSinks = 4, kWindow = 512;

inline double thread_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

inline std::vector<float> widen(const uint16_t* from, size_t count) {
  std::vector<float> out(count);
  for (size_t i = 0; i < count; i++) out[i] = kvasir::half_to_float(from[i]);
  return out;
}

// Rows of one KV head as floats.
struct HeadRows {
  uint32_t dim, group;
  double scale, softcap;
  std::vector<float> keys, values;  // [tokens, dim]

  HeadRows(const RecordedLayer& layer, uint32_t kv_head)
      : dim(layer.head_dim), group(layer.group()), scale(layer.scale), softcap(layer.softcap),
        keys(widen(layer.key(kv_head, 0), static_cast<size_t>(layer.tokens) * dim)),
        values(widen(layer.value(kv_head, 0), static_cast<size_t>(layer.tokens) * dim)) {
    if (dim % 8 != 0) stop("of this layer", "heads of a multiple of 8 dimensions are needed");
  }

  double score(const float* q, uint32_t position) const {
    const float* key = keys.data() + static_cast<size_t>(position) * dim;
    double lanes[8] = {};
    for (uint32_t j = 0; j < dim; j += 8) {
      for (uint32_t l = 0; l < 8; l++) lanes[l] += static_cast<double>(q[j + l]) * static_cast<double>(key[j + l]);
    }
    const double dot = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
    return softcap == 0 ? dot * scale : softcap * std::tanh(dot * scale / softcap);
  }
};

// One decode query of one KV head's group.
struct Truth {
  uint32_t position = 0, from = kSinks, to = 0;  // the index is asked about [from, to)
  std::vector<float> q;                          // [group, dim]
  std::vector<std::vector<double>> scores;       // [group][position + 1]
  std::vector<double> lse, exact;                // [group]: of all keys, of what is attended anyway
  std::vector<float> exact_f;                    // the same as the library takes it
  std::vector<std::vector<double>> sorted;       // [group][rest]: the rest's scores, falling
  std::vector<double> output;                    // [group, dim]
  std::vector<double> exact_output;              // [group, dim]: unnormalized, times exp(-exact)

  // `end`: the index holds [4, end) and the window begins there; 0: the window is 512.
  Truth(const HeadRows& rows, const RecordedLayer& layer, uint32_t kv_head, uint32_t query, uint32_t end = 0) {
    position = layer.tokens - layer.decoded + query;
    to = end != 0 ? end : std::max(kSinks, position + 1 - std::min(position + 1, kWindow));
    const uint32_t group = rows.group, dim = rows.dim, seen = position + 1;
    q = widen(layer.decode_query(query, kv_head * group), static_cast<size_t>(group) * dim);
    output.resize(static_cast<size_t>(group) * dim);
    exact_output.resize(output.size());
    for (uint32_t g = 0; g < group; g++) {
      std::vector<double> s(seen);
      for (uint32_t i = 0; i < seen; i++) s[i] = rows.score(&q[static_cast<size_t>(g) * dim], i);
      const auto attended = [&](uint32_t i) { return i < from || i >= to; };
      lse.push_back(log_sum_exp(s, [](uint32_t) { return true; }));
      exact.push_back(log_sum_exp(s, attended));
      exact_f.push_back(static_cast<float>(exact.back()));
      for (uint32_t i = 0; i < seen; i++) {
        const double w = std::exp(s[i] - lse[g]), e = attended(i) ? std::exp(s[i] - exact[g]) : 0;
        const float* v = rows.values.data() + static_cast<size_t>(i) * dim;
        if (w < 1e-14 && e < 1e-14) continue;
        for (uint32_t j = 0; j < dim; j++) {
          output[g * dim + j] += w * v[j];
          exact_output[g * dim + j] += e * v[j];
        }
      }
      std::vector<double> rest(s.begin() + from, s.begin() + to);
      const size_t top = std::min<size_t>(rest.size(), 4096);
      std::partial_sort(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(top), rest.end(), std::greater<double>());
      rest.resize(top);
      sorted.push_back(std::move(rest));
      scores.push_back(std::move(s));
    }
  }

  // Share of the k best keys of the rest that `tokens` holds, by score: ties and rounding of single precision are forgiven.
  double recall(uint32_t g, const int32_t* tokens, int32_t count, uint32_t k) const {
    k = std::min<uint32_t>(k, static_cast<uint32_t>(sorted[g].size()));
    if (k == 0) return 1;
    const double kth = sorted[g][k - 1], slack = 1e-6 * std::max(1.0, std::fabs(kth) + std::fabs(sorted[g][0]));
    uint32_t found = 0;
    for (int32_t i = 0; i < count; i++) found += scores[g][static_cast<size_t>(tokens[i])] >= kth - slack;
    return static_cast<double>(std::min(found, k)) / k;
  }

  // Share of the rest's softmax mass that `tokens` holds.
  double mass(uint32_t g, const int32_t* tokens, int32_t count) const {
    double held = 0, rest = 0;
    for (int32_t i = 0; i < count; i++) held += std::exp(scores[g][static_cast<size_t>(tokens[i])] - lse[g]);
    rest = 1 - std::exp(exact[g] - lse[g]);
    return rest <= 1e-12 ? 1 : std::min(1.0, held / rest);
  }

  // Relative L2 distance of what is attended exactly plus `tokens` (with `bias`, or none) from full attention.
  double error(const HeadRows& rows, uint32_t g, const int32_t* tokens, const float* bias, int32_t count) const {
    const uint32_t dim = rows.dim;
    double sum = std::exp(exact[g] - lse[g]);
    std::vector<double> o(dim);
    for (uint32_t j = 0; j < dim; j++) o[j] = sum * exact_output[g * dim + j];
    for (int32_t i = 0; i < count; i++) {
      const double b = bias == nullptr ? 0 : static_cast<double>(bias[i]);
      const double w = std::exp(scores[g][static_cast<size_t>(tokens[i])] + b - lse[g]);
      const float* v = rows.values.data() + static_cast<size_t>(tokens[i]) * dim;
      sum += w;
      for (uint32_t j = 0; j < dim; j++) o[j] += w * v[j];
    }
    double difference = 0, norm = 0;
    for (uint32_t j = 0; j < dim; j++) {
      const double expected = output[g * dim + j];
      difference += (o[j] / sum - expected) * (o[j] / sum - expected);
      norm += expected * expected;
    }
    return std::sqrt(difference / norm);
  }

 private:
  template <class Predicate>
  static double log_sum_exp(const std::vector<double>& s, Predicate counts) {
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (uint32_t i = 0; i < s.size(); i++) if (counts(i)) max = std::max(max, s[i]);
    for (uint32_t i = 0; i < s.size(); i++) if (counts(i)) sum += std::exp(s[i] - max);
    return max + std::log(sum);
  }
};

// Reads more memory than any cache holds, so that what is timed next finds none of its own.
class Evictor {
 public:
  explicit Evictor(size_t bytes) : memory_(bytes / 8, 1) {}
  uint64_t run() {
    uint64_t sum = 0;
    for (size_t i = 0; i < memory_.size(); i += 8) sum += memory_[i]++;
    return sum;
  }

 private:
  std::vector<uint64_t> memory_;
};

inline double median(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

inline double mean(const std::vector<double>& values) {
  double sum = 0;
  for (double v : values) sum += v;
  return values.empty() ? std::numeric_limits<double>::quiet_NaN() : sum / static_cast<double>(values.size());
}

}  // namespace kvasir_bench
