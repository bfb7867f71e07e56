#if defined(__AVX2__)
#include <immintrin.h>
#endif
#include "isa.h"
#include "nibble_kernels_body.h"

namespace kvasir {

const CodeKernels kNibblesAvx2 = {kNibbleOffset, kNibbleShift, add_code_rows, encode_nibbles,
                                     scan_nibbles_plain, gather_nibbles};

}  // namespace kvasir
