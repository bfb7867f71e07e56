// What sampled queries of a prompt look at: noted by tiles and settled, or found by a pass of its own; both against sums in float64.
#include <algorithm>
#include <cmath>

#include "attention_case.h"

using namespace kvasir;

namespace {

struct Prompt {
  int32_t dtype, n, length, kv_heads, group, dim, every, k;
  int32_t window = 0, start = 0;
  float softcap = 0, sharp = 1;
  std::vector<int32_t> cuts = {};
  bool wgmma = false;
};

struct Best {
  std::vector<int32_t> tokens;
  std::vector<float> scores, sums, o;
};

AttentionCase case_of(const Prompt& p, uint64_t seed = 1) {
  return AttentionCase(p.dtype, p.n, p.length, p.kv_heads, p.group, p.dim, p.start, p.cuts, p.softcap, p.sharp, seed, p.wgmma, p.wgmma);
}

Best found(AttentionCase& c, const Prompt& p, bool with_sums = false, bool fused = true) {
  const int32_t heads = p.kv_heads * p.group, m = sampled_queries(p.start + p.length - p.n, p.n, p.every);
  const size_t kept = static_cast<size_t>(m) * static_cast<size_t>(heads) * static_cast<size_t>(p.k);
  const DeviceArray<int32_t> tokens(*c.runtime, std::vector<int32_t>(kept, -7));
  const DeviceArray<float> scores(*c.runtime, kept);
  const size_t stride = static_cast<size_t>(p.start + p.length);
  const DeviceArray<float> sums(*c.runtime, std::vector<float>(static_cast<size_t>(heads) * stride, 0.0f));
  PromptSink sink{p.every, p.k, tokens.data(), scores.data(), with_sums ? sums.data() : nullptr, stride};
  DeviceScratch beside(*c.runtime);
  c.run([&](DeviceScratch& work, const Attention& a) {
    if (fused) {
      attend_causal_sink(work, beside, a, p.window, sink);
    } else {
      attend_causal(work, a, p.window);
      fill_sink(work, a, p.window, sink);
    }
  });
  return {tokens.read(), scores.read(), sums.read(), c.o};
}

std::string name(const Prompt& p) {
  return "type " + std::to_string(p.dtype) + " n " + std::to_string(p.n) + " length " + std::to_string(p.length) + " group " +
         std::to_string(p.group) + " dim " + std::to_string(p.dim) + " every " + std::to_string(p.every) + " k " + std::to_string(p.k) +
         (p.wgmma ? " wgmma" : "");
}

// Each sampled row's keys against all logits in double; keys closer than float's rounding may change places.
void expect_best(const AttentionCase& c, const Prompt& p, const Best& got) {
  const int32_t heads = p.kv_heads * p.group, position = p.start + p.length - p.n;
  size_t at = 0;
  for (int32_t i = 0; i < p.n; i++) {
    if ((position + i) % p.every != 0) continue;
    for (int32_t h = 0; h < heads; h++, at += static_cast<size_t>(p.k)) {
      const int32_t last = p.length - p.n + i, first = p.window == 0 ? 0 : std::max(0, last - p.window + 1), seen = last - first + 1;
      std::vector<double> best;
      for (int32_t row = first; row <= last; row++) best.push_back(c.logit(i, h, row));
      std::sort(best.rbegin(), best.rend());
      std::vector<int32_t> tokens;
      for (int32_t j = 0; j < p.k; j++) {
        const int32_t token = got.tokens[at + static_cast<size_t>(j)];
        const float score = got.scores[at + static_cast<size_t>(j)];
        if (j >= seen) {
          if (token != -1 || score != -INFINITY) kvasir_test::fail(__FILE__, __LINE__, name(p) + ": a key behind those that are seen");
          continue;
        }
        const int32_t row = token - p.start;
        const double want = best[static_cast<size_t>(j)], unit = 2e-6 * (1 + std::fabs(best[0]));
        if (row < first || row > last || std::fabs(c.logit(i, h, row) - static_cast<double>(score)) > unit ||
            std::fabs(static_cast<double>(score) - want) > unit) {
          kvasir_test::fail(__FILE__, __LINE__, name(p) + ": query " + std::to_string(i) + " head " + std::to_string(h) + " key " + std::to_string(j) +
                            " is " + std::to_string(token) + " with " + std::to_string(score) + ", truth " + std::to_string(want));
        }
        tokens.push_back(token);
      }
      std::sort(tokens.begin(), tokens.end());
      EXPECT(std::adjacent_find(tokens.begin(), tokens.end()) == tokens.end());
    }
  }
  EXPECT(at == got.tokens.size());
}

void check_best(const Prompt& p) {
  AttentionCase c = case_of(p);
  expect_best(c, p, found(c, p));
}

// And attention is what it is without, to the bit.
void check(const Prompt& p) {
  AttentionCase c = case_of(p);
  const Best got = found(c, p);
  expect_best(c, p, got);
  c.run([&](DeviceScratch& work, const Attention& a) { attend_causal(work, a, p.window); });
  EXPECT(c.o == got.o);
}

const int32_t kTypes[] = {KVASIR_F32, KVASIR_F16, KVASIR_I8};

}  // namespace

