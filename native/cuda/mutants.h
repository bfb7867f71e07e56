// Seeded bugs: a build with -DKVASIR_MUTANTS has all of them, and the tests must fail with the one whose place in this list
// KVASIR_MUTANT says in the environment (./kvasir test --mutants). In all other builds there are none, and the compiler drops them.
#pragma once

#ifdef KVASIR_MUTANTS
#include <cstdlib>
#endif

namespace kvasir {

enum class Mutant {
  kNone,
  kNormWithoutBarrier,    // norm.cu: none between the parts of a sum and their total
  kMatvecLastBlock,       // matvec.cu: the last block of a row is left out
  kTilesWithoutBarrier,   // matmul_tiles.cu: none between filling a tile and reading it
  kTilesRowMask,          // matmul_tiles.cu: the last row of a partial tile of tokens is left out
  kTilesForgottenWait,    // matmul_tiles.cu: asynchronous copies are not waited for
  kSampleTie,             // sampling.cu: of equal logits the higher id is drawn
  kAppendOffByOne,        // append.cu: rows land one further
  kAttendWithoutBarrier,  // attention_tile.cuh: none between a tile's arrival and its use
  kAttendForgottenWait,   // attention_tile.cuh: asynchronous copies are not waited for
  kAttendMask,            // attention_tile.cuh: a query sees the position behind its own
  kAttendPartialTile,     // attention_tile.cuh: keys of a last tile that is not full are left out
  kAttendRescale,         // attention_tile.cuh: outputs do not follow a greater logit
  kWgmmaPhase,            // attention_wgmma.cuh: keys are not waited for from the second tile on
  kWgmmaFence,            // attention_wgmma.cuh: what was copied is not fenced
  kWgmmaSwizzle,          // attention_wgmma.cuh: pieces of values do not trade places
  kWgmmaRelease,          // attention_wgmma.cuh: values are let go of before their products are waited for
  kTensorBytes,           // attention_producer.cuh: a stage waits for half of the bytes that come
  kTensorSeam,            // attention_producer.cuh: a box of two segments is copied as if it lay in the first
  kBestSlack,             // attention_best.cuh: bounds of candidates leave out what rounding did
  kBestPlaces,            // attention_best.cuh: the lanes of a quad note at the same places
  kBestTooMany,           // attention_settle.cuh: a row of too many candidates is settled by those there are
  kPlainWindow,           // attention_plain.cuh: a window is one position too long
  kMergeLastSplit,        // attention_merge.cuh: the last part is left out
  kScanOffset,            // index_scan.cuh: what nibbles are above what they stand for is not taken back
  kDrawFirstStage,        // index_draw.cuh: what the first 16 bits let through stays
  kGraphStale,            // launch_queue.cc: a graph's nodes keep the arguments of their first run
  kUploadOrder,           // upload_ring.cc: kernels do not wait for what is on its way to the device
  kSelectTie,             // index_select.cuh: of equal scores the later are kept
};

#ifdef KVASIR_MUTANTS
inline const Mutant kSeeded = static_cast<Mutant>(std::getenv("KVASIR_MUTANT") == nullptr ? 0 : std::atoi(std::getenv("KVASIR_MUTANT")));
inline bool is_seeded(Mutant bug) { return bug == kSeeded; }
#else
constexpr bool is_seeded(Mutant) { return false; }
#endif

}  // namespace kvasir
