#define KVASIR_VEC_BYTES 32
#include "isa.h"
#include "panel_kernels_body.h"

namespace kvasir {

const PanelKernels kPanelsAvx2 = {dot_panel<float>, dot_panel<uint16_t>, argmax_values};

}  // namespace kvasir
