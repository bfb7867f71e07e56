// Codes of keys: every kernel against float64, bounds that hold, contents that do not depend on how they came.
#include "codes.h"

#include <cstdio>
#include <map>

#include "file.h"
#include "index_fixture.h"
#include "nibble_planes.h"

using namespace kvasir_test;
using kvasir::Codes;
using kvasir::IndexIsa;
using kvasir::PreparedQuery;

namespace {

constexpr int32_t kDims[] = {64, 80, 96, 128, 256, 5, 33, 16};

// Rows of one element type whose values are known in float64.
struct Cache {
  int32_t kv_heads, count, dim, dtype;
  std::vector<kvasir_memory*> memories;
  kvasir::Rows rows;

  Cache(int32_t kv_heads_, int32_t count_, int32_t dim_, int32_t dtype_, uint64_t seed, int32_t pieces = 2)
      : kv_heads(kv_heads_), count(count_), dim(dim_), dtype(dtype_) {
    Random random(seed);
    const std::vector<float> mean = random.normals(static_cast<size_t>(kv_heads * dim), 2);
    for (int32_t p = 0, at = 0; p < pieces; p++) {
      const int32_t n = p + 1 < pieces ? count / pieces : count - at;
      const size_t elements = static_cast<size_t>(kv_heads) * static_cast<size_t>(n) * static_cast<size_t>(dim);
      kvasir_memory* keys = block(elements * 4);
      kvasir_memory* scales = block(static_cast<size_t>(kv_heads * n) * 4);
      for (size_t i = 0; i < elements; i++) {
        const size_t head = i / (static_cast<size_t>(n) * static_cast<size_t>(dim));
        const float x = mean[head * static_cast<size_t>(dim) + i % static_cast<size_t>(dim)] + random.normal();
        if (dtype == KVASIR_F32) static_cast<float*>(keys->data)[i] = x;
        else if (dtype == KVASIR_F16) static_cast<uint16_t*>(keys->data)[i] = half(x);
        else static_cast<int8_t*>(keys->data)[i] = static_cast<int8_t>(std::lrint(std::fmax(-127.0f, std::fmin(127.0f, x * 20))));
      }
      for (int32_t i = 0; i < kv_heads * n; i++) static_cast<float*>(scales->data)[i] = 0.03f + 0.04f * static_cast<float>(random.uniform());
      const int32_t desc[KVASIR_SEGMENT_DESC] = {7 + at, dtype, kv_heads, n, dim};
      rows.append(std::make_shared<kvasir::Segment>(desc, keys, keys, scales, scales));
      at += n;
    }
  }
  ~Cache() {
    for (kvasir_memory* m : memories) m->release(m);
  }
  std::vector<double> key(int32_t head, int32_t i) const {
    std::vector<float> k(static_cast<size_t>(dim));
    rows.read_keys(k.data(), head, 7 + i, 1);
    return {k.begin(), k.end()};
  }

 private:
  kvasir_memory* block(size_t bytes) {
    memories.push_back(kvasir::share_memory(kvasir::aligned_allocate(bytes), bytes));
    return memories.back();
  }
  // Normal halves suffice.
  static uint16_t half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (std::fabs(x) < 1e-4f) return 0;
    return static_cast<uint16_t>((bits >> 16 & 0x8000) | ((bits >> 13 & 0x3ffff) - (112u << 10)));
  }
};

double logit(const Cache& cache, int32_t head, int32_t i, const float* q, double scale) {
  const std::vector<double> k = cache.key(head, i);
  double dot = 0;
  for (size_t d = 0; d < k.size(); d++) dot += k[d] * static_cast<double>(q[d]);
  return dot * scale;
}

struct Sections final : kvasir::FileWriter, kvasir::FileReader {
  std::map<std::string, std::vector<uint64_t>> data;
  std::map<std::string, size_t> sizes;
  void add(const std::string& name, const void* from, size_t bytes) override {
    auto& to = data[name];
    to.resize(bytes / 8 + 9);
    std::memcpy(base(to), from, bytes);
    sizes[name] = bytes;
  }
  Section find(const std::string& name) const override {
    if (data.count(name) == 0) kvasir::fail(KVASIR_ARGUMENT, "Cannot open index: no section \"%s\"", name.c_str());
    return {base(const_cast<std::vector<uint64_t>&>(data.at(name))), sizes.at(name)};
  }
  std::shared_ptr<const void> holder() const override { return std::make_shared<int>(0); }
  static uint8_t* base(std::vector<uint64_t>& v) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(v.data());
    return reinterpret_cast<uint8_t*>((at + 63) / 64 * 64);
  }
};

