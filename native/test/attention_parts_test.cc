// Decode attention in parts against their definition in double precision.
#include "attention_twin.h"

using namespace kvasir_test;

namespace {

const int32_t kTypes[] = {KVASIR_F32, KVASIR_F16, KVASIR_I8};

struct Part {
  kvasir_tensor o, lse;
};

struct PartCase {
  int32_t group, kv_heads, d, total;
  float softcap = 0;
  int32_t heads() const { return group * kv_heads; }
  float scale() const { return 1 / std::sqrt(static_cast<float>(d)); }
};

Part make_part(Context& c, const PartCase& a, int32_t n = 1) {
  return {c.make_misaligned(KVASIR_F32, {n, a.heads(), a.d}), c.make_misaligned(KVASIR_F32, {n, a.heads()})};
}

// What head `h` of query q gets from `tokens` with weights exp(logit + bias): o, then the log-sum-exp.
KVASIR_ORACLE void twin_part(double* o, double* lse, const PartCase& a, const float* q, int32_t h, const std::vector<float>& k,
                             const std::vector<float>& v, const std::vector<int32_t>& tokens,
                             const std::vector<float>& bias) {
  const size_t width = static_cast<size_t>(a.kv_heads) * a.d, head = static_cast<size_t>(h / a.group) * a.d;
  std::vector<double> logits;
  double max = -INFINITY, sum = 0;
  for (size_t i = 0; i < tokens.size(); i++) {
    double dot = 0;
    for (int32_t x = 0; x < a.d; x++) dot += double(q[h * a.d + x]) * k[tokens[i] * width + head + x];
    dot *= a.scale();
    if (a.softcap != 0) dot = a.softcap * std::tanh(dot / a.softcap);
    logits.push_back(dot + (bias.empty() ? 0 : bias[i]));
    max = std::max(max, logits.back());
  }
  for (int32_t x = 0; x < a.d; x++) o[x] = 0;
  for (size_t i = 0; i < tokens.size(); i++) {
    const double weight = std::exp(logits[i] - max);
    for (int32_t x = 0; x < a.d; x++) o[x] += weight * v[tokens[i] * width + head + x];
    sum += weight;
  }
  for (int32_t x = 0; x < a.d && sum > 0; x++) o[x] /= sum;
  *lse = sum > 0 ? max + std::log(sum) : -INFINITY;
}

struct Setup {
  Context c;
  PartCase a;
  Cache cache;
  std::vector<float> q, k, v;  // k, v as the cache holds them
  kvasir_tensor queries;

