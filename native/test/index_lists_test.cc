// Types "lists" and "ivf": what partitions promise, on heads whose queries are off their keys' distribution.
#include <cstdio>
#include <string>

#include "index_fixture.h"

using namespace kvasir_test;

namespace {

// Keys of topics; queries want a topic, and lie elsewhere than keys. One KV head of two query heads.
struct Topics {
  static constexpr int32_t kTopics = 24, kDim = 16, kGroup = 2;
  Layer layer;
  std::vector<float> wants, queries;  // [topics, dim], [capacity, heads, dim]
  Random random;

  explicit Topics(int32_t tokens) : layer(kGroup, 1, tokens, kDim), random(77) {
    layer.fill(random);
    wants = random.normals(kTopics * kDim);
    for (int32_t t = 0; t < tokens; t++) {
      for (int32_t d = 0; d < kDim; d++) layer.key(0, t)[d] += 0.8f * wants[size_t(t * 7 % kTopics * kDim + d)] + 2;
      for (int32_t g = 0; g < kGroup; g++) {
        const std::vector<float> q = query();
        queries.insert(queries.end(), q.begin(), q.end());
      }
    }
  }
  std::vector<float> query() {
    std::vector<float> q = random.normals(kDim);
    const int32_t topic = int32_t(std::fabs(random.normals(1)[0]) * 1000) % kTopics;
    for (int32_t d = 0; d < kDim; d++) q[size_t(d)] = 0.4f * q[size_t(d)] + wants[size_t(topic * kDim + d)] + (d < 3 ? 3.0f : 0.0f);
    return q;
  }
  std::vector<float> pair() {
    std::vector<float> q = query();
    const std::vector<float> more = query();
    q.insert(q.end(), more.begin(), more.end());
    return q;
  }
  double logit(const float* q, int32_t token) {
    double sum = 0;
    for (int32_t d = 0; d < kDim; d++) sum += double(q[d]) * double(layer.key(0, token)[d]);
    return sum * 0.25;
  }
  // Share of the best k keys of [0, n) among what a query head found.
  double recall(const Found& f, const float* q, int32_t g, int32_t n, int32_t k) {
    std::vector<double> s;
    for (int32_t t = 0; t < n; t++) s.push_back(logit(q + g * kDim, t));
    std::vector<double> sorted = s;
    std::sort(sorted.rbegin(), sorted.rend());
    double found = 0;
    for (int32_t i = 0; i < f.counts[size_t(g)]; i++) {
      found += s[size_t(f.tokens[size_t(g * f.capacity + i)])] >= sorted[size_t(k - 1)] - 1e-5;
    }
    return found / k;
  }
};

std::string decisions(IndexContext& c, kvasir_index index, double* numbers) {
  std::vector<char> text(1 << 14);
  EXPECT_INDEX_OK(kvasir_index_stats(c, index, numbers, text.data(), int32_t(text.size())));
  return text.data();
}

constexpr double kTop20[KVASIR_GOAL] = {KVASIR_GOAL_TOPK, 20, KVASIR_TAIL_NONE, 1};
const std::vector<float> kNothing(Topics::kGroup, -INFINITY);

}  // namespace

