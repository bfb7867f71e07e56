#define KVASIR_VEC_BYTES 32
#include "isa.h"
#include "panel_kernels_body.h"

namespace kvasir {

const PanelKernels kPanelsAvx2 = {dot_panel, argmax_values};

}  // namespace kvasir
