#include <immintrin.h>

#include "isa.h"
#include "row_kernels_body.h"

namespace kvasir {

const RowKernels kRowsAvx2 = {dot_rows<float>, dot_rows<uint16_t>, dot_rows<int8_t>};

}  // namespace kvasir