std::vector<float> scores(const Codes& codes, const Cache& cache, int32_t head, const std::vector<float>& q, int32_t group,
                          int planes, Codes::Scores kind) {
  PreparedQuery prepared;
  codes.prepare(prepared, head, q.data(), group, 0.125f, planes, kind);
  const size_t stride = static_cast<size_t>((codes.size() + 31) / 32 * 32);
  std::vector<float> out(stride * static_cast<size_t>(group));
  codes.score_all(prepared, cache.rows, 0, codes.size(), out.data(), stride);
  return out;
}

}  // namespace

TEST("codes score every key within their own bounds, every head size, group, cache and instruction set") {
  for (const std::string& name : isas()) {
    const IndexIsa& isa = kvasir::find_index_isa(name.c_str());
    int32_t group = 0, dtype = 0;
    for (int32_t round = 0; round < 16; round++) {
      const int32_t dim = kDims[round / 2];
      group = group % 8 + 1;
      const int32_t dtypes[] = {KVASIR_F32, KVASIR_F16, KVASIR_I8};
      const Codes::Kind kind = round % 2 == 0 ? Codes::kInt8 : Codes::kInt4;
      const double coarse = kind == Codes::kInt8 ? 1 : 20;  // 16 steps instead of 256
      Cache cache(2, 117, dim, dtypes[dtype++ % 3], static_cast<uint64_t>(dim));
      Codes codes(&isa, kind, 2, dim);
      codes.append(cache.rows, 7, 117, nullptr);
      Random random(5);
      const std::vector<float> q = random.normals(static_cast<size_t>(group * dim));
      for (int32_t head = 0; head < 2; head++) {
        const std::vector<float> upper = scores(codes, cache, head, q, group, 2, Codes::kUpper);
        const std::vector<float> two = scores(codes, cache, head, q, group, 2, Codes::kPlain);
        const std::vector<float> one = scores(codes, cache, head, q, group, 1, Codes::kPlain);
        for (int32_t g = 0; g < group; g++) {
          double worst_two = 0, worst_one = 0, slack = 0, spread = 0;
          for (int32_t i = 0; i < 117; i++) {
            const size_t at = static_cast<size_t>(g * 128 + i);
            const double want = logit(cache, head, i, q.data() + g * dim, 0.125);
            EXPECT(double(upper[at]) >= want);
            worst_two = std::fmax(worst_two, std::fabs(double(two[at]) - want));
            worst_one = std::fmax(worst_one, std::fabs(double(one[at]) - want));
            slack = std::fmax(slack, double(upper[at]) - double(two[at]));
            spread = std::fmax(spread, std::fabs(want - logit(cache, head, 0, q.data() + g * dim, 0.125)));
          }
          EXPECT(worst_two < (0.005 * std::sqrt(dim) + 0.005) * coarse);
          EXPECT(worst_two < slack);
          EXPECT(worst_one < (0.015 * std::sqrt(dim) + 0.005) * coarse);
          EXPECT(slack < (0.0025 * dim + 0.02) * coarse);
          EXPECT_EQ(two[static_cast<size_t>(g * 128 + 120)], -INFINITY);
          EXPECT(spread > 0.05);  // of scores that differ at all
        }
      }
    }
  }
}