TEST("lists reach the recall they were calibrated for, with a share of the work") {
  Topics t(4096);
  IndexContext c("threads=2,builders=2");
  const kvasir_index index = c.index("lists:k=20,depth=256,recall=0.9", t.layer, 0.25);
  EXPECT_INDEX_OK(index_add(c, index, 0, 4096, t.queries.data()));
  EXPECT_INDEX_OK(kvasir_index_commit(c, index));
  EXPECT_INDEX_OK(kvasir_index_settle(c, index));
  double recall = 0, scored = 0, expected = 0;
  for (int32_t i = 0; i < 40; i++) {
    const std::vector<float> q = t.pair();
    const Found f = search(c, index, t.layer, kTop20, q.data(), kNothing.data());
    EXPECT_EQ(int32_t(f.report[0]), KVASIR_CERTIFICATE_CALIBRATED);
    for (int32_t g = 0; g < 2; g++) recall += t.recall(f, q.data(), g, 4096, 20) / 80;
    scored += f.report[1] / 40;
    expected = f.report[4];
  }
  EXPECT(expected >= 0.9);
  EXPECT_NEAR(recall, expected, 0.04);
  EXPECT(scored < 0.4 * 4096);
  double numbers[KVASIR_STATS];
  EXPECT(decisions(c, index, numbers).find("KV head 0: 59 lists") != std::string::npos);
  // More than was calibrated for is not vouched for.
  const double more[KVASIR_GOAL] = {KVASIR_GOAL_TOPK, 21, KVASIR_TAIL_NONE, 1};
  const std::vector<float> q = t.pair();
  EXPECT_EQ(int32_t(search(c, index, t.layer, more, q.data(), kNothing.data()).report[0]), KVASIR_CERTIFICATE_NONE);
}

TEST("keys that come later join the lists that keys like them are in, though routers are kept as codes") {
  constexpr int32_t kOld = 4096, kNew = 1024;
  Topics t(kOld + kNew);
  // Far from zero: what a router errs by is then much of a score, the same of every key.
  for (int32_t i = 0; i < kOld * Topics::kDim; i++) t.layer.key(0, 0)[i] += 20;
  for (int32_t i = 0; i < kNew; i++) std::copy_n(t.layer.key(0, i), Topics::kDim, t.layer.key(0, kOld + i));
  IndexContext c("threads=1,builders=0");
  const kvasir_index index = c.index("lists:k=20,recall=0.9,extend=256,horizon=100000", t.layer, 0.25);
  EXPECT_INDEX_OK(index_add(c, index, 0, kOld, t.queries.data()));
  EXPECT_INDEX_OK(kvasir_index_commit(c, index));
  EXPECT_INDEX_OK(kvasir_index_settle(c, index));
  for (int32_t at = kOld; at < kOld + kNew; at += 256) {
    EXPECT_INDEX_OK(index_add(c, index, at, 256, t.queries.data() + size_t(at) * Topics::kGroup * Topics::kDim));
    EXPECT_INDEX_OK(kvasir_index_commit(c, index));
  }
  EXPECT_INDEX_OK(kvasir_index_settle(c, index));
  double numbers[KVASIR_STATS];
  EXPECT(decisions(c, index, numbers).find("extension of") != std::string::npos);
  double both = 0, one = 0;
  for (int32_t i = 0; i < 100; i++) {
    const std::vector<float> q = t.pair();
    const Found f = search(c, index, t.layer, kTop20, q.data(), kNothing.data());
    for (int32_t g = 0; g < Topics::kGroup; g++) {
      std::vector<int32_t> tokens(f.tokens.begin() + g * f.capacity, f.tokens.begin() + g * f.capacity + f.counts[size_t(g)]);
      for (int32_t token : tokens) {
        // The worst of the 20 may be half of a pair.
        if (token == tokens.back() || (token >= kNew && token < kOld)) continue;
        const int32_t twin = token < kNew ? token + kOld : token - kOld;
        (std::find(tokens.begin(), tokens.end(), twin) != tokens.end() ? both : one) += 1;
      }
    }
  }
  EXPECT(both > 500);
  EXPECT(one < 0.1 * both);
}

TEST("lists without prompt queries say that they scan, and do") {
  Topics t(3000);
  IndexContext c;
  const kvasir_index index = c.index("lists", t.layer, 0.25);
  EXPECT_INDEX_OK(kvasir_index_add(c, index, 0, 3000));
  EXPECT_INDEX_OK(kvasir_index_commit(c, index));
  EXPECT_INDEX_OK(kvasir_index_settle(c, index));
  double numbers[KVASIR_STATS];
  EXPECT_EQ(decisions(c, index, numbers), std::string("no prompt queries: scanning\n"));
  const std::vector<float> q = t.pair();
  const Found f = search(c, index, t.layer, kTop20, q.data(), kNothing.data());
  EXPECT_EQ(int32_t(f.report[0]), KVASIR_CERTIFICATE_EXACT);
  for (int32_t g = 0; g < 2; g++) EXPECT_EQ(t.recall(f, q.data(), g, 3000, 20), 1.0);
}

