#define KVASIR_VEC_BYTES 64
#include "isa.h"
#include "panel_kernels_body.h"

namespace kvasir {

const PanelKernels kPanelsAvx512 = {dot_panel, argmax_values};

}  // namespace kvasir
