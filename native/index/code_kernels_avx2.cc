#include <immintrin.h>

#include "code_kernels_body.h"
#include "isa.h"

namespace kvasir {

const CodeKernels kCodesAvx2 = {128, 6, add_code_rows, encode_codes, scan_plain<6>, gather_plain<6>};

}  // namespace kvasir
