// Threshold sampling: kernels against each other, and what is drawn against what it stands for.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>

#include "draw.h"
#include "half.h"
#include "index_drawn.h"
#include "nibble_planes.h"
#include "sample_kernels.h"
#include "sampler.h"

using namespace kvasir_test;
using kvasir::Codes;
using kvasir::IndexIsa;

namespace {

// How many standard errors numerator and denominator are from the truth, the worst of all heads; `tilt` plants a bias.
double deviation(Drawn& d, double error, int32_t count, uint32_t draws, double tilt) {
  const int32_t heads = d.shape.heads, group = d.shape.group();
  std::vector<Moments> denominator(static_cast<size_t>(heads)), numerator(static_cast<size_t>(heads));
  std::vector<std::vector<double>> weights(static_cast<size_t>(heads));
  std::vector<double> max(static_cast<size_t>(heads), -INFINITY), sums(max.size(), 0), values(max.size(), 0);
  for (int32_t h = 0; h < heads; h++) {
    const size_t at = static_cast<size_t>(h);
    for (int32_t i = 0; i < count; i++) weights[at].push_back(d.logit(h, i));
    for (double x : weights[at]) max[at] = std::max(max[at], x);
    for (int32_t i = 0; i < count; i++) {
      double& w = weights[at][static_cast<size_t>(i)];
      w = std::exp(w - max[at]);
      sums[at] += w;
      values[at] += w * double(d.layer.value(h / group, i)[1]);
    }
  }
  for (uint32_t t = 0; t < draws; t++) {
    const Found f = d.draw(error, kvasir::lowbias32(t * 2654435761u + 17), count);
    for (int32_t h = 0; h < heads; h++) {
      const int32_t row = h / group;
      double below = 0, above = 0;
      for (int32_t i = 0; i < f.counts[static_cast<size_t>(row)]; i++) {
        const size_t at = static_cast<size_t>(row * f.capacity + i);
        const int32_t key = f.tokens[at] - 11;
        const double w = weights[static_cast<size_t>(h)][static_cast<size_t>(key)] *
                         std::exp(double(f.bias[at]) * (f.bias[at] > 0 ? tilt : 1));
        below += w, above += w * double(d.layer.value(row, key)[1]);
      }
      denominator[static_cast<size_t>(h)].add(below), numerator[static_cast<size_t>(h)].add(above);
    }
  }
  double worst = 0;
  for (size_t h = 0; h < sums.size(); h++) {
    worst = std::max(worst, std::fabs(denominator[h].mean() - sums[h]) / denominator[h].error());
    worst = std::max(worst, std::fabs(numerator[h].mean() - values[h]) / numerator[h].error());
  }
  return worst;
}

}  // namespace

TEST("a sample's numerator and denominator are unbiased, and a planted bias is caught") {
  const uint32_t draws = 2000;
  for (const std::string& isa : isas()) {
    for (int32_t way = 0; way < (isa == "avx512" ? 5 : 2); way++) {
      const Codes::Kind kinds[] = {Codes::kInt4, Codes::kInt8, Codes::kNone, Codes::kInt4, Codes::kInt4};
      Drawn d(isa.c_str(), kinds[way], 3, 1, 250, 64);
      if (way == 3) d.shape.softcap = 4;
      if (way == 4) std::fill(d.exact.begin(), d.exact.end(), -INFINITY);
      const double off = deviation(d, 0.15, 237, draws, 1);
      const double planted = deviation(d, 0.15, 237, draws, 1.03);
      if (off < 4 && planted > 4) continue;
      char text[160];
      std::snprintf(text, sizeof text, "%s way %d: %.2f standard errors, planted %.2f", isa.c_str(), way, off, planted);
      fail(__FILE__, __LINE__, text);
    }
  }
}

