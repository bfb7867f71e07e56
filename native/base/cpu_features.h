// Which of the instruction sets that the libraries are compiled for this CPU runs.
#pragma once

namespace kvasir {

#ifdef KVASIR_X86
bool has_avx2();    // AVX2, FMA, BMI, F16C
bool has_avx512();  // F, BW, VL, DQ, CD, IFMA, VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ, GFNI: Ice Lake, Zen 4 and later
#endif

}  // namespace kvasir
