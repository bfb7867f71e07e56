#include "attention_vec256.h"
// The vector first: the cores are written in its terms.
#include "attention_gather.h"
#include "attention_merge.h"
#include "attention_prefill.h"
#include "attention_range.h"
#include "attention_sink.h"
#include "attention_store.h"

namespace kvasir {

extern const AttentionKernels kAttentionAvx2 = {
    {RangeCore<Vec256>::attend, RangeCore<Vec256>::scratch_bytes, 1},
    {PrefillCore<Vec256>::attend, PrefillCore<Vec256>::scratch_bytes, PrefillCore<Vec256>::kRowUnit},
    {GatherCore<Vec256>::attend, GatherCore<Vec256>::scratch_bytes},
    {SinkCore<Vec256>::best, SinkCore<Vec256>::sums, SinkCore<Vec256>::scratch_bytes},
    MergeCore<Vec256>::merge,
    RowStore<Vec256>::store,
};

}  // namespace kvasir