TEST("as many keys are kept as their probabilities say, for every group and instruction set") {
  for (const std::string& isa : isas()) {
    for (int32_t group = 1; group <= 8; group++) {
      Drawn d(isa.c_str(), Codes::kInt4, group, 1 + group % 2, 3001, 64 + 16 * (group % 3));
      double expected = 0, kept = 0;
      std::vector<std::vector<double>> s(static_cast<size_t>(d.shape.heads));
      for (int32_t h = 0; h < d.shape.heads; h++) {
        const size_t at = static_cast<size_t>(h);
        double z = std::exp(double(d.exact[at]));
        for (int32_t i = 0; i < 3001; i++) s[at].push_back(std::exp(d.logit(h, i)));
        for (double x : s[at]) z += x;
        for (double& x : s[at]) x /= z / 400;
      }
      for (int32_t i = 0; i < 3001; i++) {
        for (int32_t k = 0; k < d.shape.kv_heads; k++) {
          double p = 0;
          for (int32_t g = 0; g < group; g++) p = std::max(p, s[static_cast<size_t>(k * group + g)][static_cast<size_t>(i)]);
          expected += std::min(1.0, p);
        }
      }
      for (uint32_t t = 0; t < 20; t++) {
        const Found f = d.draw(0.05, t, 3001);
        kept += f.report[2] / 20;
        for (int32_t row = 0; row < d.shape.kv_heads; row++) {
          EXPECT(f.errors[static_cast<size_t>(row)] > 0.01f && f.errors[static_cast<size_t>(row)] < 0.2f);
          for (int32_t i = 0; i < f.counts[static_cast<size_t>(row)]; i++) {
            const size_t at = static_cast<size_t>(row * f.capacity + i);
            EXPECT(f.bias[at] >= 0 && f.tokens[at] >= 11 && f.tokens[at] < 3012);
            EXPECT(i == 0 || f.tokens[at - 1] < f.tokens[at]);
          }
        }
      }
      // Codes err by some tenths of a nat, which the maximum over heads takes from the upper side.
      EXPECT(kept > 0.9 * expected && kept < 1.25 * expected);
    }
  }
}

// What tables say of key `key` of the first chunk: entries by byte i and nibble of a plane's words, as coarse_scan_avx512.h has them.
double look_up(const Codes& codes, const kvasir::CodeQuery& query, int32_t g, int32_t key) {
  const kvasir::CodeShape& shape = codes.kept_shape();
  const uint8_t* const block = codes.blocks(0, 0) + static_cast<size_t>(key / 32) * shape.block_bytes;
  double sum = 0;
  for (int32_t band = 0; band < shape.bands; band++) {
    const int8_t* const tables = query.tables + (g * shape.bands + band) * 256;
    int32_t entries = 0;
    for (int32_t j = 0; j < 2; j++) {
      for (int32_t i = 0; i < 4; i++) {
        const uint8_t byte = block[kvasir::coarse_at(key % 32, band, j) + static_cast<size_t>(i)];
        entries += tables[128 * j + 16 * i + (byte & 15)] + tables[128 * j + 64 + 16 * i + (byte >> 4)];
      }
    }
    uint16_t scale;
    std::memcpy(&scale, block + kvasir::coarse_scale_at(key % 32, band, shape.bands), 2);
    sum += entries * double(kvasir::widen_bfloat(scale));
  }
  return sum;
}