TEST("partitions sample without bias: numerator and denominator over many draws") {
  Topics t(3000);
  for (const char* spec : {"lists:depth=64,nprobe=1,codes=f16", "lists:depth=64,codes=int8,lift=0", "ivf:nprobe=2", "ivf:nprobe=3,metric=query,lift=4",
                           "graph:ef=20,k=20,m=16"}) {
    IndexContext c("threads=1,builders=0");
    const kvasir_index index = c.index(spec, t.layer, 0.25);
    EXPECT_INDEX_OK(index_add(c, index, 0, 2900, t.queries.data()));
    EXPECT_INDEX_OK(kvasir_index_commit(c, index));
    EXPECT_INDEX_OK(kvasir_index_settle(c, index));
    EXPECT_INDEX_OK(kvasir_index_add(c, index, 2900, 100));  // without a home
    EXPECT_INDEX_OK(kvasir_index_commit(c, index));
    const std::vector<float> q = t.pair();
    const std::vector<float> exact = {3.0f, 5.0f};
    for (bool priority : {false, true}) {
      const int32_t draws = 2000;
      double truth[2][2] = {}, sum[2][2] = {}, square[2][2] = {}, kept = 0, scored = 0;
      for (int32_t g = 0; g < 2; g++) {
        for (int32_t p = 0; p < 3000; p++) {
          const double w = std::exp(t.logit(q.data() + g * 16, p));
          truth[g][0] += w, truth[g][1] += w * double(t.layer.value(0, p)[1]);
        }
      }
      for (int32_t d = 0; d < draws; d++) {
        const double error[KVASIR_GOAL] = {KVASIR_GOAL_ERROR, 0.1, 0, double(d)}, top[KVASIR_GOAL] = {KVASIR_GOAL_TOPK, 100, KVASIR_TAIL_SAMPLE, double(d)};
        const Found f = search(c, index, t.layer, priority ? top : error, q.data(), exact.data());
        EXPECT_EQ(int32_t(f.report[0]), KVASIR_CERTIFICATE_UNBIASED);
        kept += f.report[2] / draws, scored += f.report[1] / draws;
        for (int32_t g = 0; g < 2; g++) {
          double x[2] = {};
          const size_t row = priority ? size_t(g * f.capacity) : 0;
          for (int32_t i = 0; i < f.counts[priority ? size_t(g) : 0]; i++) {
            const int32_t p = f.tokens[row + size_t(i)];
            const double w = std::exp(t.logit(q.data() + g * 16, p) + double(f.bias[row + size_t(i)]));
            x[0] += w, x[1] += w * double(t.layer.value(0, p)[1]);
          }
          for (int32_t i = 0; i < 2; i++) sum[g][i] += x[i], square[g][i] += x[i] * x[i];
        }
      }
      for (int32_t g = 0; g < 2; g++) {
        for (int32_t i = 0; i < 2; i++) {
          const double mean = sum[g][i] / draws, se = std::sqrt((square[g][i] / draws - mean * mean) / draws);
          EXPECT(se > 0);
          EXPECT_NEAR((mean - truth[g][i]) / se, 0, 4);
        }
      }
      EXPECT(kept < 1000);
      EXPECT(scored < 3000);
    }
  }
}

