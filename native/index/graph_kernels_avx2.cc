#define KVASIR_VEC_BYTES 32
#include "graph_code_kernels_body.h"
#include "graph_kernels_body.h"
#include "isa.h"

namespace kvasir {

const GraphKernels kGraphAvx2 = {score_rows, score_code_rows, score_code_heads, widen_row, widen_row_less, above_threshold, list_bits};

}  // namespace kvasir
