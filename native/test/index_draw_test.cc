// Stages of a draw, kernel by kernel.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "draw.h"
#include "index_drawn.h"
#include "sample_kernels.h"

using namespace kvasir_test;

TEST("int8 codes in one pass give what scores in memory give, to the bit") {
  for (const std::string& name : isas()) {
    const kvasir::IndexIsa& isa = kvasir::find_index_isa(name.c_str());
    if (isa.sample->sweep_bytes == nullptr) continue;
    for (const int32_t dim : {32, 64, 80, 128, 256}) {
      for (int32_t group = 1; group <= 4; group++) {
        constexpr int32_t kBlocks = 67, kKeys = kBlocks * kvasir::kBlockKeys, kRoom = kKeys + 64;
        Drawn d(name.c_str(), Codes::kInt8, group, 1, kKeys, dim);
        kvasir::PreparedQuery query;
        d.codes.prepare(query, 0, d.q.data(), group, d.shape.scale, 1, Codes::kPlain);
        // As if a chunk had so many blocks: more than are listed at a time.
        std::vector<uint8_t> codes;
        for (int32_t chunk = 0; chunk < d.codes.chunks(); chunk++) {
          const uint8_t* from = d.codes.blocks(0, chunk);
          const int32_t blocks = std::min<int32_t>(Codes::kChunkBlocks, kBlocks - chunk * static_cast<int32_t>(Codes::kChunkBlocks));
          codes.insert(codes.end(), from, from + static_cast<size_t>(blocks) * d.codes.shape().block_bytes);
        }
        const size_t all = static_cast<size_t>(group);
        std::vector<float> scores(all * kKeys), sums[2];
        std::vector<int16_t> logs[2], found[2], offsets;
        std::vector<int32_t> keys[2];
        int32_t count[2];
        for (size_t way = 0; way < 2; way++) {
          logs[way].resize(all * kKeys), found[way].resize(all * kRoom), keys[way].resize(kRoom);
          sums[way].assign(all * kvasir::kFoldSums, 3);
          const kvasir::Candidates to = {keys[way].data(), found[way].data(), kRoom};
          if (way == 0) {
            isa.codes->scan(scores.data(), kKeys, d.codes.shape(), query.codes(), query.base(0), codes.data(), nullptr, kBlocks,
                            kvasir::ScanAhead());
            for (size_t g = 0; g < all; g++) {
              isa.sample->fold(logs[0].data() + g * kKeys, scores.data() + g * kKeys, kKeys, d.exact[g],
                               sums[0].data() + g * kvasir::kFoldSums);
            }
            for (size_t g = 0; g < all; g++) {
              const auto lanes = sums[0].begin() + static_cast<std::ptrdiff_t>(g * kvasir::kFoldSums);
              const float sum = std::accumulate(lanes, lanes + kvasir::kFoldSums, 0.0f);
              offsets.push_back(static_cast<int16_t>(2048 - 128 * std::log2(sum / 200)));
            }
            count[0] = isa.sample->draw(to, logs[0].data(), kKeys, offsets.data(), group, 96, kBlocks, 12345);
          } else {
            count[1] = isa.sample->sweep_bytes(to, logs[1].data(), kKeys, d.codes.shape(), query.codes(), query.base(0), d.exact.data(),
                                               offsets.data(), codes.data(), 96, kBlocks, kvasir::ScanAhead(), 12345, sums[1].data());
          }
          keys[way].resize(static_cast<size_t>(count[way]));
        }
        EXPECT(count[0] > 10 && count[0] < kKeys);
        EXPECT(logs[0] == logs[1] && sums[0] == sums[1] && keys[0] == keys[1]);
        for (size_t g = 0; g < all; g++) {
          const auto row = found[0].begin() + static_cast<std::ptrdiff_t>(g * kRoom);
          EXPECT(std::equal(row, row + count[0], found[1].begin() + static_cast<std::ptrdiff_t>(g * kRoom)));
        }
      }
    }
    // And whole samples, of keys that end within a block.
    Drawn d(name.c_str(), Codes::kInt8, 3, 2, 6000, 64);
    const Found one = d.draw(0.05, 9, 5997);
    kvasir::SampleKernels plain = *isa.sample;
    plain.sweep_bytes = nullptr;
    kvasir::IndexIsa other = isa;
    other.sample = &plain;
    d.environment.isa = &other;
    const Found two = d.draw(0.05, 9, 5997);
    EXPECT(one.counts == two.counts && one.tokens == two.tokens && one.errors == two.errors);
  }
}