TEST("4-bit codes come apart into planes, and together again") {
  for (const int32_t dim : {64, 80, 128, 256}) {
    const kvasir::CodeShape shape(dim, 4), coarse_shape = kvasir::coarse_shape(shape);
    const size_t row = static_cast<size_t>(shape.bands * kvasir::kFineBandBytes);
    Random random(6);
    std::vector<uint8_t> blocks(2 * shape.block_bytes), coarse(2 * coarse_shape.block_bytes), fine(64 * row), again(blocks.size());
    for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(random.bits());
    EXPECT_EQ(coarse.size() + fine.size(), blocks.size());
    for (size_t b = 0; b < 2; b++) {
      // An odd pair of bands leaves room behind its scales.
      if (shape.bands % 2 == 1) {
        for (int32_t key = 0; key < 32; key++) {
          std::memset(blocks.data() + b * shape.block_bytes + kvasir::nibble_scale_at(key, shape.bands, shape.bands), 0, 2);
        }
      }
      for (const int32_t cut : {5, 32}) {
        const int32_t from = cut == 5 ? 0 : 5;
        kvasir::split_lanes(coarse.data() + b * coarse_shape.block_bytes, fine.data() + b * 32 * row, shape,
                            blocks.data() + b * shape.block_bytes, from, cut - from);
      }
    }
    kvasir::join_blocks(again.data(), shape, coarse.data(), fine.data(), 2);
    EXPECT(again == blocks);
    std::fill(again.begin(), again.end(), uint8_t{0});
    for (int32_t key = 0; key < 32; key++) {
      kvasir::join_lane(again.data(), key, shape, coarse.data() + coarse_shape.block_bytes, key, fine.data() + static_cast<size_t>(32 + key) * row);
    }
    EXPECT(std::equal(again.begin(), again.begin() + static_cast<std::ptrdiff_t>(shape.block_bytes),
                      blocks.begin() + static_cast<std::ptrdiff_t>(shape.block_bytes)));
  }
}

TEST("a scan asks for what it will read: further on in its run, then in the next, and never elsewhere") {
  const std::vector<uint8_t> memory(4096);
  const uint8_t* const run = memory.data();
  kvasir::ScanAhead ahead(run + 1000, run + 3000, 100);
  EXPECT(ahead.near > 0 && ahead.near % 100 == 0 && ahead.far % 100 == 0);
  for (int32_t at = 0; at < 1000; at += 100) {
    const ptrdiff_t from = ahead.from(run + at, 300);
    EXPECT_EQ(at + from, at < 700 ? at + 300 : 3000 + at - 700);
  }
  ahead.next = nullptr;
  EXPECT_EQ(ahead.from(run + 700, 300), ptrdiff_t{0});
  EXPECT_EQ(ahead.from(run + 600, 300), ptrdiff_t{300});
  EXPECT_EQ(kvasir::ScanAhead().from(run, 300), ptrdiff_t{0});
}

TEST("chunks that are encoded at once lie one behind the other, their blocks, their fine planes") {
  const Cache cache(2, 3 * Codes::kChunkKeys, 64, KVASIR_F16, 5);
  for (const Codes::Kind kind : {Codes::kInt8, Codes::kInt4}) {
    Codes codes(&kvasir::find_index_isa("auto"), kind, 2, 64);
    codes.append(cache.rows, 7, 3 * Codes::kChunkKeys, nullptr);
    const ptrdiff_t bytes = static_cast<ptrdiff_t>(codes.kept_shape().block_bytes * Codes::kChunkBlocks);
    for (int32_t head = 0; head < 2; head++) {
      for (int32_t chunk = 0; chunk < 2; chunk++) {
        EXPECT_EQ(codes.blocks(head, chunk + 1) - codes.blocks(head, chunk), bytes);
        const ptrdiff_t fine = static_cast<ptrdiff_t>(codes.fine_bytes() * Codes::kChunkKeys);
        if (kind == Codes::kInt4) EXPECT_EQ(codes.fine(head, chunk + 1) - codes.fine(head, chunk), fine);
        const kvasir::ScanAhead ahead = codes.ahead(head, chunk, nullptr);
        EXPECT(ahead.end == codes.blocks(head, chunk) + bytes && ahead.next == codes.blocks(head, chunk + 1));
      }
      EXPECT(codes.ahead(head, 2, codes.blocks(0, 0)).next == codes.blocks(0, 0));
    }
  }
}