TEST("cuda best keys: groups, odd lengths, head sizes, every query") {
  for (const int32_t type : kTypes) {
    for (const int32_t group : {1, 3, 4, 8}) check({type, 33, 97, 1, group, 64, 4, 5});
    for (const auto& [n, length] : {std::pair{1, 1}, {3, 3}, {65, 65}, {97, 97}, {33, 200}}) check({type, n, length, 2, 2, 64, 8, 100});
    for (const int32_t dim : {33, 80, 96, 128, 256}) check({type, 19, 65, 1, 2, dim, 3, 7});
    check({type, 40, 40, 1, 2, 64, 1, 3});
    check({type, 40, 140, 1, 2, 64, 64, 3});
    check({type, 20, 60, 1, 2, 64, 100, 3, 0, 61});  // nothing is sampled
  }
}

TEST("cuda best keys: candidates of many tiles, parts and segments") {
  for (const int32_t type : {KVASIR_F16, KVASIR_I8}) {
    check({type, 24, 1300, 1, 1, 64, 4, 40});   // splits
    check({type, 24, 1300, 1, 1, 64, 4, 1});
    check({type, 40, 700, 12, 1, 64, 8, 200});  // none: blocks enough
    check({type, 20, 420, 12, 1, 256, 4, 100});
    check({type, 24, 900, 1, 2, 64, 3, 30, 300, 1000, 5, 3, {100, 101, 500}});
    std::vector<int32_t> cuts;
    for (int32_t i = 3; i < 120; i += 5) cuts.push_back(i);
    check({type, 30, 120, 1, 2, 64, 5, 50, 0, 7, 0, 1, cuts});
    check({type, 30, 120, 1, 2, 64, 5, 50, 20, 7, 0, 1, cuts});
  }
}

// Of 8 heads the emulation keeps the candidates of 32 queries at a time.
TEST("cuda best keys: more queries than there is room for at a time") {
  for (const bool wgmma : {false, true}) {
    check({KVASIR_F16, 70, 73, 2, 4, 64, 1, 4, 0, 0, 0, 1, {}, wgmma});
    check({KVASIR_F16, 130, 130, 2, 4, 64, 2, 3, 9, 1, 0, 1, {}, wgmma});
    check({KVASIR_F16, 34, 34, 2, 4, 64, 1, 3, 9, 1, 0, 1, {}, wgmma});
  }
}