TEST("what is sifted adds up to all, on average, and to the same whatever else was a candidate") {
  constexpr int32_t kCount = 640;
  for (const std::string& name : isas()) {
    const kvasir::SampleKernels& kernels = *kvasir::find_index_isa(name.c_str()).sample;
    Random random(21);
    std::vector<int16_t> coarse(2 * 700), fine(coarse.size());
    double truth[2] = {};
    for (size_t at = 0; at < coarse.size(); at++) {
      coarse[at] = static_cast<int16_t>(kvasir::kLogOne - 700 + random.normals(1)[0] * 250);
      fine[at] = static_cast<int16_t>(coarse[at] + random.normals(1)[0] * 60);
      const uint32_t bits = static_cast<uint32_t>(fine[at]) << 16;
      float value;
      std::memcpy(&value, &bits, 4);
      if (at % 700 < 637) truth[at / 700] += double(value);
    }
    const int16_t offsets[2] = {1700, 1650}, wide[2] = {2000, 2100};
    Moments sums[2];
    for (uint32_t draw = 0; draw < 2000; draw++) {
      const uint32_t key = kvasir::lowbias32(draw + 77);
      float found[2][2] = {};
      std::vector<int32_t> kept[2];
      for (int way = 0; way < 2; way++) {
        std::vector<int32_t> keys(kCount + 64);
        std::vector<int16_t> logs(2 * (kCount + 64)), refined(logs.size()), tops(keys.size());
        const kvasir::Candidates to = {keys.data(), logs.data(), kCount + 64};
        const int32_t count = kernels.draw(to, coarse.data(), 700, way == 0 ? offsets : wide, 2, 64, 20, key);
        for (int32_t g = 0; g < 2; g++) {
          for (int32_t i = 0; i < count; i++) {
            refined[static_cast<size_t>(g * (kCount + 64) + i)] = fine[static_cast<size_t>(g * 700 + keys[static_cast<size_t>(i)])];
          }
        }
        keys.resize(static_cast<size_t>(kernels.sift(to, refined.data(), tops.data(), offsets, 2, 2048, 2048 + 637, count, {key, 5}, found[way])));
        for (size_t i = 0; i < keys.size(); i++) {
          EXPECT_EQ(logs[i], fine[static_cast<size_t>(keys[i])]);
          EXPECT_EQ(tops[i], std::max<int32_t>(kvasir::kDrawLeast, std::max(coarse[static_cast<size_t>(keys[i])] + offsets[0],
                                                                            coarse[static_cast<size_t>(700 + keys[i])] + offsets[1])));
        }
        kept[way] = keys;
      }
      EXPECT(kept[0] == kept[1] && found[0][0] == found[1][0] && found[0][1] == found[1][1]);
      for (int g = 0; g < 2; g++) sums[g].add(double(found[0][g]));
    }
    for (int g = 0; g < 2; g++) EXPECT(std::fabs(sums[g].mean() - truth[g]) < 4 * sums[g].error());
  }
}

TEST("what is settled in one chunk leaves the next chunk's candidates alone") {
  for (const std::string& name : isas()) {
    const kvasir::SampleKernels& kernels = *kvasir::find_index_isa(name.c_str()).sample;
    for (int32_t count = 1; count <= 40; count++) {
      std::vector<int32_t> keys(128);
      for (int32_t i = 0; i < 128; i++) keys[static_cast<size_t>(i)] = 3 * i;
      std::vector<int16_t> logs(128, kvasir::kDrawOne), tops(128, -7);
      const int16_t offset = 0;
      double squares = 0;
      EXPECT_EQ(kernels.settle({keys.data(), logs.data(), 128}, tops.data(), &offset, 1, 2048, 1 << 20, count, {1, 2}, false, &squares), count);
      for (int32_t i = 0; i < 128; i++) {
        EXPECT_EQ(keys[static_cast<size_t>(i)], 3 * i + (i < count ? 2048 : 0));
        EXPECT_EQ(tops[static_cast<size_t>(i)], i < count ? kvasir::kDrawOne : -7);
      }
    }
  }
}
