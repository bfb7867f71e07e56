#include "cost.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "error.h"

namespace kvasir {
namespace {

// Xeon (Sapphire Rapids), AVX-512, one thread; a row a kind of codes and headDim, groups of 1 and 4 behind each other.
const char kReference[] =
    "0 5.04 0 5.11 5.16e+03 57.5 3.36e+03 73.4 6.27 1.66e+04 8.33 1.31e+03 13 2.76e+04 110 0 156 27.7 "
    "0 14.9 0 8.63 1e+04 82.3 4.61e+03 93.7 19.9 3.07e+04 18 5.45e+03 17 7.49e+04 136 3.38e+04 176 29 "
    "0 32.9 0 20.4 2.49e+04 162 1.26e+04 172 16.8 6.24e+04 42.9 0 40.7 2.39e+05 224 5.83e+04 238 63.8 "
    "1.38e+04 4.06 0 1.76 3.68e+03 149 7.32e+03 121 6.23 4.4e+04 12.5 3.15e+03 2.54 0 499 0 368 141 "
    "1.99e+04 7.8 0 4.25 1.96e+04 259 1.62e+04 156 13.9 8.78e+04 36.9 1.05e+03 5.59 2.7e+05 890 1.03e+05 646 12.8 "
    "0 56.7 0 7.94 5.37e+04 538 2.08e+04 356 9.77 0 129 1.55e+04 9.28 4.98e+05 1.75e+03 2.87e+05 986 119 "
    "0 56.8 0 57.5 0 138 0 118 5.16 0 71.3 0 70.5 0 262 0 287 75 "
    "0 76.2 0 77 0 253 0 258 1.65 0 88.5 0 88.8 0 323 0 318 62.3 "
    "0 134 0 131 0 406 0 433 27.1 0 144 0 161 1.19e+05 462 0 517 36.4";

constexpr int kShapes = CostTable::kKinds * 3 * 2;

double* numbers_of(SearchCost& cost, int i) {
  double* all[SearchCost::kNumbers] = {&cost.scan_best,    &cost.scan_best_key,    &cost.scan_sample,
                                       &cost.scan_sample_key, &cost.lists_best,    &cost.lists_best_key,
                                       &cost.lists_sample, &cost.lists_sample_key, &cost.centroid};
  return all[i];
}

double number_of(const SearchCost& cost, int i) { return *numbers_of(const_cast<SearchCost&>(cost), i); }

// Place of x among three ascending points: the lower one of its pair and the part towards the upper, which may leave [0, 1].
void place(const int32_t* points, int count, int32_t x, int* lower, double* part) {
  *lower = count == 3 && x > points[1] ? 1 : 0;
  *part = static_cast<double>(x - points[*lower]) / (points[*lower + 1] - points[*lower]);
}

}  // namespace

constexpr int32_t CostTable::kDims[3], CostTable::kGroups[2];

CostTable::CostTable() : CostTable(kReference) {}

CostTable::CostTable(const std::string& text) : costs_(static_cast<size_t>(kShapes)) {
  const char* at = text.c_str();
  for (int i = 0; i < kShapes * SearchCost::kNumbers; i++) {
    char* end = nullptr;
    const double value = std::strtod(at, &end);
    const bool last = i == kShapes * SearchCost::kNumbers - 1;
    if (end == at || !std::isfinite(value) || value < 0 || value > 1e9 || *end != (last ? '\0' : ' ')) {
      fail(KVASIR_ARGUMENT, "Cannot use costs: number %d of %d is no time in nanoseconds", i + 1, kShapes * SearchCost::kNumbers);
    }
    *numbers_of(costs_[static_cast<size_t>(i / SearchCost::kNumbers)], i % SearchCost::kNumbers) = value;
    at = end + 1;
  }
}

std::string CostTable::text() const {
  std::string text;
  char number[32];
  for (const SearchCost& cost : costs_) {
    for (int i = 0; i < SearchCost::kNumbers; i++) {
      std::snprintf(number, sizeof number, "%s%.4g", text.empty() ? "" : " ", number_of(cost, i));
      text += number;
    }
  }
  return text;
}

SearchCost CostTable::at(int kind, int32_t head_dim, int32_t group) const {
  int dim, g;
  double dim_part, group_part;
  place(kDims, 3, head_dim, &dim, &dim_part);
  place(kGroups, 2, group, &g, &group_part);
  SearchCost cost;
  for (int i = 0; i < SearchCost::kNumbers; i++) {
    const auto line = [&](int of_group) {
      const double a = number_of(measured(kind, dim, of_group), i), b = number_of(measured(kind, dim + 1, of_group), i);
      return a + (b - a) * dim_part;
    };
    const double low = line(0), high = line(1), value = low + (high - low) * group_part;
    const double nearest = number_of(measured(kind, dim + (dim_part > 0.5), group_part > 0.5), i);
    *numbers_of(cost, i) = std::max(value, nearest / 10);
  }
  return cost;
}

}  // namespace kvasir