  Setup(const std::string& isa, const PartCase& a_, int32_t dtype, uint64_t seed, int32_t n = 1, int threads = 2)
      : c("threads=" + std::to_string(threads) + ",isa=" + isa), a(a_), cache(c, dtype, a_.kv_heads, a_.d) {
    Random random(seed);
    const size_t width = static_cast<size_t>(a.kv_heads) * a.d;
    q = random.normals(static_cast<size_t>(n) * a.heads() * a.d, 1.5f);
    cache.fill(random.normals(a.total * width), random.normals(a.total * width), a.total, {71, 1, 130, 300});
    k = cache.stored(true), v = cache.stored(false);
    queries = c.floats({n, a.heads(), a.d}, q, true);
  }
  int32_t window(const Part& to, const std::vector<int32_t>& spans) {
    return kvasir_attend_window(c, to.o, to.lse, queries, cache.table.data(), cache.segments(), a.scale(), a.softcap,
                                spans.data(), static_cast<int32_t>(spans.size() / 2));
  }
  int32_t topk(const Part& to, kvasir_tensor tokens, kvasir_tensor counts, kvasir_tensor bias) {
    return kvasir_attend_topk(c, to.o, to.lse, queries, cache.table.data(), cache.segments(), a.scale(), a.softcap, tokens,
                              counts, bias);
  }
  // lists[row] of every head or KV head.
  void check(const Part& got, const std::vector<std::vector<int32_t>>& lists, const std::vector<std::vector<float>>& bias,
             const char* what, int32_t n = 1) {
    const std::vector<float> o = c.read(got.o, static_cast<size_t>(n) * a.heads() * a.d);
    const std::vector<float> lse = c.read(got.lse, static_cast<size_t>(n) * a.heads());
    std::vector<double> want(o.size());
    bool good = true;
    for (int32_t r = 0; r < n * a.heads(); r++) {
      const size_t list = static_cast<size_t>(r % a.heads()) * lists.size() / a.heads();
      double want_lse;
      twin_part(want.data() + static_cast<size_t>(r) * a.d, &want_lse, a, q.data() + r / a.heads() * a.heads() * a.d,
                r % a.heads(), k, v, lists[list], bias.empty() ? std::vector<float>() : bias[list]);
      good = good && (std::isinf(want_lse) ? lse[r] == want_lse : std::fabs(lse[r] - want_lse) < 1e-3);
    }
    double norm = 0;
    for (double x : want) norm += x * x;
    // Integer products of int8 caches round queries and weights, by a hundredth of the codes' own error.
    const double allowed = cache.dtype == KVASIR_I8 ? 5e-4 : 1e-5;
    good = good && (norm == 0 ? std::all_of(o.begin(), o.end(), [](float x) { return x == 0; })
                              : relative_error(o, want) < allowed);
    if (good) return;
    char text[160];
    std::snprintf(text, sizeof text, "%s: dtype %d group %d of %d d %d total %d", what, cache.dtype, a.group, a.kv_heads,
                  a.d, a.total);
    fail(__FILE__, __LINE__, text);
  }
};

std::vector<int32_t> positions(const std::vector<int32_t>& spans) {
  std::vector<int32_t> all;
  for (size_t i = 0; i + 1 < spans.size(); i += 2)
    for (int32_t t = spans[i]; t < spans[i + 1]; t++) all.push_back(t);
  return all;
}

struct Lists {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> bias;
  kvasir_tensor token_ids, counts, biases;

  Lists(Setup& s, Random& random, int32_t rows, const std::vector<int32_t>& sizes) {
    const int32_t capacity = *std::max_element(sizes.begin(), sizes.end()) + 3;
    std::vector<int32_t> flat(static_cast<size_t>(rows) * capacity, -7), sizes_of_rows;
    std::vector<float> flat_bias(flat.size(), NAN);
    for (int32_t r = 0; r < rows; r++) {
      const int32_t count = sizes[static_cast<size_t>(r) % sizes.size()];
      tokens.emplace_back(), bias.emplace_back(), sizes_of_rows.push_back(count);
      for (int32_t i = 0; i < count; i++) {
        tokens.back().push_back(static_cast<int32_t>(random.bits() % static_cast<uint64_t>(s.a.total)));
        bias.back().push_back(static_cast<float>(random.uniform() * 5));
        flat[static_cast<size_t>(r) * capacity + i] = tokens.back().back();
        flat_bias[static_cast<size_t>(r) * capacity + i] = bias.back().back();
      }
    }
    token_ids = s.c.ints({rows, capacity}, flat), counts = s.c.ints({rows}, sizes_of_rows);
    biases = s.c.floats({rows, capacity}, flat_bias);
  }
};

}  // namespace

TEST("attend_window() and attend_topk() agree with the oracle for all types, groups and head sizes") {
  int32_t turn = 0;
  for (const std::string& isa : isas()) {
    for (int32_t group = 1; group <= 8; group++) {
      for (int32_t d : {20, 64, 80, 128, 256}) {
        turn++;
        if (turn % 2 == 0 && isa == "portable") continue;
        Random random(turn);
        PartCase a{group, 1 + turn % 2, d, 400 + turn};
        if (turn % 3 == 0) a.softcap = 3;
        Setup s(isa, a, kTypes[turn % 3], turn);
        const Part part = make_part(s.c, a);
        const std::vector<int32_t> spans = {0, 4, 60, 60, 70, 203, a.total - 90, a.total};
        EXPECT_OK(s.window(part, spans));
        s.check(part, {positions(spans)}, {}, "window");
        const Lists shared(s, random, a.kv_heads, {97, 3}), own(s, random, a.heads(), {1, 40, 0, 17});
        EXPECT_OK(s.topk(part, shared.token_ids, shared.counts, shared.biases));
        s.check(part, shared.tokens, shared.bias, "shared hits");
        EXPECT_OK(s.topk(part, own.token_ids, own.counts, 0));
        s.check(part, own.tokens, {}, "hits of heads");
      }
    }
  }
}

