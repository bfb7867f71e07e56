#include <memory>

#include "attention_twin.h"

using namespace kvasir_test;

namespace {

const int32_t kTypes[] = {KVASIR_F32, KVASIR_F16, KVASIR_I8};

struct Inputs {
  std::vector<float> q, k, v;
  // Keys of real models share a large mean and have outlier channels; values have columns of very different size.
  Inputs(const AttentionCase& a, uint64_t seed, float spread = 1) {
    Random random(seed);
    const size_t width = static_cast<size_t>(a.kv_heads) * a.head_dim;
    q = random.normals(static_cast<size_t>(a.n) * a.heads * a.head_dim, spread);
    k = random.normals(a.total * width), v = random.normals(a.total * width);
    const std::vector<float> mean = random.normals(width, 2), gain = random.normals(width, 1);
    for (size_t i = 0; i < k.size(); i++) {
      k[i] += mean[i % width];
      if (i % width % a.head_dim == 3) k[i] *= 5;
      v[i] *= 0.2f + std::fabs(gain[i % width]);
    }
  }
};

// Errors of the cores against the oracle, each at most twice that of plain float loops over the same cache.
void check(const AttentionCase& a, const Inputs& in, const std::vector<int32_t>& sizes) {
  static const std::vector<std::string> sets = isas();
  const std::vector<double> want = twin<double>(a, in.q, in.k, in.v);
  double naive[3] = {-1, -1, -1};
  for (const std::string& isa : sets) {
    Context c("threads=2,isa=" + isa);
    for (int32_t t = 0; t < 3; t++) {
      const int32_t dtype = kTypes[t];
      Cache cache(c, dtype, a.kv_heads, a.head_dim);
      cache.fill(in.k, in.v, a.total, sizes);
      if (naive[t] < 0) naive[t] = relative_error(twin<float>(a, in.q, cache.stored(true), cache.stored(false)), want);
      const double error = relative_error(cache.attend(a, in.q), want);
      if (error <= 2 * naive[t] + 3e-7) continue;
      char text[200];
      std::snprintf(text, sizeof text,
                    "%s dtype %d heads %d/%d d %d n %d of %d window %d cap %g: error %.3g, naive %.3g", isa.c_str(),
                    dtype, a.heads, a.kv_heads, a.head_dim, a.n, a.total, a.window, a.softcap, error, naive[t]);
      fail(__FILE__, __LINE__, text);
    }
  }
}

}  // namespace

TEST("attend_causal() agrees with the oracle for all types, groups, head sizes and lengths") {
  int32_t turn = 0;
  for (int32_t group : {1, 3, 4, 8}) {
    for (int32_t d : {20, 64, 80, 128, 256}) {
      for (int32_t n : {1, 2, 3, 17, 129}) {
        turn++;
#ifdef __SANITIZE_THREAD__
        if (turn % 5 != 0) continue;  // races do not depend on the numbers, and every one takes 20 times as long
#endif
        AttentionCase a{};
        a.kv_heads = 1 + turn % 2;
        a.heads = group * a.kv_heads, a.head_dim = d, a.n = n, a.total = n + turn * 37 % 150;
        a.scale = 1 / std::sqrt(static_cast<float>(d));
        if (turn % 3 == 1) a.window = 1 + turn * 29 % 90;
        if (turn % 4 == 2) a.softcap = 3;
        check(a, Inputs(a, turn), {71, 1, 130, 64});
      }
    }
  }
}

