// Which of the instruction sets that the libraries are compiled for this CPU runs.
#pragma once

namespace kvasir {

// Portable: plain C++. AVX2: with FMA, BMI, F16C. AVX-512: F, BW, VL, DQ, CD, IFMA, VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ and GFNI, so
// Ice Lake, Zen 4 and later.
enum class IsaLevel { kPortable, kAvx2, kAvx512 };

// The level called "portable", "avx2" or "avx512", or by "auto" the best that this CPU runs; throws Error{KVASIR_UNSUPPORTED} for one that
// the CPU or the build lacks, Error{KVASIR_ARGUMENT} for another name.
IsaLevel find_isa_level(const char* name);

// Whether AMD made it, whose caches take prefetches another way than Intel's.
bool is_amd();

}  // namespace kvasir
