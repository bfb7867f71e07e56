#include "isa.h"
#include "sample_kernels_body.h"

namespace kvasir {
namespace {

int32_t sweep_keys(const Candidates& found, int16_t* logs, size_t stride, const CodeShape& shape, const CodeQuery& query,
                   const float* gains, const float* bases, const int16_t* offsets, const uint8_t* codes, int32_t block,
                   int32_t blocks, const ScanAhead& ahead, uint32_t key, float* sums, FineRows*) {
  return sweep_by(scan_plain_logs, found, logs, stride, shape, query, gains, bases, offsets, codes, block, blocks, ahead, key, sums);
}

}  // namespace

const SampleKernels kSamplePortable = {0, nullptr, scan_plain_logs, fold_scores, draw_plain, sweep_keys, nullptr, refine_plain, sift_keys, settle_keys};

}  // namespace kvasir
