// Sampling, log probabilities and divergence against slow twins that sort everything.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "fixture.h"

using namespace kvasir_test;

namespace {

struct Params {
  double temperature = 1, top_k = 0, typical_p = 1, top_p = 1, min_p = 0, uniform = 0;
};

std::vector<int32_t> ranked(const std::vector<float>& logits) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  return ids;
}

// The rule of sampling.h, word by word. `order` is ranked(logits).
int32_t twin(const std::vector<float>& logits, const std::vector<int32_t>& order, const Params& p) {
  if (p.temperature == 0) return order[0];
  std::vector<double> weights;
  const double max = logits[static_cast<size_t>(order[0])];
  for (int32_t id : order) {
    const double logit = logits[static_cast<size_t>(id)];
    weights.push_back(logit == max ? 1 : std::exp((logit - max) / p.temperature));
  }
  size_t end = p.top_k > 0 ? std::min(order.size(), static_cast<size_t>(p.top_k)) : order.size();
  auto sum = [&](size_t to) { return std::accumulate(weights.begin(), weights.begin() + static_cast<long>(to), 0.0); };
  if (p.top_p < 1) {
    const double whole = sum(end);
    double running = 0;
    for (size_t i = 0; i < end; i++) {
      running += weights[i];
      if (running >= p.top_p * whole) end = i + 1;
    }
  }
  while (end > 1 && weights[end - 1] < p.min_p) end--;
  const double total = sum(end);
  double running = 0;
  for (size_t i = 0; i < end; i++) {
    running += weights[i];
    if (running > p.uniform * total) return order[i];
  }
  return order[end - 1];
}

int32_t sample(Context& c, kvasir_tensor logits, const Params& p) {
  const kvasir_tensor out = c.make(KVASIR_I32, {1});
  EXPECT_OK(kvasir_sample(c, out, logits, &p.temperature));
  return c.read<int32_t>(out, 1)[0];
}

void check(Context& c, const std::vector<float>& logits, const std::vector<Params>& params) {
  const kvasir_tensor t = c.floats({1, static_cast<int32_t>(logits.size())}, logits, logits.size() % 2 == 1);
  const std::vector<int32_t> order = ranked(logits);
  for (const Params& p : params) {
    const int32_t got = sample(c, t, p), want = twin(logits, order, p);
    if (got == want) continue;
    std::printf("  vocab %zu, T %g, k %g, p %g, min %g, u %.17g\n", logits.size(), p.temperature, p.top_k, p.top_p,
                p.min_p, p.uniform);
    EXPECT_EQ(got, want);
  }
  EXPECT_OK(kvasir_tensor_destroy(c, t));
}

std::vector<Params> random_params(Random& random, size_t count) {
  std::vector<Params> list;
  const double temperatures[] = {1, 0.7, 0.1, 2, 10, 0, 1e-3, 1e-310, 1e300}, top_ps[] = {1, 0.95, 0.5, 0.999, 0, 1e-9};
  const double top_ks[] = {0, 0, 1, 2, 40, 100, 5000, 1e9}, min_ps[] = {0, 0, 0.05, 0.5, 1, 1e-6};
  const double uniforms[] = {0, 0.5, 1 - 0x1p-53};
  for (size_t i = 0; i < count; i++) {
    Params p;
    p.temperature = temperatures[random.bits() % 9];
    p.top_k = top_ks[random.bits() % 8];
    p.top_p = top_ps[random.bits() % 6];
    p.min_p = min_ps[random.bits() % 6];
    p.uniform = random.bits() % 4 == 0 ? uniforms[random.bits() % 3] : random.uniform();
    list.push_back(p);
  }
  return list;
}

double log_sum_exp(const std::vector<float>& x) {
  const double max = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (float v : x) sum += std::exp(static_cast<double>(v) - max);
  return max + std::log(sum);
}

}  // namespace