TEST("attend_window() and attend_topk() over many ranges are the same to the bit for any number of threads") {
  for (const std::string& isa : isas()) {
    for (int32_t dtype : kTypes) {
      std::vector<float> first;
      for (int threads : {1, 2, 5}) {
        Random random(5);
        Setup s(isa, {3, 2, 64, 3000}, dtype, 3, 1, threads);
        const Part part = make_part(s.c, s.a);
        EXPECT_OK(s.window(part, {5, 1200, 1300, 2990}));
        s.check(part, {positions({5, 1200, 1300, 2990})}, {}, "window");
        std::vector<float> got = s.c.read(part.o, 6 * 64);
        const Lists lists(s, random, 2, {2100, 700});
        EXPECT_OK(s.topk(part, lists.token_ids, lists.counts, lists.biases));
        s.check(part, lists.tokens, lists.bias, "hits");
        for (float x : s.c.read(part.o, 6 * 64)) got.push_back(x);
        for (float x : s.c.read(part.lse, 6)) got.push_back(x);
        if (first.empty()) first = got;
        EXPECT(got == first);
      }
    }
  }
}

TEST("attend_window() takes several queries") {
  for (const std::string& isa : isas()) {
    for (int32_t n : {2, 8, 13}) {
      Setup s(isa, {3, 2, 64, 900}, KVASIR_F16, 17, n);
      const Part part = make_part(s.c, s.a, n);
      EXPECT_OK(s.window(part, {0, 4, 200, 900}));
      s.check(part, {positions({0, 4, 200, 900})}, {}, "window", n);
    }
  }
}

TEST("a part without keys is 0 with log-sum-exp -inf, and merges to the other") {
  for (const std::string& isa : isas()) {
    Setup s(isa, {4, 2, 80, 500}, KVASIR_F16, 4);
    const Part empty = make_part(s.c, s.a), whole = make_part(s.c, s.a);
    const kvasir_tensor none = s.c.ints({2, 4}, std::vector<int32_t>(8, -1)), counts = s.c.ints({2}, {0, 0});
    for (int32_t way = 0; way < 4; way++) {
      EXPECT_OK(s.window(empty, {0, 3}));  // something else first
      if (way == 0) EXPECT_OK(s.window(empty, {}));
      if (way == 1) EXPECT_OK(s.window(empty, {7, 7, 500, 500}));
      if (way == 2) EXPECT_OK(s.topk(empty, none, counts, 0));
      if (way == 3) EXPECT_OK(s.topk(empty, s.c.make(KVASIR_I32, {8, 0}), s.c.ints({8}, std::vector<int32_t>(8)), 0));
      s.check(empty, {{}}, {}, "empty");
    }
    EXPECT_OK(s.window(whole, {0, 500}));
    const std::vector<float> before = s.c.read(whole.o, 640);
    const kvasir_tensor parts[] = {empty.o, empty.lse, whole.o, whole.lse};
    EXPECT_OK(kvasir_merge(s.c, whole.o, parts, 2));
    EXPECT(s.c.read(whole.o, 640) == before);
    const kvasir_tensor nothing[] = {empty.o, empty.lse, empty.o, empty.lse};
    EXPECT_OK(kvasir_merge(s.c, whole.o, nothing, 2));
    for (float x : s.c.read(whole.o, 640)) EXPECT_EQ(x, 0.0f);
  }
}

