// The gate of a gated linear unit, its elements among the workers: of two tensors, or of two products.
#pragma once
#include <cstddef>
#include <cstdint>

#include "context.h"

namespace kvasir {

// out = activation(gate) * up of `count` elements; out may be either input.
using GluKernel = void (*)(float* out, const float* gate, const float* up, size_t count);

// Throws Error{KVASIR_ARGUMENT} naming `what` unless the activation is KVASIR_SILU or KVASIR_GELU.
GluKernel glu_kernel(const kvasir_context& ctx, int32_t activation, const char* what);

void run_glu(kvasir_context& ctx, GluKernel kernel, float* out, const float* gate, const float* up, size_t count);

}  // namespace kvasir
