#include "arguments.h"

#include <cmath>

#include "error.h"
#include "kvasir_index.h"

namespace kvasir {
namespace {

constexpr int32_t kMaxHeads = 4096, kMaxDim = 4096;

int32_t whole(double value, int32_t low, int32_t high, const char* what) {
  if (!(value >= low && value <= high) || value != std::floor(value)) {
    fail(KVASIR_ARGUMENT, "Cannot create index: %s is %g, expected a whole number from %d to %d", what, value, low, high);
  }
  return static_cast<int32_t>(value);
}

}  // namespace

void copy_whole(char* buf, int32_t cap, const std::string& text, const char* what) {
  if (buf == nullptr || cap <= static_cast<int32_t>(text.size())) {
    fail(KVASIR_CAPACITY, "Cannot write %s: buffer of %d bytes, needs %zu", what, cap, text.size() + 1);
  }
  copy_text(buf, cap, text.c_str());
}

LayerShape parse_shape(const double* shape, const double* frequencies) {
  if (shape == nullptr) fail(KVASIR_ARGUMENT, "Cannot create index: shape is missing");
  LayerShape s;
  s.heads = whole(shape[0], 1, kMaxHeads, "heads");
  s.kv_heads = whole(shape[1], 1, kMaxHeads, "kvHeads");
  s.head_dim = whole(shape[2], 1, kMaxDim, "headDim");
  if (s.heads % s.kv_heads != 0) {
    fail(KVASIR_ARGUMENT, "Cannot create index: %d heads are no multiple of %d kvHeads", s.heads, s.kv_heads);
  }
  if (!std::isfinite(shape[3]) || shape[3] <= 0) fail(KVASIR_ARGUMENT, "Cannot create index: scale is %g", shape[3]);
  if (!std::isfinite(shape[4]) || shape[4] < 0) fail(KVASIR_ARGUMENT, "Cannot create index: softcap is %g", shape[4]);
  s.scale = static_cast<float>(shape[3]);
  s.softcap = static_cast<float>(shape[4]);
  const int32_t dims = whole(shape[5], 0, s.head_dim, "rotated dims");
  if (dims % 2 != 0) fail(KVASIR_ARGUMENT, "Cannot create index: rotated dims are %d, expected even", dims);
  s.neighbours = whole(shape[6], 0, 1, "pairing") == KVASIR_INDEX_NEIGHBOURS;
  if (!(shape[7] >= 0 && shape[7] <= 4294967295.0)) fail(KVASIR_ARGUMENT, "Cannot create index: seed is %g", shape[7]);
  s.seed = static_cast<uint32_t>(shape[7]);
  if (dims > 0 && frequencies == nullptr) fail(KVASIR_ARGUMENT, "Cannot create index: frequencies are missing");
  for (int32_t i = 0; i < dims / 2; i++) {
    if (!std::isfinite(frequencies[i])) fail(KVASIR_ARGUMENT, "Cannot create index: frequency %d is not finite", i);
    s.frequencies.push_back(frequencies[i]);
  }
  return s;
}

void append_segment(const LayerShape& shape, Rows& rows, std::shared_ptr<const Segment> segment) {
  if (segment->kv_heads() != shape.kv_heads || segment->head_dim() != shape.head_dim) {
    fail(KVASIR_ARGUMENT, "Cannot append segment: %d heads of %d, expected %d of %d", segment->kv_heads(),
         segment->head_dim(), shape.kv_heads, shape.head_dim);
  }
  rows.append(std::move(segment));
}

Goal parse_goal(const double* goal) {
  if (goal == nullptr) fail(KVASIR_ARGUMENT, "Cannot search: goal is missing");
  Goal g;
  if (goal[0] != KVASIR_GOAL_ERROR && goal[0] != KVASIR_GOAL_TOPK) {
    fail(KVASIR_ARGUMENT, "Cannot search: unknown goal %g", goal[0]);
  }
  g.kind = goal[0] == KVASIR_GOAL_ERROR ? Goal::kError : Goal::kTopk;
  g.value = goal[1];
  if (g.kind == Goal::kError && !(g.value >= 0 && g.value <= 1)) {
    fail(KVASIR_ARGUMENT, "Cannot search: error is %g, expected 0 to 1", g.value);
  }
  if (g.kind == Goal::kTopk && !(g.value >= 1 && g.value <= 4096 && g.value == std::floor(g.value))) {
    fail(KVASIR_ARGUMENT, "Cannot search: topk is %g, expected a whole number from 1 to 4096", g.value);
  }
  if (goal[2] != KVASIR_TAIL_NONE && goal[2] != KVASIR_TAIL_SAMPLE && goal[2] != KVASIR_TAIL_SURROGATE) {
    fail(KVASIR_ARGUMENT, "Cannot search: unknown tail %g", goal[2]);
  }
  g.sample_tail = goal[2] == KVASIR_TAIL_SAMPLE;
  g.surrogate_tail = goal[2] == KVASIR_TAIL_SURROGATE;
  if (!(goal[3] >= 0 && goal[3] <= 4294967295.0) || goal[3] != std::floor(goal[3])) {
    fail(KVASIR_ARGUMENT, "Cannot search: draw is %g, expected 32 bits", goal[3]);
  }
  g.draw = static_cast<uint32_t>(goal[3]);
  return g;
}

}  // namespace kvasir
