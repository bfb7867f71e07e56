// Attention weights of observed queries, which methods that keep what was attended to vote with.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "method.h"

namespace kvasir {

// What was visible to queries that were observed: all rows of the cache, whether the index holds them or not.
inline HeadKeys visible_keys(const HeadKeys& keys, int32_t last_position) {
  const int32_t begin = keys.rows->begin(), end = std::min(last_position + 1, keys.rows->end());
  return {keys.environment, keys.shape, keys.rows, keys.head, begin, end - begin};
}

// weights [group, seen]: softmax over the first `seen` visible keys of the group's queries q [group, dim], without
// those that is_gone(g, i) says.
template <class IsGone>
void attention_weights(std::vector<float>& weights, const HeadKeys& visible, const float* q, int32_t seen, IsGone&& is_gone) {
  const size_t n = static_cast<size_t>(seen);
  const float cap = visible.shape->softcap;
  weights.resize(n * static_cast<size_t>(visible.group()));
  visible.score(weights.data(), n, q, visible.group(), 0, seen);
  for (int32_t g = 0; g < visible.group(); g++) {
    float* w = weights.data() + static_cast<size_t>(g) * n;
    for (int32_t i = 0; i < seen; i++) {
      if (cap > 0) w[i] = cap * std::tanh(w[i] / cap);
      if (is_gone(g, i)) w[i] = -std::numeric_limits<float>::infinity();
    }
    const float total = static_cast<float>(log_sum_exp(w, seen));
    for (int32_t i = 0; i < seen; i++) w[i] = std::exp(w[i] - total);
  }
}

}  // namespace kvasir
