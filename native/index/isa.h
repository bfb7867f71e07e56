// Kernel tables of one instruction set, chosen once when a context opens. Each family has its own header and, per
// instruction set, one file compiled with that set's flags; nothing else in the library is.
#pragma once

namespace kvasir {

struct RowKernels;    // row_kernels.h: dot products with rows of the cache
struct PanelKernels;  // panel_kernels.h: products of many rows with many rows
struct ByteKernels;   // byte_kernels.h: the same in bytes
struct CodeKernels;   // code_kernels.h: int8 codes of keys; nibble_layout.h: 4-bit ones
struct SampleKernels;  // sample_kernels.h: threshold sampling
struct SelectKernels;  // select_kernels.h: passes over scores
struct GraphKernels;  // graph_kernels.h: gathered rows, thresholds

struct IndexIsa {
  const char* name;  // "avx512", "avx2", "portable"
  const RowKernels* rows;
  const PanelKernels* panels;
  const ByteKernels* bytes;
  const CodeKernels* codes;
  const CodeKernels* nibbles;
  const SelectKernels* select;
  const SampleKernels* sample;
  const GraphKernels* graph;
};

extern const RowKernels kRowsPortable, kRowsAvx2, kRowsAvx512;
extern const PanelKernels kPanelsPortable, kPanelsAvx2, kPanelsAvx512;
extern const ByteKernels kBytesPortable, kBytesAvx2, kBytesAvx512;
extern const CodeKernels kCodesPortable, kCodesAvx2, kCodesAvx512;
extern const SelectKernels kSelectPortable, kSelectAvx2, kSelectAvx512;
extern const CodeKernels kNibblesPortable, kNibblesAvx2, kNibblesAvx512;
extern const SampleKernels kSamplePortable, kSampleAvx2, kSampleAvx512;
extern const GraphKernels kGraphPortable, kGraphAvx2, kGraphAvx512;

// As the backends: name "auto" picks the best this CPU runs; one that it lacks throws Error{KVASIR_UNSUPPORTED}.
const IndexIsa& find_index_isa(const char* name);

}  // namespace kvasir
