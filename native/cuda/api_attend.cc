// Attention.
#include "context.h"

using namespace kvasir;

namespace {

int32_t refuse() { return report(KVASIR_UNSUPPORTED, "Cannot attend: cuda has no attention kernels yet"); }

}  // namespace

extern "C" {

int32_t kvasir_attend_causal(kvasir_context*, kvasir_tensor, kvasir_tensor, const int32_t*, int32_t, float, float, int32_t) { return refuse(); }
int32_t kvasir_attend_causal_part(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor, const int32_t*, int32_t, float, float, int32_t) { return refuse(); }
int32_t kvasir_attend_window(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor, const int32_t*, int32_t, float, float, const int32_t*, int32_t) { return refuse(); }
int32_t kvasir_attend_topk(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor, const int32_t*, int32_t, float, float, kvasir_tensor, kvasir_tensor, kvasir_tensor) { return refuse(); }
int32_t kvasir_attend_causal_sink(kvasir_context*, kvasir_tensor, kvasir_tensor, const int32_t*, int32_t, float, float,
                                 int32_t, int32_t, kvasir_tensor, kvasir_tensor, kvasir_tensor) {
  return refuse(); }

}  // extern "C"
