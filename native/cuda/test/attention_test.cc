// Attention kernels in emulation against sums in float64: every kernel, odd sizes, groups, types and head sizes, and the same
// answer whatever order threads run in.
#include "attention.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <tuple>

#include "attention_case.h"
#include "harness.h"

using namespace kvasir;

namespace {

struct Shape {
  int32_t dtype, n, length, kv_heads, group, dim;
  int32_t window = 0, start = 0;
  float softcap = 0, sharp = 1;
  std::vector<int32_t> cuts = {};
};

// wgmma: by products of warpgroups where a prompt can be; tma: of tiles copied by tensor maps where they can be.
void check_causal(const Shape& s, bool wgmma = false, bool tma = false) {
  AttentionCase c(s.dtype, s.n, s.length, s.kv_heads, s.group, s.dim, s.start, s.cuts, s.softcap, s.sharp, 1, wgmma, tma);
  c.run([&](DeviceScratch& work, const Attention& a) { attend_causal(work, a, s.window); });
  c.expect("causal", [&](int32_t query, int32_t, int32_t row) -> double {
    const int32_t at = s.length - s.n + query;
    return row <= at && (s.window == 0 || row > at - s.window) ? 0 : -INFINITY;
  });
}

const int32_t kTypes[] = {KVASIR_F32, KVASIR_F16, KVASIR_I8};

}  // namespace

TEST("cuda attention: causal, groups and odd lengths") {
  for (const int32_t type : kTypes) {
    for (const int32_t group : {1, 3, 4, 8}) {
      check_causal({type, 1, 129, 2, group, 64});
      check_causal({type, 3, 97, 1, group, 64});
    }
    for (const auto& [n, length] : {std::pair{1, 1}, {1, 3}, {3, 3}, {97, 97}, {129, 129}, {33, 200}, {65, 65}, {64, 64}}) {
      check_causal({type, n, length, 1, 2, 64});
    }
  }
}

TEST("cuda attention: causal, head sizes") {
  for (const int32_t type : kTypes) {
    for (const int32_t dim : {1, 8, 33, 64, 80, 96, 128, 256}) {
      check_causal({type, 1, 97, 1, 3, dim});
      check_causal({type, 17, 65, 1, 2, dim});
      check_causal({type, 40, 70, 1, 2, dim});
    }
  }
}

TEST("cuda attention: causal, windows, soft caps, segments, sharp distributions") {
  for (const int32_t type : kTypes) {
    for (const int32_t window : {1, 3, 97, 500}) {
      check_causal({type, 1, 129, 1, 2, 64, window});
      check_causal({type, 65, 129, 1, 2, 64, window});
    }
    check_causal({type, 3, 129, 1, 2, 64, 0, 0, 5, 8});
    check_causal({type, 40, 40, 1, 3, 64, 7, 0, 5, 8});
    for (const int32_t n : {1, 7, 60}) check_causal({type, n, 97, 1, 3, 64, 0, 1000, 0, 1, {1, 33, 64, 96}});
    check_causal({type, 50, 100, 1, 3, 64, 0, 100000, 0, 30});
    // More segments than a launch takes.
    std::vector<int32_t> cuts;
    for (int32_t i = 3; i < 120; i += 5) cuts.push_back(i);
    check_causal({type, 30, 120, 1, 2, 64, 0, 7, 0, 1, cuts});
    check_causal({type, 30, 120, 1, 2, 64, 20, 7, 0, 1, cuts});
  }
}

TEST("cuda attention: products of warpgroups") {
  for (const bool tma : {false, true}) {
    for (const int32_t dim : {64, 128, 256}) {
      check_causal({KVASIR_F16, 17, 17, 1, 1, dim}, true, tma);
      check_causal({KVASIR_F16, 45, 300, 2, 3, dim}, true, tma);
      check_causal({KVASIR_F16, 130, 130, 1, 1, dim, 0, 0, 0, 4}, true, tma);
    }
    check_causal({KVASIR_F16, 64, 128, 1, 2, 64}, true, tma);
    check_causal({KVASIR_F16, 33, 700, 1, 4, 64, 0, 0, 0, 4}, true, tma);  // splits
    check_causal({KVASIR_F16, 20, 700, 12, 1, 64}, true, tma);             // stages come back
    for (const int32_t window : {1, 97, 500}) check_causal({KVASIR_F16, 150, 420, 1, 1, 64, window}, true, tma);
    check_causal({KVASIR_F16, 100, 200, 1, 2, 64, 0, 1000, 5, 8, {1, 33, 64, 96, 190}}, true, tma);
    std::vector<int32_t> cuts;
    for (int32_t i = 3; i < 120; i += 5) cuts.push_back(i);
    check_causal({KVASIR_F16, 30, 120, 1, 2, 64, 20, 7, 0, 1, cuts}, true, tma);
  }
}

