#include "cpu_features.h"

#include <cstring>

#include "error.h"

namespace kvasir {
namespace {

#ifdef KVASIR_X86
// The flags a file is compiled with allow the compiler more than the intrinsics in it, so all of them are asked for.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");  // F16C, LZCNT and MOVBE come with every CPU that has these
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512ifma") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bitalg") &&
         __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("gfni");
}
#endif

}  // namespace

bool is_amd() {
#ifdef KVASIR_X86
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

IsaLevel find_isa_level(const char* name) {
  const bool any = std::strcmp(name, "auto") == 0;
  if (std::strcmp(name, "portable") == 0) return IsaLevel::kPortable;
#ifdef KVASIR_X86
  if ((any || std::strcmp(name, "avx512") == 0) && has_avx512()) return IsaLevel::kAvx512;
  if ((any || std::strcmp(name, "avx2") == 0) && has_avx2()) return IsaLevel::kAvx2;
#endif
  if (any) return IsaLevel::kPortable;
  if (std::strcmp(name, "avx512") == 0 || std::strcmp(name, "avx2") == 0) {
    fail(KVASIR_UNSUPPORTED, "Cannot use isa=%s: this CPU or build lacks it, try isa=auto", name);
  }
  fail(KVASIR_ARGUMENT, "Cannot use isa=\"%.40s\": expected auto, avx512, avx2 or portable", name);
}

}  // namespace kvasir