TEST("gathered scores are those of the scan") {
  for (const std::string& name : isas()) {
    const IndexIsa& isa = kvasir::find_index_isa(name.c_str());
    for (const int32_t dim : {64, 80, 33, 256, -64, -80, -33, -256}) {
      Cache cache(1, 2300, std::abs(dim), KVASIR_F16, 3);
      Codes codes(&isa, dim > 0 ? Codes::kInt8 : Codes::kInt4, 1, cache.dim);
      codes.append(cache.rows, 7, 2300, nullptr);
      Random random(8);
      for (const Codes::Scores kind : {Codes::kPlain, Codes::kUpper}) {
        const std::vector<float> q = random.normals(static_cast<size_t>(5 * cache.dim));
        const std::vector<float> all = scores(codes, cache, 0, q, 5, 2, kind);
        PreparedQuery prepared;
        codes.prepare(prepared, 0, q.data(), 5, 0.125f, 2, kind);
        std::vector<int32_t> ids;
        for (int32_t i = 0; i < 100; i++) ids.push_back(static_cast<int32_t>(random.bits() % 2300));
        std::vector<float> out(500);
        codes.score(prepared, cache.rows, ids.data(), 100, out.data(), 100);
        for (size_t i = 0; i < 100; i++) {
          for (size_t g = 0; g < 5; g++) EXPECT_NEAR(out[g * 100 + i], all[g * 2304 + static_cast<size_t>(ids[i])], 2e-5);
        }
      }
    }
  }
}

TEST("codes depend on the keys, not on how they were added") {
  const IndexIsa& isa = kvasir::find_index_isa("auto");
  Cache cache(2, 5000, 40, KVASIR_F32, 4);
  kvasir::Pool pool(2);
  Random random(9);
  const std::vector<float> q = random.normals(40);
  for (const Codes::Kind kind : {Codes::kInt8, Codes::kInt4}) {
    Codes step(&isa, kind, 2, 40);
    for (const int32_t at : {1, 31, 32, 33, 64, 700, 2047, 2048, 2049, 2079, 2080, 4097, 5000}) {
      step.append(cache.rows, step.size() + 7, at - step.size(), nullptr);
      Codes whole(&isa, kind, 2, 40);
      whole.append(cache.rows, 7, at, &pool);
      for (int32_t head = 0; head < 2; head++) {
        EXPECT(scores(step, cache, head, q, 1, 2, Codes::kUpper) == scores(whole, cache, head, q, 1, 2, Codes::kUpper));
      }
    }
  }
}

TEST("a fork of codes keeps its own open chunk, and a file gives the same scores") {
  const IndexIsa& isa = kvasir::find_index_isa("auto");
  for (const Codes::Kind kind : {Codes::kInt8, Codes::kInt4}) {
    Cache one(1, 3000, 64, KVASIR_F32, 4), other(1, 3000, 64, KVASIR_F32, 5);
    Random random(9);
    const std::vector<float> q = random.normals(64);
    Codes a(&isa, kind, 1, 64);
    a.append(one.rows, 7, 2500, nullptr);
    const std::vector<float> before = scores(a, one, 0, q, 1, 2, Codes::kPlain);
    Codes b = a.fork();
    b.append(other.rows, 2507, 10, nullptr);
    EXPECT(scores(a, one, 0, q, 1, 2, Codes::kPlain) == before);
    const std::vector<float> forked = scores(b, one, 0, q, 1, 2, Codes::kPlain);
    a.append(one.rows, 2507, 10, nullptr);
    EXPECT(scores(b, one, 0, q, 1, 2, Codes::kPlain) == forked);
    const std::vector<float> after = scores(a, one, 0, q, 1, 2, Codes::kPlain);
    EXPECT(after != forked);

    Sections file;
    a.save(file);
    Codes c(&isa, kind, 1, 64);
    c.restore(file);
    EXPECT(scores(c, one, 0, q, 1, 2, Codes::kPlain) == after);
    c.append(one.rows, 2517, 10, nullptr);
    a.append(one.rows, 2517, 10, nullptr);
    EXPECT(scores(c, one, 0, q, 1, 2, Codes::kPlain) == scores(a, one, 0, q, 1, 2, Codes::kPlain));
    Codes wrong(&isa, kind, 1, 63);
    bool refused = false;
    try {
      wrong.restore(file);
    } catch (const kvasir::Error& e) {
      refused = e.status == KVASIR_ARGUMENT;
    }
    EXPECT(refused);
  }
}
