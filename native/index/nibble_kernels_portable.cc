#include "isa.h"
#include "nibble_kernels_body.h"

namespace kvasir {

const CodeKernels kNibblesPortable = {kNibbleOffset, kNibbleShift, add_code_rows, encode_nibbles, encode_rotated,
                                     scan_nibbles_plain, nullptr};

}  // namespace kvasir
