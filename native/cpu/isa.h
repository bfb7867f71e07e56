// Kernel tables of one instruction set, chosen once when a context opens. Each family has its own header and, per
// instruction set, one file compiled with that set's flags; nothing else in the library is.
#pragma once

namespace kvasir {

struct VectorKernels;     // vector.h: norms, activations, sampling reductions
struct MatmulKernels;     // matmul.h: panels, decode, prefill
struct AttentionKernels;  // attention.h: scores, softmax, values

struct Isa {
  const char* name;  // "avx512", "avx2", "portable"
  const VectorKernels* vector;
  const MatmulKernels* matmul;
  const AttentionKernels* attention;
};

// One instance per family and instruction set, each in the file of its name (vector_avx512.cc ...).
#define KVASIR_WEAK __attribute__((weak))  // until every family is there
extern const VectorKernels kVectorPortable KVASIR_WEAK, kVectorAvx2 KVASIR_WEAK, kVectorAvx512 KVASIR_WEAK;
extern const MatmulKernels kMatmulPortable KVASIR_WEAK, kMatmulAvx2 KVASIR_WEAK, kMatmulAvx512 KVASIR_WEAK;
extern const AttentionKernels kAttentionPortable KVASIR_WEAK, kAttentionAvx2 KVASIR_WEAK, kAttentionAvx512 KVASIR_WEAK;

// avx512 = F, BW, VL, DQ, VNNI (Ice Lake, Zen 4 and later); avx2 = AVX2, FMA, F16C (no VNNI); portable = plain C++.
// name "auto" picks the best this CPU runs; a name this CPU or build lacks throws Error{KVASIR_UNSUPPORTED}.
const Isa& find_isa(const char* name);

}  // namespace kvasir
