#include "isa.h"
#include "sample_kernels_body.h"

namespace kvasir {

const SampleKernels kSamplePortable = {scan_plain_logs, fold_scores, draw_plain};

}  // namespace kvasir
