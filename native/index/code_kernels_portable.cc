#include "code_kernels_body.h"
#include "isa.h"

namespace kvasir {

const CodeKernels kCodesPortable = {128, 7, add_code_rows, encode_codes, encode_query, scan_plain<7>, gather_plain<7>};

}  // namespace kvasir
