#include "isa.h"

#include <cstring>
#include <string>

#include "cpu_features.h"
#include "error.h"

namespace kvasir {
namespace {

const Isa kPortable = {"portable", &kVectorPortable, &kMatmulPortable, &kAttentionPortable};

#ifdef KVASIR_X86
const Isa kAvx2 = {"avx2", &kVectorAvx2, &kMatmulAvx2, &kAttentionAvx2};
const Isa kAvx512 = {"avx512", &kVectorAvx512, &kMatmulAvx512, &kAttentionAvx512};
#endif

}  // namespace

const Isa& find_isa(const char* name) {
  const bool any = std::strcmp(name, "auto") == 0;
  if (std::strcmp(name, "portable") == 0) return kPortable;
#ifdef KVASIR_X86
  if ((any || std::strcmp(name, "avx512") == 0) && has_avx512()) return kAvx512;
  if ((any || std::strcmp(name, "avx2") == 0) && has_avx2()) return kAvx2;
#endif
  if (any) return kPortable;
  if (std::strcmp(name, "avx512") == 0) {
    fail(KVASIR_UNSUPPORTED, "Cannot use isa=avx512: this CPU or build lacks AVX-512 VNNI, try isa=auto");
  }
  if (std::strcmp(name, "avx2") == 0) {
    fail(KVASIR_UNSUPPORTED, "Cannot use isa=avx2: this CPU or build lacks AVX2, try isa=auto");
  }
  fail(KVASIR_ARGUMENT, "Cannot use isa=\"%.40s\": expected auto, avx512, avx2 or portable", name);
}

}  // namespace kvasir
