// Entries of MatmulKernels (matmul.h) for decode on AVX2.
#pragma once
#include "matmul.h"

namespace kvasir {

void stream_avx2(const PackedWeight& w, int panel, int panels, const StreamInput& in, float* out, int64_t ldo);
void stream_quantize_avx2(StreamBlock* q, const float* x, int k, bool bytes);

}  // namespace kvasir