TEST("cuda best keys: products of warpgroups") {
  for (const int32_t dim : {64, 128, 256}) {
    check({KVASIR_F16, 17, 300, 1, 3, dim, 4, 20, 0, 0, 0, 1, {}, true});
    check({KVASIR_F16, 20, 800, 6, 1, dim, 8, 60, 0, 5, 0, 2, {}, true});
  }
  check({KVASIR_F16, 150, 420, 1, 1, 64, 8, 10, 97, 0, 5, 1, {1, 33, 200}, true});
}

// Rounding moves a logit by more than what lies between two keys: without its bound the k-th best is another one.
TEST("cuda best keys: neighbours closer than what tiles can tell apart") {
  for (const bool wgmma : {false, true}) {
    for (const float sharp : {0.02f, 30.0f}) check_best({KVASIR_F16, 64, 1100, 6, 1, 64, 2, 200, 0, 0, 0, sharp, {}, wgmma});
  }
}

// Logits that are all the cap's: ranks are positions, and no bound leaves any key out.
TEST("cuda best keys: of equal keys the earlier, of too many all") {
  for (const auto& [type, wgmma] : {std::pair{KVASIR_F16, false}, {KVASIR_F16, true}, {KVASIR_I8, false}}) {
    // In one part, and in two, of which the first has too many and the second enough.
    std::vector<int32_t> cuts;
    for (int32_t i = 1; i <= 15; i++) cuts.push_back(37 * i);
    cuts.push_back(600);
    for (const auto& some : {std::vector<int32_t>(), cuts}) {
      const Prompt p{type, 20, 750, 12, 1, 64, 8, 100, 0, 3, 1e-4f, 100, some, wgmma};
      AttentionCase c = case_of(p);
      const Best fused = found(c, p), own = found(c, p, false, false);
      EXPECT(fused.tokens == own.tokens);
      EXPECT(fused.scores == own.scores);
    }
  }
}

// A query beyond what halves hold: tiles say nothing of it.
TEST("cuda best keys: queries that 16 bits do not hold") {
  const Prompt p{KVASIR_F16, 20, 300, 1, 1, 64, 4, 9, 0, 0, 0, 1e6f, {}, false};
  AttentionCase c = case_of(p);
  expect_best(c, p, found(c, p));
}

TEST("cuda best keys: sums are those of weights") {
  for (const int32_t type : kTypes) {
    const Prompt p{type, 33, 200, 1, 2, 64, 4, 6};
    AttentionCase c = case_of(p);
    const Best got = found(c, p, true);
    expect_best(c, p, got);
    std::vector<double> want(got.sums.size());
    for (int32_t i = 0; i < p.n; i++) {
      const int32_t last = p.length - p.n + i;
      if (last % p.every != 0) continue;
      for (int32_t h = 0; h < 2; h++) {
        double all = 0;
        for (int32_t row = 0; row <= last; row++) all += std::exp(c.logit(i, h, row));
        for (int32_t row = 0; row <= last; row++) want[static_cast<size_t>(h * p.length + row)] += std::exp(c.logit(i, h, row)) / all;
      }
    }
    for (size_t i = 0; i < want.size(); i++) EXPECT_NEAR(got.sums[i], want[i], 1e-5);
  }
}

TEST("cuda best keys: the order of threads changes no bit") {
  for (const bool wgmma : {false, true}) {
    const Prompt p{KVASIR_F16, 18, 600, 2, 2, 64, 6, 30, 0, 0, 0, 1, {20}, wgmma};
    Best first, own;  // by tiles; by the pass of its own, which sums ask for
    for (uint64_t seed = 1; seed <= 20; seed++) {
      AttentionCase c = case_of(p, seed);
      const Best got = found(c, p, seed % 2 == 0);
      if (seed <= 2) expect_best(c, p, got);
      if (seed == 1) first = got;
      if (seed == 2) own = got;
      EXPECT(got.o == first.o);
      const Best& same = seed % 2 == 1 ? first : own;
      EXPECT(got.tokens == same.tokens && got.scores == same.scores && got.sums == same.sums);
    }
  }
}