TEST("attend_causal() over many key ranges agrees with the oracle") {
#ifdef __SANITIZE_THREAD__
  for (int32_t n : {5}) {
#else
  for (int32_t n : {1, 5, 8, 9}) {
#endif
    AttentionCase a{6, 2, 64, n, 2500};
    check(a, Inputs(a, n), {1024});
    a.window = 1500;
    check(a, Inputs(a, n), {1000});
  }
}

TEST("attend_causal() takes flat, peaked and huge logits, sinks and zero rows") {
  for (int32_t n : {1, 50}) {
    AttentionCase a{4, 2, 64, n, 400};
    Inputs flat(a, 1, 1e-4f), peaked(a, 2, 12), huge(a, 3, 2000), sink(a, 4), zeros(a, 5);
    check(a, flat, {128});
    check(a, peaked, {128});
    // One key far outside the others, as the first tokens of real models are, with a small value.
    for (int32_t i = 0; i < 2 * 64; i++) sink.k[i] = 20 * sink.k[i], sink.v[i] *= 0.01f;
    check(a, sink, {128});
    for (size_t i = 0; i < zeros.q.size() / 2; i++) zeros.q[i] = 0;
    for (size_t i = 0; i < zeros.k.size() / 3; i++) zeros.k[i] = zeros.v[i] = 0;
    check(a, zeros, {128});
    // Scores in the ten thousands: rounding them decides, so only numbers and their range can be asked for.
    for (const std::string& isa : isas()) {
      for (int32_t dtype : kTypes) {
        Context c("threads=1,isa=" + isa);
        Cache cache(c, dtype, a.kv_heads, a.head_dim);
        cache.fill(huge.k, huge.v, a.total, {100});
        const float bound = 1.01f * *std::max_element(huge.v.begin(), huge.v.end());
        for (float x : cache.attend(a, huge.q)) EXPECT(x <= bound && -x <= bound);
      }
    }
  }
}

TEST("attend_causal() returns the value of a single key") {
  for (const std::string& isa : isas()) {
    Context c("threads=1,isa=" + isa);
    Cache cache(c, KVASIR_F32, 1, 20);
    const AttentionCase a{3, 1, 20, 1, 1};
    const Inputs in(a, 9);
    cache.fill(in.k, in.v, 1, {1});
    const std::vector<float> got = cache.attend(a, in.q);
    for (size_t i = 0; i < got.size(); i++) EXPECT_NEAR(got[i], in.v[i % 20], 1e-6 * std::fabs(in.v[i % 20]));
  }
}

TEST("attend_causal() is the same in chunks, and to the bit for any number of threads") {
  const AttentionCase whole{6, 2, 64, 300, 300};
  const Inputs in(whole, 11);
  const std::vector<double> want = twin<double>(whole, in.q, in.k, in.v);
  for (const std::string& isa : isas()) {
    for (int32_t dtype : {KVASIR_F32, KVASIR_F16}) {
      std::vector<float> first;
      for (int threads : {1, 2, 5}) {
        Context c("threads=" + std::to_string(threads) + ",isa=" + isa);
        Cache cache(c, dtype, 2, 64);
        cache.fill(in.k, in.v, 300, {128});
        const std::vector<float> got = cache.attend(whole, in.q);
        if (first.empty()) first = got;
        EXPECT(got == first);
      }
      Context c("threads=2,isa=" + isa);
      Cache cache(c, dtype, 2, 64);
      std::vector<float> pieces;
      for (int32_t at = 0; at < 300;) {
        const int32_t count = std::min(at % 7 == 0 ? 60 : 13, 300 - at);
        if (at == 0 || cache.last()[1] + count > 160) cache.add_segment(160);
        cache.append(in.k, in.v, at, count);
        AttentionCase a = whole;
        a.n = count, a.total = at + count;
        const std::vector<float> part =
            cache.attend(a, std::vector<float>(in.q.begin() + at * 384, in.q.begin() + (at + count) * 384));
        pieces.insert(pieces.end(), part.begin(), part.end());
        at += count;
      }
      EXPECT(relative_error(pieces, want) <= 1.5 * relative_error(first, want) + 3e-7);
    }
  }
}

TEST("attend_each() is attend_causal() of each cache, to the bit, for any number of threads") {
  const std::vector<int32_t> lengths = {700, 1, 130, 64, 65, 2500, 3, 129, 513};
  const int32_t count = static_cast<int32_t>(lengths.size());
  std::vector<Inputs> inputs;
  for (int32_t i = 0; i < count; i++) inputs.emplace_back(AttentionCase{6, 2, 64, 1, lengths[static_cast<size_t>(i)]}, i);
  for (const std::string& isa : isas()) {
    for (int32_t dtype : kTypes) {
      for (int32_t window : {0, 97}) {
        std::vector<float> before;
        for (int32_t threads : {1, 2, 3}) {
          Context c("threads=" + std::to_string(threads) + ",isa=" + isa);
          std::vector<std::unique_ptr<Cache>> caches;
          std::vector<int32_t> table, counts;
          std::vector<float> queries, alone;
          for (int32_t i = 0; i < count; i++) {
            AttentionCase a{6, 2, 64, 1, lengths[static_cast<size_t>(i)]};
            a.window = window;
            const Inputs& in = inputs[static_cast<size_t>(i)];
            caches.push_back(std::make_unique<Cache>(c, dtype, a.kv_heads, a.head_dim));
            caches.back()->fill(in.k, in.v, a.total, {64, 1024});
            const std::vector<float> one = caches.back()->attend(a, in.q);
            alone.insert(alone.end(), one.begin(), one.end());
            queries.insert(queries.end(), in.q.begin(), in.q.end());
            const std::vector<int32_t>& segments = caches.back()->table;
            table.insert(table.end(), segments.begin(), segments.end());
            counts.push_back(static_cast<int32_t>(segments.size()) / KVASIR_SEGMENT_FIELDS);
          }
          const kvasir_tensor q = c.floats({count, 6, 64}, queries, true), out = c.make_misaligned(KVASIR_F32, {count, 6, 64});
          const AttentionCase a{6, 2, 64, 1, 1};
          EXPECT_OK(kvasir_attend_each(c, out, q, table.data(), counts.data(), count, a.scale, a.softcap, window));
          const std::vector<float> together = c.read(out, queries.size());
          EXPECT(together == alone);
          if (!before.empty()) EXPECT(together == before);
          before = together;
          const auto refused = [&](int32_t caches, const char* why) {
            EXPECT_FAILS(kvasir_attend_each(c, out, q, table.data(), counts.data(), caches, a.scale, a.softcap, window), KVASIR_ARGUMENT,
                         why);
          };
          refused(count - 1, "8 caches for 9 queries");
          counts[1] = 0;
          refused(count, "cache 1 is empty");
          counts[1] = -1;
          refused(count, "count -1");
        }
      }
    }
  }
}
