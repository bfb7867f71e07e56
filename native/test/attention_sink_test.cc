// What sampled queries of a prompt look at, against its definition in double precision.
#include <limits>

#include "attention_twin.h"

using namespace kvasir_test;

namespace {

struct Filled {
  std::vector<int32_t> tokens;
  std::vector<float> scores, sums;
};

struct SinkCase {
  AttentionCase a;
  int32_t every, k;
  int32_t first() const { return a.total - a.n; }
  int32_t queries() const { return (a.total + every - 1) / every - (first() + every - 1) / every; }
};

Filled fill(Context& c, Cache& cache, const SinkCase& s, const std::vector<float>& q) {
  const std::vector<int32_t> shape = {s.a.n, s.a.heads, s.a.head_dim}, best = {s.queries(), s.a.heads, s.k};
  const kvasir_tensor from = c.floats(shape, q, true), out = c.make_misaligned(KVASIR_F32, shape);
  const kvasir_tensor tokens = c.make(KVASIR_I32, best, KVASIR_SEQUENCE), scores = c.make_misaligned(KVASIR_F32, best);
  const std::vector<float> zeros(static_cast<size_t>(s.a.heads) * s.a.total);
  const kvasir_tensor sums = c.floats({s.a.heads, s.a.total}, zeros, true);
  EXPECT_OK(kvasir_attend_causal_sink(c, out, from, cache.table.data(), cache.segments(), s.a.scale, s.a.softcap, s.a.window,
                                      s.every, tokens, scores, sums));
  const size_t count = static_cast<size_t>(s.queries()) * s.a.heads * s.k;
  return {c.read<int32_t>(tokens, count), c.read(scores, count), c.read(sums, zeros.size())};
}

KVASIR_ORACLE std::vector<double> logits(const AttentionCase& a, const float* q, int32_t head, const std::vector<float>& k,
                                         int32_t position) {
  std::vector<double> all;
  for (int32_t p = a.window > 0 ? std::max(0, position - a.window + 1) : 0; p <= position; p++) {
    double dot = 0;
    const float* key = k.data() + (static_cast<size_t>(p) * a.kv_heads + head / (a.heads / a.kv_heads)) * a.head_dim;
    for (int32_t x = 0; x < a.head_dim; x++) dot += double(q[x]) * key[x];
    dot *= a.scale;
    all.push_back(a.softcap == 0 ? dot : a.softcap * std::tanh(dot / a.softcap));
  }
  return all;
}

void check(const SinkCase& s, int32_t dtype, const std::string& isa, uint64_t seed) {
  Random random(seed);
  const size_t width = static_cast<size_t>(s.a.kv_heads) * s.a.head_dim;
  const std::vector<float> q = random.normals(static_cast<size_t>(s.a.n) * s.a.heads * s.a.head_dim, 2);
  const std::vector<float> k = random.normals(s.a.total * width), v = random.normals(s.a.total * width);
  std::vector<float> first;
  for (int threads : {1, 3}) {
    Context c("threads=" + std::to_string(threads) + ",isa=" + isa);
    Cache cache(c, dtype, s.a.kv_heads, s.a.head_dim);
    cache.fill(k, v, s.a.total, {71, 1, 130, 700});
    const Filled got = fill(c, cache, s, q);
    if (threads == 1) first = got.sums;
    else EXPECT(first == got.sums);
    const std::vector<float> stored = cache.stored(true);
    std::vector<double> sums(got.sums.size());
    int32_t row = 0;
    for (int32_t i = 0; i < s.a.n; i++) {
      const int32_t position = s.first() + i;
      if (position % s.every != 0) continue;
      for (int32_t h = 0; h < s.a.heads; h++, row++) {
        const float* query = q.data() + (static_cast<size_t>(i) * s.a.heads + h) * s.a.head_dim;
        std::vector<double> all = logits(s.a, query, h, stored, position);
        const int32_t from = position + 1 - static_cast<int32_t>(all.size());
        const double max = *std::max_element(all.begin(), all.end());
        double total = 0;
        for (double x : all) total += std::exp(x - max);
        for (size_t p = 0; p < all.size(); p++) sums[static_cast<size_t>(h) * s.a.total + from + p] += std::exp(all[p] - max) / total;
        std::vector<double> best = all;
        std::sort(best.rbegin(), best.rend());
        bool good = true;
        for (int32_t j = 0; j < s.k; j++) {
          const int32_t token = got.tokens[static_cast<size_t>(row) * s.k + j];
          const float score = got.scores[static_cast<size_t>(row) * s.k + j];
          if (j >= static_cast<int32_t>(best.size())) {
            good &= token == -1 && score == -std::numeric_limits<float>::infinity();
            continue;
          }
          if (token < from || token > position) { good = false; break; }
          const double near = 1e-5 * (1 + std::fabs(best[j]));
          good &= std::fabs(all[token - from] - score) <= near && std::fabs(best[j] - score) <= near;
          all[token - from] = -INFINITY;  // no key twice
        }
        EXPECT(good);
      }
    }
    for (size_t i = 0; i < sums.size(); i++) EXPECT_NEAR(got.sums[i], sums[i], 2e-5 * (1 + s.queries()));
  }
}

}  // namespace

TEST("attend_causal_sink() finds what sampled queries look at, to the bit for any number of threads") {
  uint64_t seed = 1;
  for (const std::string& isa : isas()) {
    for (int32_t dtype : {KVASIR_F32, KVASIR_F16, KVASIR_I8}) {
      check({{6, 2, 64, 90, 300}, 8, 20}, dtype, isa, seed++);
      check({{4, 1, 33, 21, 97, 30}, 3, 50}, dtype, isa, seed++);
      check({{3, 3, 80, 40, 40, 0, 4.0f}, 1, 7}, dtype, isa, seed++);
    }
    check({{3, 1, 64, 130, 2300}, 16, 100}, KVASIR_F16, isa, seed++);
  }
}

TEST("attend_causal_sink() keeps the earlier of equal keys") {
  for (const std::string& isa : isas()) {
    Context c("threads=2,isa=" + isa);
    Cache cache(c, KVASIR_F32, 1, 16);
    const SinkCase s{{1, 1, 16, 1, 301}, 300, 5};
    const std::vector<float> same(301 * 16, 0.5f);
    cache.fill(same, same, 301, {100});
    const Filled got = fill(c, cache, s, std::vector<float>(16, 1.0f));
    EXPECT((got.tokens == std::vector<int32_t>{0, 1, 2, 3, 4}));
  }
}