TEST("sample() draws as the rule says, for small and odd vocabularies") {
  for (const std::string& isa : isas()) {
    Context c("threads=2,isa=" + isa);
    Random random(11);
    for (int32_t vocab : {1, 2, 3, 5, 16, 97, 127, 128, 129, 1000, 4097, 5001}) {
      for (float scale : {0.0f, 0.01f, 1.0f, 8.0f}) {
        std::vector<float> logits = random.normals(static_cast<size_t>(vocab), scale);
        if (vocab > 50) logits[7] = logits[31] = logits[3];            // ties
        if (vocab > 90) logits[40] = -INFINITY, logits[41] = -1e30f;  // masked
        check(c, logits, random_params(random, 60));
      }
    }
  }
}

TEST("sample() draws as the rule says, for large vocabularies") {
  for (const std::string& isa : isas()) {
    Context c("threads=2,isa=" + isa);
    Random random(12);
    for (float scale : {0.0f, 0.5f, 3.0f}) {
      std::vector<float> logits = random.normals(40009, scale);
      check(c, logits, random_params(random, 20));
      for (float& x : logits) x = std::round(x * 4) / 4;  // long runs of ties
      check(c, logits, random_params(random, 20));
    }
  }
}

TEST("sample() is defined at infinities and ties") {
  Context c("threads=1");
  std::vector<Params> params;
  for (double temperature : {0.0, 0.5, 1.0}) {
    for (double u : {0.0, 0.49, 0.5, 0.51, 0.999}) {
      for (double k : {0.0, 2.0}) params.push_back({temperature, k, 1, 0, u});
      params.push_back({temperature, 0, 0.6, 0.1, u});
    }
  }
  check(c, {1, INFINITY, 2, INFINITY, -INFINITY}, params);
  check(c, {-INFINITY, -INFINITY, -INFINITY}, params);
  check(c, {0.0f, -0.0f, 0.0f, -0.0f}, params);
  check(c, {-1, -1, -5}, params);
  check(c, {3e38f, -3e38f, 3e38f}, params);
}

TEST("sample() takes rows with their own parameters") {
  for (const char* threads : {"threads=1", "threads=3"}) {
    Context c(threads);
    Random random(13);
    const int32_t rows = 7, vocab = 1009;
    const std::vector<float> logits = random.normals(static_cast<size_t>(rows * vocab), 4);
    const std::vector<Params> params = random_params(random, static_cast<size_t>(rows));
    const kvasir_tensor t = c.floats({rows, vocab}, logits), out = c.make(KVASIR_I32, {rows});
    EXPECT_OK(kvasir_sample(c, out, t, &params[0].temperature));
    const std::vector<int32_t> got = c.read<int32_t>(out, static_cast<size_t>(rows));
    for (int32_t r = 0; r < rows; r++) {
      const std::vector<float> row(logits.begin() + r * vocab, logits.begin() + (r + 1) * vocab);
      EXPECT_EQ(got[static_cast<size_t>(r)], twin(row, ranked(row), params[static_cast<size_t>(r)]));
    }
    const kvasir_tensor none = c.make(KVASIR_F32, {0, vocab}), nothing = c.make(KVASIR_I32, {0});
    EXPECT_OK(kvasir_sample(c, nothing, none, nullptr));
  }
}

TEST("sample() refuses NaN and parameters out of range") {
  Context c("threads=2");
  std::vector<float> values(2 * 300, 0.5f);
  values[300 + 299] = NAN;
  const kvasir_tensor t = c.floats({2, 300}, values), out = c.make(KVASIR_I32, {2});
  Params p[2];
  EXPECT_FAILS(kvasir_sample(c, out, t, &p[0].temperature), KVASIR_ARGUMENT, "Cannot use row 1: logits hold NaN");
  auto wrong = [&](Params bad, const char* text) {
    p[0] = bad;
    EXPECT_FAILS(kvasir_sample(c, out, t, &p[0].temperature), KVASIR_ARGUMENT, text);
  };
  wrong({-1, 0, 1, 1, 0, 0}, "temperature is -1");
  wrong({NAN, 0, 1, 1, 0, 0}, "temperature is nan");
  wrong({INFINITY, 0, 1, 1, 0, 0}, "temperature is inf");
  wrong({1, 1.5, 1, 1, 0, 0}, "top-k is 1.5");
  wrong({1, -1, 1, 1, 0, 0}, "top-k is -1");
  wrong({1, 0, 1.1, 1, 0, 0}, "typical-p is 1.1");
  wrong({1, 0, 1, 1.1, 0, 0}, "top-p is 1.1");
  wrong({1, 0, 1, 1, NAN, 0}, "min-p is nan");
  wrong({1, 0, 1, 1, 0, 1}, "uniform is 1");
  EXPECT_FAILS(kvasir_sample(c, out, t, nullptr), KVASIR_ARGUMENT, "missing");
  EXPECT_FAILS(kvasir_sample(c, c.make(KVASIR_I32, {3}), t, &p[0].temperature), KVASIR_ARGUMENT, "expected [2]");
  p[0] = Params();
  EXPECT_FAILS(kvasir_sample(c, out, c.make(KVASIR_F32, {2, 0}), &p[0].temperature), KVASIR_ARGUMENT, "empty");
}

