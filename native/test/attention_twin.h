// A layer's cache made through the public door, and attention written from its definition: the oracle of the tests.
#pragma once
#include <algorithm>

#include "fixture.h"

namespace kvasir_test {

struct AttentionCase {
  int32_t heads, kv_heads, head_dim;
  int32_t n, total;
  int32_t window = 0;
  float softcap = 0;
  float scale = 0.125f;
};

// k, v [total, kvHeads, headDim] in segments of the given sizes; the last one has room to spare.
struct Cache {
  Context& c;
  int32_t dtype, kv_heads, head_dim;
  std::vector<int32_t> table;

  Cache(Context& context, int32_t type, int32_t heads, int32_t dim)
      : c(context), dtype(type), kv_heads(heads), head_dim(dim) {}

  void add_segment(int32_t capacity) {
    const int32_t start = table.empty() ? 0 : end();
    const std::vector<int32_t> rows = {kv_heads, capacity, head_dim};
    table.insert(table.end(), {start, 0, int32_t(c.make(dtype, rows, KVASIR_SEQUENCE)),
                               int32_t(c.make(dtype, rows, KVASIR_SEQUENCE)), 0, 0});
    if (dtype != KVASIR_I8) return;
    table[table.size() - 2] = int32_t(c.make(KVASIR_F32, {kv_heads, capacity}, KVASIR_SEQUENCE));
    table[table.size() - 1] = int32_t(c.make(KVASIR_F32, {kv_heads, capacity}, KVASIR_SEQUENCE));
  }
  int32_t* last() { return table.data() + table.size() - KVASIR_SEGMENT_FIELDS; }
  int32_t end() { return last()[0] + last()[1]; }
  int32_t segments() const { return static_cast<int32_t>(table.size()) / KVASIR_SEGMENT_FIELDS; }

  // Rows [from, from + count) of k, v to the last segment.
  void append(const std::vector<float>& k, const std::vector<float>& v, int32_t from, int32_t count) {
    const size_t width = static_cast<size_t>(kv_heads) * head_dim;
    const auto rows = [&](const std::vector<float>& x) {
      return c.floats({count, kv_heads, head_dim},
                      std::vector<float>(x.begin() + from * width, x.begin() + (from + count) * width), from % 2 == 1);
    };
    EXPECT_OK(kvasir_append(c, last(), last()[1], rows(k), rows(v)));
    last()[1] += count;
  }
  void fill(const std::vector<float>& k, const std::vector<float>& v, int32_t total,
            const std::vector<int32_t>& sizes) {
    int32_t at = 0;
    for (size_t i = 0; at < total; i++) {
      const int32_t size = std::min(sizes[i % sizes.size()], total - at);
      add_segment(size + static_cast<int32_t>(i % 3));
      append(k, v, at, size / 2);
      append(k, v, at + size / 2, size - size / 2);
      at += size;
    }
  }

  std::vector<float> attend(const AttentionCase& a, const std::vector<float>& q) {
    const size_t count = q.size();
    const std::vector<int32_t> shape = {static_cast<int32_t>(count / a.heads / a.head_dim), a.heads, a.head_dim};
    const kvasir_tensor from = c.floats(shape, q, true), out = c.make_misaligned(KVASIR_F32, shape);
    EXPECT_OK(kvasir_attend_causal(c, out, from, table.data(), segments(), a.scale, a.softcap, a.window));
    return c.read(out, count);
  }

  // What the cache holds, widened: [total, kvHeads, headDim].
  std::vector<float> stored(bool keys) {
    std::vector<float> out(static_cast<size_t>(end()) * kv_heads * head_dim);
    for (int32_t s = 0; s < segments(); s++) {
      const int32_t* f = table.data() + s * KVASIR_SEGMENT_FIELDS;
      // As fill() made it; a table does not say.
      const int32_t capacity = f[1] + (s % 3);
      const size_t count = static_cast<size_t>(kv_heads) * capacity * head_dim;
      std::vector<float> rows, scales;
      if (dtype == KVASIR_I8) {
        const std::vector<int32_t> codes = c.read<int32_t>(kvasir_tensor(f[keys ? 2 : 3]), count);
        rows.assign(codes.begin(), codes.end());
        scales = c.read(kvasir_tensor(f[keys ? 4 : 5]), static_cast<size_t>(kv_heads) * capacity);
      } else {
        rows = c.read(kvasir_tensor(f[keys ? 2 : 3]), count);
      }
      for (int32_t h = 0; h < kv_heads; h++)
        for (int32_t i = 0; i < f[1]; i++)
          for (int32_t x = 0; x < head_dim; x++) {
            const size_t row = static_cast<size_t>(h) * capacity + i;
            out[(static_cast<size_t>(f[0] + i) * kv_heads + h) * head_dim + x] =
                rows[row * head_dim + x] * (scales.empty() ? 1.0f : scales[row]);
          }
    }
    return out;
  }
};

// Not instrumented: the sanitizers are after the library, and ten times slower here.
#define KVASIR_ORACLE __attribute__((no_sanitize_address, no_sanitize_thread, no_sanitize_undefined))

// Attention by its definition, all arithmetic in T: double is the oracle, float the naive run that sets the tolerance.
template <class T>
KVASIR_ORACLE void twin_head(const AttentionCase& a, T* to, T* weights, const float* query, const float* k,
                             const float* v, int32_t position) {
  const int32_t first = a.window > 0 && position >= a.window ? position - a.window + 1 : 0;
  const size_t d = a.head_dim, stride = d * a.kv_heads;
  T max = -INFINITY, sum = 0;
  for (int32_t p = first; p <= position; p++) {
    T dot = 0;
    for (size_t x = 0; x < d; x++) dot += T(query[x]) * T(k[p * stride + x]);
    dot *= a.scale;
    if (a.softcap != 0) dot = a.softcap * std::tanh(dot / a.softcap);
    weights[p] = dot;
    if (dot > max) max = dot;
  }
  for (int32_t p = first; p <= position; p++) {
    const T weight = std::exp(weights[p] - max);
    for (size_t x = 0; x < d; x++) to[x] += weight * T(v[p * stride + x]);
    sum += weight;
  }
  for (size_t x = 0; x < d; x++) to[x] /= sum;
}

template <class T>
std::vector<T> twin(const AttentionCase& a, const std::vector<float>& q, const std::vector<float>& k,
                    const std::vector<float>& v) {
  std::vector<T> out(q.size()), weights(a.total);
  for (int32_t i = 0; i < a.n; i++) {
    for (int32_t h = 0; h < a.heads; h++) {
      const size_t row = (static_cast<size_t>(i) * a.heads + h) * a.head_dim;
      const size_t head = static_cast<size_t>(h / (a.heads / a.kv_heads)) * a.head_dim;
      twin_head(a, out.data() + row, weights.data(), q.data() + row, k.data() + head, v.data() + head,
                a.total - a.n + i);
    }
  }
  return out;
}

// Root of the mean square of got - want, over that of want; infinite where a number is missing.
template <class A>
double relative_error(const std::vector<A>& got, const std::vector<double>& want) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); i++) {
    if (!std::isfinite(got[i])) return INFINITY;
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace kvasir_test
