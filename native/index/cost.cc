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
    "3.13e+03 3.03 0 4.58 2.97e+03 16.2 3.89e+03 40 6.22 1.1e+04 12.9 0 75.5 0 102 "
    "1.3e+04 8.06 320 12.4 1.51e+04 75.7 0 136 17.2 3.49e+04 35.3 0 242 0 198 "
    "0 6.29 0 7.48 1.62e+03 20.3 2.38e+03 33.3 5.07 7.17e+03 5.38 0 36.7 0 51.7 "
    "2.97e+04 12.2 6.79e+03 15.2 1.01e+04 148 0 138 28.2 4.33e+04 39.1 0 289 0 260 "
    "0 24.5 0 16.7 0 76.8 0 104 27.2 1.53e+04 17.3 0 93.8 0 73.2 "
    "1.43e+04 38.5 0 35.8 0 325 0 255 96 7.56e+04 120 0 464 0 275 "
    "7.88e+03 4.71 0 1.55 2.61e+03 19.3 1.39e+03 50.6 6.13 1.03e+04 15.7 0 86.9 0 118 "
    "1.24e+04 15.2 3.14e+03 2.71 2.58e+03 90.5 0 112 22.9 3.95e+04 50.5 0 295 0 284 "
    "2.97e+04 5.13 0 3.36 46.5 32.9 36.8 47.5 12.3 1.02e+04 8.16 0 65 0 73.9 "
    "6.65e+04 23.1 3.42e+03 4.29 3.27e+03 84.6 6.32e+03 143 41 2.9e+04 27 0 177 0 168 "
    "2.69e+05 16.7 0 6.39 0 41.6 0 73.2 25.7 7.43e+03 8.76 0 48.6 0 55.1 "
    "1.78e+05 61.3 529 9.19 0 234 0 203 103 8.03e+04 85.4 0 388 0 289 "
    "0 25.6 0 17.4 3.01e+03 21.6 4.79e+03 37.4 3.45 1.29e+04 14.2 0 109 0 148 "
    "0 36.9 0 30.6 1.49e+04 83.5 0 84.5 16.4 4e+04 41.9 0 258 0 249 "
    "0 39.1 0 37 951 33.5 1.24e+03 34 10.1 1.1e+04 8.51 0 69.7 0 98.4 "
    "0 43.9 1.73e+04 58.5 3.9e+03 148 0 161 43.8 5.45e+04 50.9 0 360 0 327 "
    "0 65.6 0 63.1 0 42.6 0 75.9 22.5 8.2e+03 9.48 0 48.2 0 64.1 "
    "0 79.9 0 103 0 304 0 242 133 9.74e+04 73.1 0 420 0 308";

constexpr int kShapes = CostTable::kKinds * 3 * 2;

double* numbers_of(SearchCost& cost, int i) {
  double* all[SearchCost::kNumbers] = {&cost.scan_best,    &cost.scan_best_key,    &cost.scan_sample,
                                       &cost.scan_sample_key, &cost.lists_best,    &cost.lists_best_key,
                                       &cost.lists_sample, &cost.lists_sample_key, &cost.centroid,
                                       &cost.sketched_best, &cost.sketched_best_key, &cost.walked_best,
                                       &cost.walked_best_key, &cost.walked_sample, &cost.walked_sample_key};
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
