#include "isa.h"
#include "sample_kernels_body.h"

namespace kvasir {

const SampleKernels kSampleAvx2 = {scan_plain_logs, fold_scores, draw_plain};

}  // namespace kvasir