TEST("instruction sets agree on logarithms of scores, and to the bit on draws from the same") {
  for (const int32_t dim : {64, 80, 128, 256}) {
    for (int32_t group = 1; group <= 8; group++) {
      std::vector<int16_t> first;
      std::vector<int32_t> first_keys;
      std::vector<float> first_sums;
      for (const std::string& name : isas()) {
        const IndexIsa& isa = kvasir::find_index_isa(name.c_str());
        Drawn d(name.c_str(), Codes::kInt4, group, 1, 640, dim);
        kvasir::PreparedQuery prepared;
        d.codes.prepare(prepared, 0, d.q.data(), group, d.shape.scale, 1, Codes::kPlain);
        std::vector<float> gains, bases, sums(static_cast<size_t>(group), 0);
        for (int32_t g = 0; g < group; g++) {
          gains.push_back(prepared.codes().coarse_factors[g] * kvasir::kLogUnit);
          bases.push_back((prepared.base(0)[g] - d.exact[static_cast<size_t>(g)]) * kvasir::kLogUnit + kvasir::kLogOne);
        }
        std::vector<int16_t> logs(static_cast<size_t>(group) * 650);
        isa.sample->scan(logs.data(), 650, d.codes.kept_shape(), prepared.codes(), gains.data(), bases.data(), d.codes.blocks(0, 0),
                         20, kvasir::ScanAhead(), sums.data());
        for (size_t g = 0; g < static_cast<size_t>(group); g++) {
          double bits = 0;
          for (size_t i = 0; i < 640; i++) bits += double(kvasir::widen_bfloat(static_cast<uint16_t>(logs[g * 650 + i])));
          EXPECT_NEAR(sums[g], bits, 0.01 * bits);
          for (int32_t i = 0; i < 640 && isa.sample->fill_tables != nullptr; i++) {
            const double log = look_up(d.codes, prepared.codes(), static_cast<int32_t>(g), i) * double(gains[g]) + double(bases[g]);
            EXPECT_NEAR(logs[g * 650 + static_cast<size_t>(i)], std::max(log, double(kvasir::kLogLeast)), 1);
          }
        }
        std::vector<float> scores(static_cast<size_t>(group) * 650);
        d.codes.score_all(prepared, d.rows, 0, 640, scores.data(), 650);
        // Both planes give what whole codes give.
        std::vector<int32_t> everyone;
        for (int32_t i = 0; i < 637; i++) everyone.push_back(i);
        everyone.resize(640 + 64);
        std::vector<int16_t> refined(logs.size() + 64), folded(640);
        std::vector<float> whole_gains;
        for (int32_t g = 0; g < group; g++) whole_gains.push_back(prepared.codes().factors[g] * kvasir::kLogUnit);
        isa.sample->refine(refined.data(), {everyone.data(), logs.data(), 650}, 637, d.codes.kept_shape(), prepared.codes(),
                           whole_gains.data(), d.codes.blocks(0, 0), d.codes.fine(0, 0));
        // Scores that are looked up err by half a unit of a table's an entry: beside what the fine plane adds, whose spread is known.
        const bool tables = isa.sample->fill_tables != nullptr;
        const auto near = [&](size_t g) { return tables ? 0.9 * double(kvasir::kLogUnit) * double(prepared.spread(0)[g]) : 0.0; };
        double added = 0, expected = 0, off = 0;
        for (size_t g = 0; g < static_cast<size_t>(group); g++) {
          float sums[kvasir::kFoldSums] = {};
          isa.sample->fold(folded.data(), scores.data() + g * 650, 637, d.exact[g], sums);
          double bits = 0, lanes = 0;
          for (size_t i = 0; i < 637; i++) bits += double(kvasir::widen_bfloat(static_cast<uint16_t>(folded[i])));
          for (float sum : sums) lanes += double(sum);
          EXPECT_NEAR(lanes, bits, 1e-5 * bits);
          for (size_t i = 0; i < 637; i++) {
            if (logs[g * 650 + i] <= kvasir::kLogLeast) continue;
            EXPECT_NEAR(refined[g * 650 + i], folded[i], 3 + near(g));
            off += std::pow(double(refined[g * 650 + i]) - double(folded[i]), 2);
            added += std::pow(double(refined[g * 650 + i]) - double(logs[g * 650 + i]), 2);
            expected += std::pow(double(kvasir::kLogUnit) * double(prepared.spread(0)[g]), 2);
          }
        }
        EXPECT(added > 0.7 * expected && added < 1.3 * expected);
        EXPECT(off < (tables ? 0.015 : 1e-3) * expected);
        if (first.empty()) first = logs, first_sums = sums;
        for (size_t i = 0; i < logs.size(); i++) EXPECT_NEAR(logs[i], first[i], 2 + near(i / 650));
        for (size_t g = 0; g < sums.size(); g++) EXPECT_NEAR(sums[g], first_sums[g], (tables ? 0.1 : 0.01) * double(first_sums[g]));
        std::vector<int32_t> keys(640 + 64);
        std::vector<int16_t> offsets;
        for (float sum : first_sums) offsets.push_back(static_cast<int16_t>(2048 - 128 * std::log2((1 + sum) / 50)));
        std::vector<int16_t> found((640 + 64) * static_cast<size_t>(group));
        const kvasir::Candidates to = {keys.data(), found.data(), 640 + 64};
        const int32_t count = isa.sample->draw(to, first.data(), 650, offsets.data(), group, 96, 20, 12345);
        for (int32_t i = 0; i < count; i++) {
          for (int32_t g = 0; g < group; g++) {
            EXPECT_EQ(found[static_cast<size_t>(g * (640 + 64) + i)], first[static_cast<size_t>(g * 650 + keys[static_cast<size_t>(i)])]);
          }
        }
        keys.resize(static_cast<size_t>(count));
        if (first_keys.empty()) first_keys = keys;
        EXPECT(keys == first_keys);
        // One pass over the codes finds what two find.
        std::vector<int16_t> swept(logs.size());
        std::vector<float> swept_sums(static_cast<size_t>(group), 0);
        std::vector<int32_t> swept_keys(640 + 64), drawn_keys(640 + 64);
        const std::vector<uint8_t> fine_rows(64);
        kvasir::FineRows fine = {fine_rows.data(), 0};
        swept_keys.resize(static_cast<size_t>(isa.sample->sweep({swept_keys.data(), found.data(), 640 + 64}, swept.data(), 650,
                                                                d.codes.kept_shape(), prepared.codes(), gains.data(), bases.data(),
                                                                offsets.data(), d.codes.blocks(0, 0), 96, 20, kvasir::ScanAhead(), 12345,
                                                                swept_sums.data(), &fine)));
        EXPECT(fine.fetched >= 0 && fine.fetched <= static_cast<int32_t>(swept_keys.size()));
        const std::vector<int16_t> swept_logs = found;
        drawn_keys.resize(static_cast<size_t>(isa.sample->draw({drawn_keys.data(), found.data(), 640 + 64}, logs.data(), 650,
                                                               offsets.data(), group, 96, 20, 12345)));
        for (int32_t g = 0; g < group; g++) {
          const auto row = swept_logs.begin() + g * (640 + 64);
          EXPECT(std::equal(row, row + static_cast<std::ptrdiff_t>(swept_keys.size()), found.begin() + g * (640 + 64)));
        }
        EXPECT(swept == logs && swept_sums == sums && swept_keys == drawn_keys);
        EXPECT_EQ(keys.size() > 10 && keys.size() < 640 ? 0 : keys.size(), size_t{0});
      }
    }
  }
}

