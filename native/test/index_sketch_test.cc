// Kernels that score 4-bit codes for a group, and that list what is marked: the same on every instruction set.
#include "codes.h"
#include "graph_kernels.h"
#include "index_fixture.h"

using namespace kvasir_test;
using kvasir::GraphCodeTerms;
using kvasir::GraphKernels;

namespace {

// Integers in float32, as the kernels count: bases + factors * scale * (sum of nibble * q + offset).
struct CodeCase {
  size_t row_bytes, line_bytes;
  int32_t group, count;
  std::vector<uint8_t> codes;
  std::vector<int8_t> lines;
  std::vector<int32_t> offsets;
  std::vector<float> factors, bases, scales;
  std::vector<const uint8_t*> rows;

  CodeCase(size_t bytes, int32_t heads, int32_t keys, Random& random)
      : row_bytes(bytes), line_bytes((bytes + 63) / 64 * 64), group(heads), count(keys) {
    codes.resize(row_bytes * static_cast<size_t>(keys));
    for (uint8_t& b : codes) b = static_cast<uint8_t>(random.bits());
    lines.assign(line_bytes * 2 * static_cast<size_t>(heads), 0);
    for (size_t line = 0; line < static_cast<size_t>(heads) * 2; line++) {
      for (size_t i = 0; i < row_bytes; i++) lines[line * line_bytes + i] = static_cast<int8_t>(static_cast<int>(random.bits() % 255) - 127);
    }
    for (int32_t g = 0; g < heads; g++) offsets.push_back(static_cast<int32_t>(random.bits() % 2001) - 1000);
    factors = random.normals(static_cast<size_t>(heads));
    bases = random.normals(static_cast<size_t>(heads));
    scales = random.normals(static_cast<size_t>(keys));
    // Rows anywhere, some twice.
    for (int32_t i = 0; i < keys; i++) rows.push_back(codes.data() + random.bits() % static_cast<size_t>(keys) * row_bytes);
  }
  GraphCodeTerms terms() const {
    return {lines.data(), line_bytes, row_bytes, offsets.data(), factors.data(), bases.data()};
  }
  double want(int32_t i, int32_t g) const {
    const size_t at = static_cast<size_t>(g);
    double sum = offsets[at];
    for (size_t b = 0; b < row_bytes; b++) {
      const int code = rows[static_cast<size_t>(i)][b];
      sum += (code & 15) * lines[at * 2 * line_bytes + b] + (code >> 4) * lines[(at * 2 + 1) * line_bytes + b];
    }
    return static_cast<double>(bases[at]) + static_cast<double>(factors[at]) * static_cast<double>(scales[static_cast<size_t>(i)]) * sum;
  }
};

}  // namespace

TEST("4-bit codes give a group's scores side by side and head by head, every row size, group and instruction set") {
  for (const std::string& name : isas()) {
    const GraphKernels& kernels = *kvasir::find_index_isa(name.c_str()).graph;
    Random random(9);
    for (size_t row_bytes : {32, 64, 96, 128}) {
      for (int32_t group = 1; group <= 8; group++) {
        for (int32_t count : {1, 3, 4, 7, 16, 37}) {
          const CodeCase c(row_bytes, group, count, random);
          const size_t stride = static_cast<size_t>(count) + 5;
          std::vector<float> beside(static_cast<size_t>(count * group)), apart(stride * static_cast<size_t>(group), -7);
          kernels.score_codes(beside.data(), c.terms(), group, c.rows.data(), c.scales.data(), count);
          kernels.score_code_heads(apart.data(), stride, c.terms(), group, c.rows.data(), c.scales.data(), count);
          for (int32_t g = 0; g < group; g++) {
            const float* own = apart.data() + static_cast<size_t>(g) * stride;
            for (int32_t i = 0; i < count; i++) {
              const double want = c.want(i, g);
              EXPECT(std::fabs(static_cast<double>(own[i]) - want) <= 1e-6 * std::fabs(want) + 0.01);
              EXPECT_EQ(own[i], beside[static_cast<size_t>(i * group + g)]);
            }
            EXPECT_EQ(own[count], -7.0f);  // nothing is written behind
          }
        }
      }
    }
  }
}

TEST("marked places are listed in order, however many a word has") {
  for (const std::string& name : isas()) {
    const GraphKernels& kernels = *kvasir::find_index_isa(name.c_str()).graph;
    Random random(4);
    std::vector<uint64_t> words;
    for (int thin = 0; thin < 6; thin++) {
      for (int i = 0; i < 20; i++) {
        uint64_t word = random.bits();
        for (int j = 0; j < thin; j++) word &= random.bits();
        words.push_back(i == 7 ? 0 : i == 8 ? ~uint64_t{0} : word);
      }
    }
    std::vector<int32_t> want, got(words.size() * 64 + 64);
    for (size_t i = 0; i < words.size() * 64; i++) {
      if ((words[i / 64] >> (i % 64) & 1) != 0) want.push_back(static_cast<int32_t>(i));
    }
    const int32_t found = kernels.list_bits(got.data(), words.data(), static_cast<int32_t>(words.size()));
    got.resize(static_cast<size_t>(found));
    EXPECT(got == want);
  }
}
