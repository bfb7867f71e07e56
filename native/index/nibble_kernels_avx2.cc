#if defined(__AVX2__)
#include <immintrin.h>
#endif
#include "isa.h"
#include "nibble_kernels_body.h"

namespace kvasir {

const CodeKernels kNibblesAvx2 = {kNibbleOffset, kNibbleShift, add_code_rows, encode_nibbles, encode_rotated,
                                     scan_nibbles_plain, nullptr};

}  // namespace kvasir
