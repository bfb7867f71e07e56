#include "attention_tiles.cuh"

namespace kvasir {

KVASIR_ATTENTION_TILES(128);

}  // namespace kvasir
