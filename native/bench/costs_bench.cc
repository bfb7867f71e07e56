// The cost table of this machine, what type "planned" decides by: of several measurements the lower quartile, number by
// number, which a busy moment moves less than the median.
//   cmake -S native -B build && cmake --build build --target kvasir_costs_bench
//   build/kvasir_costs_bench [rounds = 9]
// First the table, beside that of the reference machine (native/index/cost.cc), then its numbers as they stand there. Thread CPU
// time: what else runs costs caches and bandwidth alone.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "cost.h"
#include "isa.h"

namespace {

using kvasir::CostTable;
using kvasir::SearchCost;

const char* const kNames[] = {"scan, best",   "a key",    "scan, sample", "a key", "lists, best", "a key", "lists, sample", "a key",
                              "a centroid",   "sketched", "a key",        "walk, best", "a key",  "walk, sample", "a key"};
static_assert(sizeof kNames / sizeof *kNames == SearchCost::kNumbers, "a name for each number");

std::vector<double> numbers_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<double> numbers;
  for (double x; in >> x;) numbers.push_back(x);
  return numbers;
}

}  // namespace

int main(int argc, char** argv) {
  const size_t rounds = argc > 1 ? static_cast<size_t>(std::max(1, std::atoi(argv[1]))) : 9;
  std::vector<std::vector<double>> measured;
  for (size_t i = 0; i < rounds; i++) measured.push_back(numbers_of(kvasir::measure_costs(kvasir::find_index_isa("auto")).text()));
  const std::vector<double> reference = numbers_of(CostTable().text());
  std::vector<double> quartiles;
  for (size_t n = 0; n < reference.size(); n++) {
    std::vector<double> all;
    for (const std::vector<double>& one : measured) all.push_back(one[n]);
    std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(rounds / 4), all.end());
    quartiles.push_back(all[rounds / 4]);
  }
  std::printf("nanoseconds, measured | reference; lower quartile of %zu\n", rounds);
  constexpr int32_t kNumbers = SearchCost::kNumbers;
  for (size_t at = 0; at < quartiles.size(); at += kNumbers) {
    const size_t shape = at / kNumbers;
    static const char* const kKinds[] = {"int8", "int4", "rows"};
    std::printf("%s, headDim %d, group of %d:", kKinds[shape / 6], CostTable::kDims[shape / 2 % 3], CostTable::kGroups[shape % 2]);
    for (size_t n = 0; n < kNumbers; n++) std::printf("%s %s %.4g | %.4g", n == 0 ? "" : ",", kNames[n], quartiles[at + n], reference[at + n]);
    std::printf("\n");
  }
  for (size_t at = 0; at < quartiles.size(); at += kNumbers) {
    std::printf("    \"");
    for (size_t n = 0; n < kNumbers; n++) std::printf("%s%.3g", n == 0 ? "" : " ", quartiles[at + n]);
    std::printf(at + kNumbers == quartiles.size() ? "\";\n" : " \"\n");
  }
  return 0;
}
