#define KVASIR_VEC_BYTES 16
#include "graph_code_kernels_body.h"
#include "graph_kernels_body.h"
#include "isa.h"

namespace kvasir {

const GraphKernels kGraphPortable = {score_rows, score_code_rows, score_code_heads, widen_row, widen_row_less, above_threshold, list_bits};

}  // namespace kvasir
