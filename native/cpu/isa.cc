#include "isa.h"

#include "cpu_features.h"

namespace kvasir {
namespace {

const Isa kPortable = {"portable", &kVectorPortable, &kMatmulPortable, &kAttentionPortable};

#ifdef KVASIR_X86
const Isa kAvx2 = {"avx2", &kVectorAvx2, &kMatmulAvx2, &kAttentionAvx2};
const Isa kAvx512 = {"avx512", &kVectorAvx512, &kMatmulAvx512, &kAttentionAvx512};
#endif

}  // namespace

const Isa& find_isa(const char* name) {
  switch (find_isa_level(name)) {
#ifdef KVASIR_X86
    case IsaLevel::kAvx512: return kAvx512;
    case IsaLevel::kAvx2: return kAvx2;
#endif
    default: return kPortable;
  }
}

}  // namespace kvasir