// Tiles come by tensor maps, or by hand where a box has two segments, in turns: first, last, several, none, a hybrid's blocks of 64.
TEST("cuda attention: however tiles are copied, the bits are the same") {
  for (const int32_t dim : {64, 128, 256}) {
    for (const auto& cuts : {std::vector<int32_t>{}, {128}, {100}, {300, 310, 500}, {520, 639}, {1, 2, 700}, {64, 128, 192, 256, 600}}) {
      std::vector<float> o, lse;
      for (const bool tma : {false, true}) {
        AttentionCase c(KVASIR_F16, 20, 720, 1, 2, dim, 50, cuts, 0, 2, tma ? 2 : 1, true, tma);
        EXPECT_EQ(c.runtime->facts().tma, tma && c.runtime->facts().wgmma);
        c.run([&](DeviceScratch& work, const Attention& a) { attend_causal(work, a, 0); });
        c.expect("copied", [&](int32_t query, int32_t, int32_t row) { return row <= 700 + query ? 0.0 : -INFINITY; });
        if (tma) EXPECT(c.o == o && c.lse == lse);
        o = c.o, lse = c.lse;
      }
    }
  }
}

TEST("cuda attention: split keys merge to the whole") {
  for (const int32_t type : kTypes) {
    check_causal({type, 1, 3333, 1, 1, 64});
    check_causal({type, 2, 1111, 2, 4, 128, 0, 0, 0, 4});
    check_causal({type, 40, 1500, 1, 2, 64, 0, 0, 0, 4});
  }
}

TEST("cuda attention: spans and hits") {
  for (const int32_t type : kTypes) {
    for (const int32_t group : {1, 3, 4, 8}) {
      AttentionCase c(type, 1, 129, 2, group, group == 3 ? 80 : 64, 1000, {1, 33, 64, 96}, 0, 2);
      const int32_t spans[] = {1000, 1006, 1038, 1038, 1045, 1077, 1103, 1129};
      c.run([&](DeviceScratch& work, const Attention& a) { attend_spans(work, a, spans, 4); });
      const auto inside = [&](int32_t row) {
        bool in = false;
        for (int32_t i = 0; i < 4; i++) in = in || (row + 1000 >= spans[2 * i] && row + 1000 < spans[2 * i + 1]);
        return in;
      };
      c.expect("spans", [&](int32_t, int32_t, int32_t row) { return inside(row) ? 0.0 : -INFINITY; });
      c.run([&](DeviceScratch& work, const Attention& a) { attend_spans(work, a, nullptr, 0); });
      c.expect("no spans", [](int32_t, int32_t, int32_t) { return -INFINITY; });
      for (const int32_t lists : {2, 2 * group}) {
        for (const bool biased : {true, false}) {
          const TestHits hits(*c.runtime, lists, 129, 1000, biased, 5);
          c.run([&](DeviceScratch& work, const Attention& a) { attend_hits(work, a, hits.lists()); });
          c.expect("hits", [&](int32_t, int32_t head, int32_t row) { return hits.bias(head / (2 * group / lists), row); });
        }
      }
    }
  }
}

TEST("cuda attention: many spans, many queries, long lists") {
  for (const int32_t type : {KVASIR_F16, KVASIR_F32}) {
    std::vector<int32_t> spans;
    for (int32_t i = 0; i < 40; i++) spans.push_back(i * 3), spans.push_back(i * 3 + 1 + i % 2);
    AttentionCase c(type, 20, 130, 1, 3, 64, 0, {50}, 0, 2);
    c.run([&](DeviceScratch& work, const Attention& a) { attend_spans(work, a, spans.data(), 40); });
    c.expect("many spans", [&](int32_t, int32_t, int32_t row) {
      return row < 120 && (row % 3 == 0 || (row % 3 == 1 && row / 3 % 2 == 1)) ? 0.0 : -INFINITY;
    });
    AttentionCase long_case(type, 1, 1500, 1, 4, 128, 0, {700}, 0, 2);
    const TestHits hits(*long_case.runtime, 1, 1500, 0, true, 9);
    long_case.run([&](DeviceScratch& work, const Attention& a) { attend_hits(work, a, hits.lists()); });
    long_case.expect("long list", [&](int32_t, int32_t, int32_t row) { return hits.bias(0, row); });
  }
}

