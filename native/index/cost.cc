#include "cost.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "error.h"

namespace kvasir {
namespace {

// Xeon (Sapphire Rapids), AVX-512, one thread; rows by kind of codes, headDim and group. All columns at once, by kvasir_costs_bench 21;
// a centroid is what it took then as bfloat16, times what four bits of it took of that on a Zen 5 (.66 to .16).
const char kReference[] =
    "0 2.79 0 4.43 2.36e+03 10.3 1.88e+03 25.3 3.32 5.55e+03 4.55 0 48.2 0 70 "
    "1.08e+04 6.01 0 10.8 2.39e+03 67 0 87.6 4.01 1.3e+04 14.6 0 203 0 198 "
    "0 6.26 0 7.21 525 20.6 0 34.2 3.79 6.37e+03 6.2 0 49.2 0 56.7 "
    "1.17e+04 11.2 0 15.8 0 88.1 0 114 5.78 2.48e+04 14.7 0 216 0 197 "
    "0 17.4 0 15.7 0 42 0 72.4 5.96 7.49e+03 7.87 0 55.9 0 67.3 "
    "0 27.4 0 27.8 0 230 0 162 9.38 3.66e+04 20.4 0 242 0 220 "
    "2.45e+03 2.83 0 1.4 2.71e+03 12 938 26.4 3.01 5.52e+03 4.57 0 47.9 0 68.9 "
    "1.48e+04 7.49 1.98e+03 2.01 0 64.5 0 89.5 5.41 1.66e+04 12.4 0 202 0 196 "
    "8.51e+03 5.62 0 3.21 0 21.1 0 34.9 3.87 6.6e+03 5.74 0 44.5 0 60.1 "
    "8.39e+04 15.1 763 3.46 0 90.1 0 109 5.91 2.32e+04 17.3 0 210 0 201 "
    "1.48e+05 11.7 0 6.71 0 39.6 0 65.7 5.54 7.82e+03 8.26 0 55.1 0 64.3 "
    "2.07e+05 50.9 0 6.51 0 168 0 169 9.26 3.46e+04 23.5 0 233 0 197 "
    "0 15.3 0 17.2 2.31e+03 10.5 2.28e+03 25.4 3.29 5.43e+03 4.59 0 50.5 0 66.7 "
    "0 26.3 0 34.3 4.69e+03 60.2 0 90.1 2.77 1.69e+04 13.1 0 199 0 194 "
    "0 34 0 35.4 209 20.5 0 35.8 3.77 6.61e+03 5.69 0 47.3 0 60 "
    "0 43.6 0 51.8 0 96.3 0 124 7.18 2.4e+04 15.4 0 215 0 204 "
    "0 58 0 60.9 0 40 0 65 6.08 6.86e+03 8.08 0 55.5 0 66.3 "
    "0 79.2 0 84 0 195 0 162 7.98 3.94e+04 21.9 0 261 0 198";

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
