// Kernels that are not written yet.
#include "context.h"

using namespace kvasir;

namespace {

int32_t refuse() { return report(KVASIR_UNSUPPORTED, "Cannot run kernel: cuda does not have it yet"); }

}  // namespace

extern "C" {

int32_t kvasir_embed(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor, float) { return refuse(); }
int32_t kvasir_rms_norm(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor, float) { return refuse(); }
int32_t kvasir_add_rms_norm(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor, kvasir_tensor, float) { return refuse(); }
int32_t kvasir_matmul(kvasir_context*, const kvasir_tensor*, kvasir_tensor, const kvasir_tensor*, int32_t) { return refuse(); }
int32_t kvasir_matmul_glu(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor, kvasir_tensor, int32_t) { return refuse(); }
int32_t kvasir_add(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor) { return refuse(); }
int32_t kvasir_glu(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor, int32_t) { return refuse(); }
int32_t kvasir_rope_table(kvasir_context*, kvasir_tensor, kvasir_tensor, const double*, int32_t, float) { return refuse(); }
int32_t kvasir_rope(kvasir_context*, const kvasir_tensor*, int32_t, kvasir_tensor, int32_t) { return refuse(); }
int32_t kvasir_append(kvasir_context*, const int32_t*, int32_t, kvasir_tensor, kvasir_tensor) { return refuse(); }
int32_t kvasir_add_logits(kvasir_context*, kvasir_tensor, int32_t, const int32_t*, const float*, int32_t) { return refuse(); }
int32_t kvasir_penalize(kvasir_context*, kvasir_tensor, int32_t, const int32_t*, const int32_t*, int32_t, float, float, float) { return refuse(); }
int32_t kvasir_sample(kvasir_context*, kvasir_tensor, kvasir_tensor, const double*) { return refuse(); }
int32_t kvasir_token_logprobs(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor) { return refuse(); }
int32_t kvasir_top_logprobs(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor) { return refuse(); }
int32_t kvasir_kl_divergence(kvasir_context*, kvasir_tensor, kvasir_tensor, kvasir_tensor) { return refuse(); }

}  // extern "C"