TEST("the same draw gives the same sample, whatever the threads; another draw another one") {
  for (const Codes::Kind kind : {Codes::kInt4, Codes::kInt8}) {
    Drawn one("auto", kind, 4, 2, 20000, 64, 1), many("auto", kind, 4, 2, 20000, 64, 3);
    const Found a = one.draw(0.05, 9, 19997), b = many.draw(0.05, 9, 19997), c = one.draw(0.05, 10, 19997);
    EXPECT(a.counts == b.counts);
    EXPECT(a.tokens == b.tokens);
    EXPECT(a.errors == b.errors);
    EXPECT(a.tokens != c.tokens);
    EXPECT_EQ(a.report[1], 2.0 * 19997);
    // 4-bit codes are read by half, and what may be kept once more.
    const double whole = one.codes.key_bytes() * 2 * 19997;
    EXPECT(kind == Codes::kInt4 ? a.report[3] > 0.5 * whole && a.report[3] < 0.7 * whole : a.report[3] == whole);
    // Too little room: counts say how much is needed.
    EXPECT(one.draw(0.05, 9, 19997, 10).counts == a.counts);
  }
}

TEST("indexes of other shapes leave nothing behind in the memory that samples share") {
  for (const Codes::Kind kind : {Codes::kInt4, Codes::kInt8}) {
    Drawn small("auto", kind, 2, 1, 1500, 64, 2), large("auto", kind, 4, 3, 5000, 80, 2);
    const Found few = small.draw(0.1, 7, 1500), many = large.draw(0.1, 7, 5000);
    EXPECT(few.counts[0] > 10 && many.counts[0] > 10);
    small.environment.samples = &large.samples;
    for (int round = 0; round < 3; round++) {
      const Found again = small.draw(0.1, 7, 1500), too = large.draw(0.1, 7, 5000);
      EXPECT(again.counts == few.counts && again.tokens == few.tokens && again.errors == few.errors);
      EXPECT(too.counts == many.counts && too.tokens == many.tokens && too.errors == many.errors);
    }
  }
}

