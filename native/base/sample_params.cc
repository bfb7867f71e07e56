#include "sample_params.h"

#include <cmath>

#include "error.h"

namespace kvasir {

void check_params(const SampleParams& p) {
  auto check = [](const char* name, double value, bool ok, const char* range) {
    if (!ok) fail(KVASIR_ARGUMENT, "Cannot sample: %s is %g, expected %s", name, value, range);
  };
  check("temperature", p.temperature, p.temperature >= 0 && std::isfinite(p.temperature), "0 or more");
  check("top-k", p.top_k, p.top_k >= 0 && p.top_k < 0x1p53 && p.top_k == std::floor(p.top_k), "a whole number");
  check("typical-p", p.typical_p, p.typical_p >= 0 && p.typical_p <= 1, "0 to 1");
  check("top-p", p.top_p, p.top_p >= 0 && p.top_p <= 1, "0 to 1");
  check("min-p", p.min_p, p.min_p >= 0 && p.min_p <= 1, "0 to 1");
  check("uniform", p.uniform, p.uniform >= 0 && p.uniform < 1, "0 to below 1");
}

}  // namespace kvasir
