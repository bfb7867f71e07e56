// What a token is drawn by; the rule is in cpu/sampling.h.
#pragma once

namespace kvasir {

struct SampleParams {
  double temperature, top_k, typical_p, top_p, min_p, uniform;
};

// Throws Error{KVASIR_ARGUMENT} naming the value and its range.
void check_params(const SampleParams& p);

}  // namespace kvasir
