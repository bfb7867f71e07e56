#include "isa.h"

#include <cstring>

#include "cpu_features.h"
#include "error.h"

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

const IndexIsa& find_index_isa(const char* name) {
  const bool any = std::strcmp(name, "auto") == 0;
  if (std::strcmp(name, "portable") == 0) return kPortable;
#ifdef KVASIR_X86
  if ((any || std::strcmp(name, "avx512") == 0) && has_avx512()) return kAvx512;
  if ((any || std::strcmp(name, "avx2") == 0) && has_avx2()) return kAvx2;
#endif
  if (any) return kPortable;
  if (std::strcmp(name, "avx512") == 0 || std::strcmp(name, "avx2") == 0) {
    fail(KVASIR_UNSUPPORTED, "Cannot use isa=%s: this CPU or build lacks it, try isa=auto", name);
  }
  fail(KVASIR_ARGUMENT, "Cannot use isa=\"%.40s\": expected auto, avx512, avx2 or portable", name);
}

}  // namespace kvasir
