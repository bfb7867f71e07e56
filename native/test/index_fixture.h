// Contexts of the index library over generated caches, for its tests.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "fixture.h"
#include "harness.h"
#include "kvasir_index.h"
#include "memory.h"

namespace kvasir_test {

inline std::string index_error() {
  char text[512];
  kvasir_index_last_error(text, sizeof text);
  return text;
}

#define EXPECT_INDEX_OK(call)                                                                             \
  do {                                                                                                    \
    const int32_t status_ = (call);                                                                       \
    if (status_ != KVASIR_OK) kvasir_test::fail(__FILE__, __LINE__, #call ": " + kvasir_test::index_error()); \
  } while (0)
#define EXPECT_INDEX_FAILS(call, status, part)                                                                \
  do {                                                                                                        \
    EXPECT_EQ((call), (status));                                                                              \
    if (kvasir_test::index_error().find(part) == std::string::npos)                                           \
      kvasir_test::fail(__FILE__, __LINE__, #call " says \"" + kvasir_test::index_error() + "\", expected \"" + (part) + "\""); \
  } while (0)

// Queries of the tokens (or null), then the tokens.
inline int32_t index_add(kvasir_index_context* c, kvasir_index index, int32_t start, int32_t count, const float* queries) {
  const int32_t status = queries == nullptr ? KVASIR_OK : kvasir_index_observe(c, index, start, count, queries);
  return status != KVASIR_OK ? status : kvasir_index_add(c, index, start, count);
}

// f32 keys and values of one layer in one segment, [kv_heads, capacity, dim].
struct Layer {
  int32_t heads, kv_heads, capacity, dim, start;
  kvasir_memory *keys, *values;

  Layer(int32_t heads_, int32_t kv_heads_, int32_t capacity_, int32_t dim_, int32_t start_ = 0)
      : heads(heads_), kv_heads(kv_heads_), capacity(capacity_), dim(dim_), start(start_), keys(block()), values(block()) {}
  ~Layer() {
    keys->release(keys);
    values->release(values);
  }
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;

  float* key(int32_t head, int32_t row) { return row_of(keys, head, row); }
  float* value(int32_t head, int32_t row) { return row_of(values, head, row); }

  void fill(Random& random) {
    for (int32_t h = 0; h < kv_heads; h++) {
      for (int32_t r = 0; r < capacity; r++) {
        const std::vector<float> k = random.normals(static_cast<size_t>(dim)), v = random.normals(static_cast<size_t>(dim));
        std::memcpy(key(h, r), k.data(), k.size() * 4);
        std::memcpy(value(h, r), v.data(), v.size() * 4);
      }
    }
  }

 private:
  size_t bytes() const { return sizeof(float) * static_cast<size_t>(kv_heads) * static_cast<size_t>(capacity) * static_cast<size_t>(dim); }
  kvasir_memory* block() { return kvasir::share_memory(kvasir::aligned_allocate(bytes()), bytes()); }
  float* row_of(kvasir_memory* m, int32_t head, int32_t row) {
    return static_cast<float*>(m->data) + (static_cast<size_t>(head) * static_cast<size_t>(capacity) + static_cast<size_t>(row)) * static_cast<size_t>(dim);
  }
};

struct IndexContext {
  kvasir_index_context* ctx;
  explicit IndexContext(const char* options = "threads=2") : ctx(kvasir_index_context_create(options, nullptr)) {
    if (ctx == nullptr) kvasir_test::fail(__FILE__, __LINE__, index_error());
  }
  ~IndexContext() { kvasir_index_context_destroy(ctx); }
  operator kvasir_index_context*() const { return ctx; }

  kvasir_segment segment(const Layer& layer) {
    const int32_t desc[KVASIR_SEGMENT_DESC] = {layer.start, KVASIR_F32, layer.kv_heads, layer.capacity, layer.dim};
    kvasir_segment id = 0;
    EXPECT_INDEX_OK(kvasir_segment_create(ctx, &id, desc, layer.keys, layer.values, nullptr, nullptr));
    return id;
  }
  kvasir_index index(const std::string& spec, const Layer& layer, double scale) {
    const double shape[KVASIR_INDEX_SHAPE] = {double(layer.heads), double(layer.kv_heads), double(layer.dim), scale, 0, 0, 0, 7};
    kvasir_index id = 0;
    EXPECT_INDEX_OK(kvasir_index_create(ctx, &id, spec.c_str(), shape, nullptr));
    EXPECT_INDEX_OK(kvasir_index_append_segment(ctx, id, segment(layer)));
    return id;
  }
};

struct Found {
  std::vector<int32_t> tokens, counts;
  std::vector<float> bias, errors;
  double report[KVASIR_REPORT];
  int32_t capacity = 0;
};

inline Found search(IndexContext& c, kvasir_index index, const Layer& layer, const double* goal, const float* q,
                    const float* exact) {
  Found f;
  const int32_t rows = goal[0] == KVASIR_GOAL_ERROR ? layer.kv_heads : layer.heads;
  f.capacity = layer.capacity;
  f.tokens.resize(static_cast<size_t>(rows * f.capacity));
  f.bias.resize(f.tokens.size());
  f.counts.resize(static_cast<size_t>(rows));
  f.errors.resize(static_cast<size_t>(rows));
  EXPECT_INDEX_OK(kvasir_index_search(c, index, f.tokens.data(), f.bias.data(), f.counts.data(), f.errors.data(), f.report,
                                      f.capacity, goal, q, exact, nullptr, nullptr));
  return f;
}

// Mean and its standard error.
struct Moments {
  double sum = 0, squares = 0, count = 0;
  void add(double x) { sum += x, squares += x * x, count++; }
  double mean() const { return sum / count; }
  double error() const { return std::sqrt((squares / count - mean() * mean()) / (count - 1)); }
};

}  // namespace kvasir_test
