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
extern const VectorKernels kVectorPortable, kVectorAvx2, kVectorAvx512;
extern const MatmulKernels kMatmulPortable, kMatmulAvx2, kMatmulAvx512;
extern const AttentionKernels kAttentionPortable, kAttentionAvx2, kAttentionAvx512;

// avx512 = F, BW, VL, DQ, VNNI (Ice Lake, Zen 4 and later); avx2 = AVX2, FMA, F16C (no VNNI); portable = plain C++.
// name "auto" picks the best this CPU runs; a name this CPU or build lacks throws Error{KVASIR_UNSUPPORTED}.
const Isa& find_isa(const char* name);

}  // namespace kvasir