TEST("add_logits() and penalize() change the named ids of one row") {
  Context c("threads=1");
  const kvasir_tensor t = c.floats({2, 4}, {1, 1, 1, 1, 2, -2, 0, 5});
  const int32_t ids[3] = {3, 0, 3}, counts[2] = {1, 3}, tokens[2] = {0, 1};
  const float values[3] = {0.5f, -INFINITY, 0.25f};
  EXPECT_OK(kvasir_add_logits(c, t, 0, ids, values, 3));
  EXPECT_OK(kvasir_penalize(c, t, 1, tokens, counts, 2, 2.0f, 0.5f, 0.25f));
  const std::vector<float> got = c.read(t, 8);
  const float want[8] = {-INFINITY, 1, 1, 1.75f, 0.25f, -5.25f, 0, 5};
  for (size_t i = 0; i < 8; i++) EXPECT_EQ(got[i], want[i]);
  EXPECT_OK(kvasir_add_logits(c, t, 0, nullptr, nullptr, 0));
  const int32_t outside[2] = {1, 4}, negative[1] = {-1};
  EXPECT_FAILS(kvasir_add_logits(c, t, 0, outside, values, 2), KVASIR_ARGUMENT, "token 4: logits have 4 entries");
  EXPECT_EQ(c.read(t, 8)[1], 1.0f);  // nothing was written
  EXPECT_FAILS(kvasir_add_logits(c, t, 2, ids, values, 3), KVASIR_ARGUMENT, "row 2 of 2");
  EXPECT_FAILS(kvasir_add_logits(c, t, 0, nullptr, values, 1), KVASIR_ARGUMENT, "missing");
  EXPECT_FAILS(kvasir_penalize(c, t, 0, negative, counts, 1, 1, 0, 0), KVASIR_ARGUMENT, "token -1");
  EXPECT_FAILS(kvasir_penalize(c, t, -1, tokens, counts, 1, 1, 0, 0), KVASIR_ARGUMENT, "row -1 of 2");
}