TEST("keys of probability 1 are kept in every chunk, also where few are, and threads change nothing") {
  constexpr int32_t kKeys = 6 * Codes::kChunkKeys + 77;
  for (const std::string& isa : isas()) {
    Drawn one(isa.c_str(), Codes::kInt4, 1, 1, kKeys, 64, 1), many(isa.c_str(), Codes::kInt4, 1, 1, kKeys, 64, 3);
    std::vector<double> logits;
    double z = std::exp(double(one.exact[0]));
    for (int32_t i = 0; i < kKeys; i++) logits.push_back(one.logit(0, i)), z += std::exp(logits.back());
    std::vector<double> best = logits;
    std::sort(best.begin(), best.end(), std::greater<double>());
    const double error = std::sqrt(std::exp(best[12] - 0.7) / z);  // codes are nearer than that
    std::vector<int32_t> certain;
    for (int32_t i = 0; i < kKeys; i++) {
      if (logits[static_cast<size_t>(i)] >= best[12]) certain.push_back(11 + i);
    }
    for (uint32_t draw = 0; draw < 40; draw++) {
      const Found a = one.draw(error, draw, kKeys), b = many.draw(error, draw, kKeys);
      const auto end = a.tokens.begin() + a.counts[0];
      EXPECT(std::adjacent_find(a.tokens.begin(), end, [](int32_t x, int32_t y) { return x >= y; }) == end);
      EXPECT(std::includes(a.tokens.begin(), end, certain.begin(), certain.end()));
      EXPECT(a.counts == b.counts && a.tokens == b.tokens && a.errors == b.errors);
    }
  }
}

TEST("an error of 0 keeps all, and edges of size and range hold") {
  for (const std::string& isa : isas()) {
    for (const Codes::Kind kind : {Codes::kInt4, Codes::kInt8, Codes::kNone}) {
      Drawn d(isa.c_str(), kind, 2, 2, 100, 80);
      const Found all = d.draw(0, 1, 100), none = d.draw(0.05, 1, 0);
      EXPECT(all.counts == std::vector<int32_t>({100, 100}));
      EXPECT_EQ(all.tokens[99], 110);
      EXPECT_EQ(all.bias[199], 0.0f);
      EXPECT_EQ(all.errors[1], 0.0f);
      EXPECT(none.counts == std::vector<int32_t>({0, 0}));
      const Found tiny = d.draw(1e-9, 1, 97);
      EXPECT(tiny.counts == std::vector<int32_t>({97, 97}));
      // Nothing attended exactly: a single key carries all the mass.
      std::fill(d.exact.begin(), d.exact.end(), -INFINITY);
      EXPECT(d.draw(0.05, 1, 1).counts == std::vector<int32_t>({1, 1}));
      // Far from the reference, above and below.
      std::fill(d.exact.begin(), d.exact.end(), -3e4f);
      EXPECT(d.draw(0.05, 1, 100).counts[0] > 0);
      std::fill(d.exact.begin(), d.exact.end(), 3e4f);
      EXPECT_EQ(d.draw(0.05, 1, 100).counts[0], 0);
      for (const float spread : {1e-6f, 300.0f, 1e6f, 1e15f}) {
        Drawn far(isa.c_str(), kind, 3, 1, 100, 64, 1, spread);
        std::fill(far.exact.begin(), far.exact.end(), -INFINITY);
        const Found f = far.draw(0.5, 4, 100);
        EXPECT(f.counts[0] > 0);
        EXPECT(std::isfinite(f.errors[0]));
      }
    }
  }
}
