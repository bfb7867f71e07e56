#define KVASIR_VEC_BYTES 64
#include "isa.h"
#include "vector_body.h"
#include "vector_vocab_body.h"

namespace kvasir {

const VectorKernels kVectorAvx512 = {
    rms_norm, add, silu, gelu, rope,
    block_maxima, sum_exp, bucket_sums, find_between, divergence_sums,
};

}  // namespace kvasir