TEST("a key is found from its commit on, whether it has a home or not") {
  Topics t(6000);
  IndexContext c("threads=1,builders=1");
  for (const char* spec : {"lists:extend=256", "graph:extend=256,m=16", "ivf:growth=10"}) {
    const kvasir_index index = c.index(spec, t.layer, 0.25);
    int32_t end = 0;
    const std::vector<float> q = t.pair();
    for (int32_t step = 0; end < 6000; step++) {
      const int32_t count = step == 0 ? 3000 : 37 + step % 100, some = std::min(count, 6000 - end);
      // The newest key is the best of all for the first query.
      for (int32_t d = 0; d < 16; d++) t.layer.key(0, end + some - 1)[d] = q[size_t(d)] * (3 + float(step));
      EXPECT_INDEX_OK(index_add(c, index, end, some, t.queries.data() + size_t(end) * 32));
      EXPECT_INDEX_OK(kvasir_index_commit(c, index));
      end += some;
      const double best[KVASIR_GOAL] = {KVASIR_GOAL_TOPK, 1, KVASIR_TAIL_NONE, 1};
      const Found f = search(c, index, t.layer, best, q.data(), kNothing.data());
      EXPECT_EQ(f.tokens[0], end - 1);
    }
    double numbers[KVASIR_STATS];
    const std::string why = decisions(c, index, numbers);
    EXPECT(why.find("extension of") != std::string::npos);
    EXPECT(numbers[2] < 1500);
    EXPECT_INDEX_OK(kvasir_index_destroy(c, index));
  }
}

TEST("partitions answer alike whatever cut the adds, after a fork, and on their way through a file") {
  Topics t(5000);
  IndexContext c("threads=2,builders=1");
  for (const char* spec : {"lists:k=20,depth=128,extend=200", "graph:k=20,m=16,extend=200", "ivf:nprobe=4"}) {
    const auto fill = [&](kvasir_index index, int32_t from, int32_t to, int32_t piece) {
      // Commits lie where they lie; what is added between them may be cut.
      for (int32_t at = from; at < to; at += 500) {
        for (int32_t p = at; p < std::min(at + 500, to); p += piece) {
          EXPECT_INDEX_OK(index_add(c, index, p, std::min({piece, at + 500 - p, to - p}), t.queries.data() + size_t(p) * 32));
        }
        EXPECT_INDEX_OK(kvasir_index_commit(c, index));
      }
    };
    const kvasir_index one = c.index(spec, t.layer, 0.25), other = c.index(spec, t.layer, 0.25);
    fill(one, 0, 4000, 500);
    fill(other, 0, 4000, 77);
    kvasir_segment segment = c.segment(t.layer);
    kvasir_index forked = 0, mapped = 0;
    EXPECT_INDEX_OK(kvasir_index_fork(c, &forked, one, &segment, 1));
    const std::string path = "index_lists_test.kvidx";
    EXPECT_INDEX_OK(kvasir_index_save(c, one, path.c_str()));
    const double shape[KVASIR_INDEX_SHAPE] = {2, 1, 16, 0.25, 0, 0, 0, 7};
    EXPECT_INDEX_OK(kvasir_index_map(c, &mapped, path.c_str(), spec, shape, nullptr, &segment, 1));
    for (kvasir_index index : {one, other, forked, mapped}) fill(index, 4000, 5000, 250);
    for (int32_t i = 0; i < 8; i++) {
      const std::vector<float> q = t.pair();
      const double error[KVASIR_GOAL] = {KVASIR_GOAL_ERROR, 0.1, 0, double(i)};
      const Found top = search(c, one, t.layer, kTop20, q.data(), kNothing.data());
      const Found sample = search(c, one, t.layer, error, q.data(), kNothing.data());
      for (kvasir_index index : {other, forked, mapped}) {
        const Found f = search(c, index, t.layer, kTop20, q.data(), kNothing.data());
        EXPECT(f.counts == top.counts && f.report[1] == top.report[1]);
        for (int32_t j = 0; j < 20; j++) EXPECT_EQ(f.tokens[size_t(j)], top.tokens[size_t(j)]);
        const Found s = search(c, index, t.layer, error, q.data(), kNothing.data());
        EXPECT_EQ(s.counts[0], sample.counts[0]);
        for (int32_t j = 0; j < s.counts[0]; j++) {
          EXPECT_EQ(s.tokens[size_t(j)], sample.tokens[size_t(j)]);
          EXPECT_EQ(s.bias[size_t(j)], sample.bias[size_t(j)]);
        }
      }
    }
    std::remove(path.c_str());
    for (kvasir_index index : {one, other, forked, mapped}) EXPECT_INDEX_OK(kvasir_index_destroy(c, index));
  }
}