TEST("token_logprobs() and top_logprobs() equal their double twins") {
  for (const std::string& isa : isas()) {
    Context c("threads=2,isa=" + isa);
    Random random(14);
    for (int32_t rows : {1, 3}) {
      for (int32_t vocab : {1, 2, 3, 97, 129, 5000, 100003}) {
        const size_t width = static_cast<size_t>(vocab);
        std::vector<float> logits = random.normals(static_cast<size_t>(rows) * width, 5);
        if (vocab > 10) logits[1] = -INFINITY, logits[2] = logits[3];
        const kvasir_tensor t = c.floats({rows, vocab}, logits, true);
        std::vector<int32_t> tokens;
        for (int32_t r = 0; r < rows; r++) tokens.push_back(static_cast<int32_t>(random.bits() % width));
        const kvasir_tensor out = c.make(KVASIR_F32, {rows});
        EXPECT_OK(kvasir_token_logprobs(c, out, t, c.ints({rows}, tokens)));
        const std::vector<float> got = c.read(out, static_cast<size_t>(rows));
        const int32_t k = std::min(vocab, 20);
        const kvasir_tensor ids = c.make(KVASIR_I32, {rows, k}), best = c.make(KVASIR_F32, {rows, k});
        EXPECT_OK(kvasir_top_logprobs(c, ids, best, t));
        const std::vector<int32_t> top = c.read<int32_t>(ids, static_cast<size_t>(rows * k));
        const std::vector<float> probs = c.read(best, static_cast<size_t>(rows * k));
        for (int32_t r = 0; r < rows; r++) {
          const std::vector<float> row(logits.begin() + r * vocab, logits.begin() + (r + 1) * vocab);
          const double sum = log_sum_exp(row);
          const double want = row[static_cast<size_t>(tokens[static_cast<size_t>(r)])] - sum;
          if (std::isinf(want)) EXPECT(std::isinf(got[static_cast<size_t>(r)]));
          else EXPECT_NEAR(static_cast<double>(got[static_cast<size_t>(r)]), want, 1e-7 * std::fabs(want) + 1e-12);
          const std::vector<int32_t> order = ranked(row);
          for (int32_t i = 0; i < k; i++) {
            const size_t at = static_cast<size_t>(r * k + i), id = static_cast<size_t>(order[static_cast<size_t>(i)]);
            EXPECT_EQ(top[at], order[static_cast<size_t>(i)]);
            if (std::isinf(row[id])) continue;
            EXPECT_NEAR(static_cast<double>(probs[at]), row[id] - sum, 1e-7 * std::fabs(row[id] - sum) + 1e-12);
          }
        }
      }
    }
    const kvasir_tensor t = c.floats({1, 3}, {1, 2, 3}), one = c.make(KVASIR_F32, {1});
    EXPECT_FAILS(kvasir_token_logprobs(c, one, t, c.ints({1}, {3})), KVASIR_ARGUMENT, "token 3");
    EXPECT_FAILS(kvasir_top_logprobs(c, c.make(KVASIR_I32, {1, 4}), c.make(KVASIR_F32, {1, 4}), t), KVASIR_ARGUMENT,
                 "4 best: logits have 3");
    EXPECT_OK(kvasir_top_logprobs(c, c.make(KVASIR_I32, {1, 0}), c.make(KVASIR_F32, {1, 0}), t));
  }
}

TEST("kl_divergence() keeps tiny divergences, and is 0 and infinite where it should be") {
  for (const std::string& isa : isas()) {
    Context c("threads=2,isa=" + isa);
    Random random(15);
    for (int32_t vocab : {1, 2, 3, 97, 1001, 50001}) {
      const size_t width = static_cast<size_t>(vocab);
      for (float noise : {0.0f, 1e-4f, 0.5f}) {
        const std::vector<float> base = random.normals(3 * width, 4);
        std::vector<float> other = base;
        for (float& x : other) x += random.normal() * noise;
        const kvasir_tensor out = c.make(KVASIR_F32, {3});
        EXPECT_OK(kvasir_kl_divergence(c, out, c.floats({3, vocab}, base, true), c.floats({3, vocab}, other)));
        const std::vector<float> got = c.read(out, 3);
        for (size_t r = 0; r < 3; r++) {
          const float* const from = base.data() + r * width;
          const float* const to = other.data() + r * width;
          const std::vector<float> p(from, from + width), q(to, to + width);
          const double lp = log_sum_exp(p), lq = log_sum_exp(q);
          double want = 0;
          for (size_t i = 0; i < width; i++) want += std::exp(p[i] - lp) * ((p[i] - lp) - (q[i] - lq));
          EXPECT_NEAR(static_cast<double>(got[r]), want, 1e-6 * want + 2e-13);
        }
      }
    }
    const kvasir_tensor out = c.make(KVASIR_F32, {1});
    const kvasir_tensor masked = c.floats({1, 3}, {1, 2, -INFINITY}), full = c.floats({1, 3}, {1, 2, 3});
    EXPECT_OK(kvasir_kl_divergence(c, out, masked, full));
    EXPECT(std::isfinite(c.read(out, 1)[0]));
    EXPECT_OK(kvasir_kl_divergence(c, out, full, masked));
    EXPECT(std::isinf(c.read(out, 1)[0]));
    EXPECT_FAILS(kvasir_kl_divergence(c, out, c.floats({1, 2}, {1, 2}), full), KVASIR_ARGUMENT, "expected [1, 3]");
  }
}
