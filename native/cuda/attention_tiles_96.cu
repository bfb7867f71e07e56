#include "attention_tiles.cuh"

namespace kvasir {

KVASIR_ATTENTION_TILES(96);

}  // namespace kvasir