TEST("ivf with all lists is exact, and an error of 0 keeps every key") {
  Topics t(2000);
  IndexContext c;
  const kvasir_index index = c.index("ivf:nlist=30,nprobe=30", t.layer, 0.25);
  EXPECT_INDEX_OK(kvasir_index_add(c, index, 0, 2000));
  EXPECT_INDEX_OK(kvasir_index_commit(c, index));
  EXPECT_INDEX_OK(kvasir_index_settle(c, index));
  const std::vector<float> q = t.pair();
  const Found f = search(c, index, t.layer, kTop20, q.data(), kNothing.data());
  for (int32_t g = 0; g < 2; g++) EXPECT_EQ(t.recall(f, q.data(), g, 2000, 20), 1.0);
  EXPECT_EQ(f.report[1], 2000.0);
  const double all[KVASIR_GOAL] = {KVASIR_GOAL_ERROR, 0, 0, 1};
  const Found every = search(c, index, t.layer, all, q.data(), kNothing.data());
  EXPECT_EQ(every.counts[0], 2000);
  EXPECT_EQ(every.tokens[1999], 1999);
  EXPECT_EQ(every.bias[1999], 0.0f);
}

TEST("queries are observed before their tokens are added, once, however they were cut") {
  Topics t(4096);
  std::string told;
  for (int32_t chunk : {4096, 700, 1}) {
    IndexContext c("threads=1,builders=0");
    const kvasir_index index = c.index("lists:min=1000,k=20", t.layer, 1);
    int32_t observes = -1;
    EXPECT_INDEX_OK(kvasir_index_observes(c, index, &observes));
    EXPECT_EQ(observes, 1);
    for (int32_t at = 0; at < 4096; at += chunk) {
      // An interrupted step comes again, and so does one that was cut elsewhere.
      const int32_t again = chunk > 1 ? std::max(0, at - 300) : at, some = std::min(chunk, 4096 - at) + at - again;
      EXPECT_INDEX_OK(kvasir_index_observe(c, index, again, some, t.queries.data() + size_t(again) * 32));
    }
    EXPECT_INDEX_OK(kvasir_index_add(c, index, 4, 3996));
    EXPECT_INDEX_OK(kvasir_index_commit(c, index));
    EXPECT_INDEX_OK(kvasir_index_settle(c, index));
    double numbers[KVASIR_STATS];
    const std::string now = decisions(c, index, numbers);
    EXPECT(now.find("held-out prompt positions") != std::string::npos);
    if (told.empty()) told = now;
    EXPECT_EQ(now, told);
  }
}

TEST("queries that make no sense are refused, and nothing is noted") {
  Topics t(64);
  IndexContext c;
  const kvasir_index index = c.index("lists", t.layer, 1), flat = c.index("flat", t.layer, 1);
  std::vector<float> q(2 * 32, 1);
  q[40] = NAN;
  EXPECT_INDEX_FAILS(kvasir_index_observe(c, index, 5, 2, q.data()), KVASIR_ARGUMENT, "positions 5 to 6 is not finite");
  EXPECT_INDEX_FAILS(kvasir_index_observe(c, index, -1, 2, q.data()), KVASIR_ARGUMENT, "from position -1");
  EXPECT_INDEX_FAILS(kvasir_index_observe(c, index, 5, 2, nullptr), KVASIR_ARGUMENT, "none given");
  int32_t observes = -1;
  EXPECT_INDEX_OK(kvasir_index_observes(c, flat, &observes));
  EXPECT_EQ(observes, 0);
  double numbers[KVASIR_STATS];
  EXPECT_EQ(decisions(c, index, numbers), std::string("no prompt queries: scanning\n"));
}
