// dim3, for files that hold no kernels.
#pragma once
#ifdef KVASIR_EMULATION
#include "emulation.h"
#else
#include <vector_types.h>
#endif
