#include "glu.h"

#include "isa.h"
#include "parallel.h"
#include "vector.h"

namespace kvasir {

// Elements one worker should get at least: exponential and division, and waking it costs about a microsecond.
constexpr size_t kGrain = 8192;

GluKernel glu_kernel(const kvasir_context& ctx, int32_t activation, const char* what) {
  if (activation == KVASIR_SILU) return ctx.isa->vector->silu;
  if (activation == KVASIR_GELU) return ctx.isa->vector->gelu;
  fail(KVASIR_ARGUMENT, "Cannot run %s: unknown activation %d", what, activation);
}

void run_glu(kvasir_context& ctx, GluKernel kernel, float* out, const float* gate, const float* up, size_t count) {
  parallel_for(*ctx.pool, count, kGrain,
               [&](size_t from, size_t end) { kernel(out + from, gate + from, up + from, end - from); });
}

}  // namespace kvasir