TEST("cuda attention: the order of threads changes no bit") {
  // Tiles of either cache, floats, products of warpgroups; few rows and many.
  for (const auto& [type, dim, wgmma, tma] :
       {std::tuple{KVASIR_F16, 64, false, false}, {KVASIR_F16, 256, false, false}, {KVASIR_I8, 80, false, false}, {KVASIR_F32, 33, false, false},
        {KVASIR_F16, 64, true, false}, {KVASIR_F16, 64, true, true}}) {
    for (const int32_t n : {1, 40}) {
      std::vector<float> first;
      for (uint64_t seed = 1; seed <= 20; seed++) {
        AttentionCase c(type, n, 70, 1, 4, dim, 0, {20}, 0, 2, seed, wgmma, tma);
        c.run([&](DeviceScratch& work, const Attention& a) { attend_causal(work, a, 0); });
        if (seed == 1) first = c.o;
        EXPECT(c.o == first);
      }
    }
  }
}

TEST("cuda attention: merge") {
  const int32_t rows = 5, d = 33, count = 70;
  std::mt19937 random(1);
  std::normal_distribution<float> bell;
  std::vector<std::vector<float>> o(count, std::vector<float>(rows * d)), lse(count, std::vector<float>(rows));
  const auto runtime = Runtime::open({});
  DeviceScratch work(*runtime);
  std::vector<DeviceArray<float>> memory;
  std::vector<AttentionPart> parts;
  for (int32_t p = 0; p < count; p++) {
    for (float& x : o[p]) x = bell(random);
    for (float& x : lse[p]) x = p % 7 == 3 ? -INFINITY : 20 * bell(random);
    if (p % 7 == 3) std::fill(o[p].begin(), o[p].end(), NAN);
    memory.emplace_back(*runtime, o[p]), memory.emplace_back(*runtime, lse[p]);
    parts.push_back({memory[memory.size() - 2].data(), memory.back().data()});
  }
  for (const int32_t some : {1, 2, 32, 33, 63, 64, 70}) {
    std::vector<double> want(rows * d), sums(rows);
    for (int32_t r = 0; r < rows; r++) {
      double most = -INFINITY, sum = 0;
      for (int32_t p = 0; p < some; p++) most = std::max(most, static_cast<double>(lse[p][r]));
      for (int32_t p = 0; p < some; p++) {
        const double weight = std::exp(lse[p][r] - most);
        sum += weight;
        for (int32_t i = 0; i < d && weight > 0; i++) want[r * d + i] += weight * o[p][r * d + i];
      }
      for (int32_t i = 0; i < d; i++) want[r * d + i] /= sum;
      sums[r] = most + std::log(sum);
    }
    const DeviceArray<float> out(*runtime, rows * d), all(*runtime, rows);
    merge_parts(work, {out.data(), all.data()}, parts.data(), some, rows, d);
    const std::vector<float> got = out.read(), got_sums = all.read();
    for (int32_t i = 0; i < rows * d; i++) EXPECT_NEAR(got[i], want[i], 1e-5);
    for (int32_t i = 0; i < rows; i++) EXPECT_NEAR(got_sums[i], sums[i], 1e-4);
    if (some != 2) continue;
    // In place, the second of two.
    const DeviceArray<float> again_o(*runtime, o[1]), again_l(*runtime, lse[1]);
    const AttentionPart both[] = {parts[0], {again_o.data(), again_l.data()}};
    merge_parts(work, both[1], both, 2, rows, d);
    EXPECT(again_o.read() == got);
    EXPECT(again_l.read() == got_sums);
  }
  const DeviceArray<float> nothing(*runtime, std::vector<float>(rows, -INFINITY)), out(*runtime, rows * d), all(*runtime, rows);
  const AttentionPart none{parts[3].o, nothing.data()};
  merge_parts(work, {out.data(), all.data()}, &none, 1, rows, d);
  for (const float x : out.read()) EXPECT(x == 0.0f);
  for (const float x : all.read()) EXPECT(x == -INFINITY);
}
