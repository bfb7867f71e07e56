#include "isa.h"

#include "cpu_features.h"
#include "scan_ahead.h"

namespace kvasir {
namespace {

const IndexIsa kPortable = {"portable", &kRowsPortable, &kPanelsPortable, &kBytesPortable, &kCodesPortable,
                            &kNibblesPortable, &kSelectPortable, &kSamplePortable, &kGraphPortable};
#ifdef KVASIR_X86
const IndexIsa kAvx2 = {"avx2", &kRowsAvx2, &kPanelsAvx2, &kBytesAvx2, &kCodesAvx2,
                            &kNibblesAvx2, &kSelectAvx2, &kSampleAvx2, &kGraphAvx2};
const IndexIsa kAvx512 = {"avx512", &kRowsAvx512, &kPanelsAvx512, &kBytesAvx512, &kCodesAvx512,
                            &kNibblesAvx512, &kSelectAvx512, &kSampleAvx512, &kGraphAvx512};
#endif

}  // namespace

FetchDistances fetch_distances() {
  static const FetchDistances distances = is_amd() ? FetchDistances{8192, 4096, true} : FetchDistances{12 * 1024, 1280, false};
  return distances;
}

const IndexIsa& find_index_isa(const char* name) {
  switch (find_isa_level(name)) {
#ifdef KVASIR_X86
    case IsaLevel::kAvx512: return kAvx512;
    case IsaLevel::kAvx2: return kAvx2;
#endif
    default: return kPortable;
  }
}

}  // namespace kvasir
