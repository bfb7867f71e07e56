// A layer that samples are drawn from.
#pragma once
#include <memory>
#include <vector>

#include "index_fixture.h"
#include "sampler.h"

namespace kvasir_test {

using kvasir::Codes;

// Keys and values of one layer with a mean, sinks and a few heavy keys, and one step's queries.
struct Drawn {
  Layer layer;
  kvasir::LayerShape shape;
  kvasir::Rows rows;
  kvasir::Pool pool;
  std::vector<kvasir::Scratch> scratch;
  kvasir::Environment environment;
  Codes codes;
  std::vector<float> q, exact;
  int32_t capacity;
  kvasir::SampleMemory samples;

  Drawn(const char* isa, Codes::Kind kind, int32_t group, int32_t kv_heads, int32_t n, int32_t dim, int threads = 1,
        float spread = 1, uint64_t seed = 3)
      : layer(group * kv_heads, kv_heads, n, dim, 11), pool(threads), scratch(static_cast<size_t>(threads)),
        codes(&kvasir::find_index_isa(isa), kind, kv_heads, dim), capacity(n) {
    Random random(seed);
    layer.fill(random);
    const std::vector<float> mean = random.normals(static_cast<size_t>(dim), 2);
    for (int32_t h = 0; h < kv_heads; h++) {
      for (int32_t i = 0; i < n; i++) {
        for (int32_t x = 0; x < dim; x++) {
          layer.key(h, i)[x] = (layer.key(h, i)[x] * (i % 37 == 0 ? 2.0f : 1.0f) + mean[static_cast<size_t>(x)]) * spread;
        }
      }
    }
    const int32_t desc[KVASIR_SEGMENT_DESC] = {11, KVASIR_F32, kv_heads, n, dim};
    rows.append(std::make_shared<kvasir::Segment>(desc, layer.keys, layer.values, nullptr, nullptr));
    codes.append(rows, 11, n, nullptr);
    environment.isa = &kvasir::find_index_isa(isa);
    environment.pool = &pool;
    environment.scratch = &scratch, environment.samples = &samples;
    shape.heads = layer.heads, shape.kv_heads = kv_heads, shape.head_dim = dim;
    shape.scale = 1 / std::sqrt(static_cast<float>(dim));
    q = random.normals(static_cast<size_t>(layer.heads * dim), 1.5f);
    exact.assign(static_cast<size_t>(layer.heads), 0);
    for (int32_t h = 0; h < layer.heads; h++) exact[static_cast<size_t>(h)] = static_cast<float>(logit(h, 0)) + 2;
  }

  double logit(int32_t head, int32_t i) {
    double dot = 0;
    const float* k = layer.key(head / shape.group(), i);
    for (int32_t x = 0; x < layer.dim; x++) dot += double(q[static_cast<size_t>(head * layer.dim + x)]) * double(k[x]);
    dot *= double(shape.scale);
    return shape.softcap > 0 ? double(shape.softcap) * std::tanh(dot / double(shape.softcap)) : dot;
  }

  Found draw(double error, uint32_t number, int32_t count, int32_t room = -1) {
    Found f;
    f.capacity = room < 0 ? capacity : room;
    f.tokens.assign(static_cast<size_t>(shape.kv_heads * f.capacity) + 1, -1);
    f.bias.assign(f.tokens.size(), NAN);
    f.counts.assign(static_cast<size_t>(shape.kv_heads), -1);
    f.errors.assign(static_cast<size_t>(shape.kv_heads), NAN);
    kvasir::Goal goal;
    goal.value = error, goal.draw = number;
    kvasir::Report report;
    std::vector<int32_t> heads;
    for (int32_t h = 0; h < shape.kv_heads; h++) heads.push_back(h);
    kvasir::sample_by_error(environment, shape, codes, rows, count, heads.data(), shape.kv_heads, {q.data(), exact.data(), goal},
                            {f.capacity, f.tokens.data(), f.bias.data(), f.counts.data(), f.errors.data()}, report);
    f.report[1] = report.keys_scored, f.report[2] = report.keys_kept, f.report[3] = report.bytes_read;
    return f;
  }
};

}  // namespace kvasir_test