TEST("parts merge to the whole") {
  for (const std::string& isa : isas()) {
    for (int32_t dtype : kTypes) {
      Setup s(isa, {3, 2, 80, 700}, dtype, 8);
      const Part window = make_part(s.c, s.a), hits = make_part(s.c, s.a), third = make_part(s.c, s.a);
      EXPECT_OK(s.window(window, {0, 4, 500, 700}));
      std::vector<int32_t> tokens, half;
      for (int32_t t = 4; t < 500; t++) (t % 3 == 0 ? half : tokens).push_back(t);
      const auto attend = [&](const Part& to, const std::vector<int32_t>& list) {
        std::vector<int32_t> twice = list;
        twice.insert(twice.end(), list.begin(), list.end());
        const int32_t count = static_cast<int32_t>(list.size());
        EXPECT_OK(s.topk(to, s.c.ints({2, count}, twice), s.c.ints({2}, {count, count}), 0));
      };
      attend(hits, tokens), attend(third, half);
      const kvasir_tensor parts[] = {window.o, window.lse, hits.o, hits.lse, third.o, third.lse};
      EXPECT_OK(kvasir_merge(s.c, window.o, parts, 3));
      const kvasir_tensor whole = s.c.make(KVASIR_F32, {1, 6, 80});
      EXPECT_OK(kvasir_attend_causal(s.c, whole, s.queries, s.cache.table.data(), s.cache.segments(), s.a.scale(), 0, 0));
      const std::vector<float> want = s.c.read(whole, 480);
      EXPECT(relative_error(s.c.read(window.o, 480), {want.begin(), want.end()}) < (dtype == KVASIR_I8 ? 1e-3 : 1e-5));
    }
  }
}

TEST("attend_window(), attend_topk() and merge() refuse what does not fit") {
  Setup s("auto", {2, 2, 64, 300}, KVASIR_F16, 1);
  const Part part = make_part(s.c, s.a);
  EXPECT_FAILS(s.window(part, {10, 5}), KVASIR_ARGUMENT, "span 0 is 10 to 5");
  EXPECT_FAILS(s.window(part, {0, 5, 4, 8}), KVASIR_ARGUMENT, "span 1 is 4 to 8");
  EXPECT_FAILS(s.window(part, {0, 301}), KVASIR_ARGUMENT, "span 0 is 0 to 301");
  EXPECT_FAILS(s.window(part, {-1, 3}), KVASIR_ARGUMENT, "span 0 is -1 to 3");
  EXPECT_FAILS(s.window({part.lse, part.o}, {0, 3}), KVASIR_ARGUMENT, "attention output");
  const kvasir_tensor counts = s.c.ints({2}, {2, 1});
  const auto tokens = [&](std::vector<int32_t> list) { return s.c.ints({2, 2}, list); };
  EXPECT_FAILS(s.topk(part, tokens({0, 300, 0, 0}), counts, 0), KVASIR_ARGUMENT, "hit 1 of row 0 is position 300");
  EXPECT_FAILS(s.topk(part, tokens({0, 1, -1, 0}), counts, 0), KVASIR_ARGUMENT, "hit 0 of row 1 is position -1");
  EXPECT_OK(s.topk(part, tokens({0, 1, 299, 9999}), counts, 0));  // the last one is not counted
  EXPECT_FAILS(s.topk(part, tokens({0, 0, 0, 0}), s.c.ints({2}, {3, 0}), 0), KVASIR_ARGUMENT, "row 0 has 3 hits");
  EXPECT_FAILS(s.topk(part, tokens({0, 0, 0, 0}), s.c.ints({2}, {0, -1}), 0), KVASIR_ARGUMENT, "row 1 has -1 hits");
  EXPECT_FAILS(s.topk(part, s.c.ints({3, 1}, {0, 0, 0}), counts, 0), KVASIR_ARGUMENT, "expected [4 or 2, capacity]");
  EXPECT_FAILS(s.topk(part, tokens({0, 0, 0, 0}), counts, s.c.floats({2, 2}, {0, NAN, 0, 0})), KVASIR_ARGUMENT,
               "hit 1 of row 0 is not finite");
  const kvasir_tensor parts[] = {part.o, part.lse};
  EXPECT_FAILS(kvasir_merge(s.c, part.o, parts, 0), KVASIR_ARGUMENT, "0 parts");
  EXPECT_FAILS(kvasir_merge(s.c, s.c.make(KVASIR_F32, {1, 4, 65}), parts, 1), KVASIR_ARGUMENT, "attention output");
}
