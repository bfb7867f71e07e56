#define KVASIR_VEC_BYTES 16
#include "isa.h"
#include "panel_kernels_body.h"

namespace kvasir {

const PanelKernels kPanelsPortable = {dot_panel, argmax_values};

}  // namespace kvasir
