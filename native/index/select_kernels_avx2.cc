#include <immintrin.h>

#include "isa.h"
#include "select_kernels_body.h"

namespace kvasir {

const SelectKernels kSelectAvx2 = {max_score_cells, range_scores, count_scores, compress_scores, draw_score_noise, add_scores, rescore_any};

}  // namespace kvasir
