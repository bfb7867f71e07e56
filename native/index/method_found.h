// What a running search of a method knows of one KV head.
#pragma once
#include <vector>

#include "method.h"

namespace kvasir {

struct MethodIndex::Found {
  int32_t units = 0, entries = 0;  // entries: units, then keys that no unit covers
  size_t stride = 0;               // entries rounded up to 32
  std::vector<float> scores;       // [group, stride]
  std::vector<float> shared;       // [stride], where heads share
  std::vector<float> memory;       // of selections
  std::vector<Picked> rows;        // by head of the group, or one where an error is the goal
  PickWork work;

  // Sizes what sampling and selecting need for `n` scores.
  float* room(size_t floats) {
    if (memory.size() < floats) memory.resize(floats);
    return memory.data();
  }
};

// What heads share of scores [group, stride] over n entries: out [n].
void share_scores(float* out, const float* scores, size_t stride, int32_t n, int32_t group, Sharing sharing);

}  // namespace kvasir
