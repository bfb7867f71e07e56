#include "attention_vec512.h"
// The vector first: the cores are written in its terms.
#include "attention_gather.h"
#include "attention_merge.h"
#include "attention_prefill.h"
#include "attention_range.h"
#include "attention_sink.h"
#include "attention_store.h"

namespace kvasir {

extern const AttentionKernels kAttentionAvx512 = {
    {RangeCore<Vec512>::attend, RangeCore<Vec512>::scratch_bytes, 1},
    {PrefillCore<Vec512>::attend, PrefillCore<Vec512>::scratch_bytes, PrefillCore<Vec512>::kRowUnit},
    {GatherCore<Vec512>::attend, GatherCore<Vec512>::scratch_bytes},
    {SinkCore<Vec512>::best, SinkCore<Vec512>::sums, SinkCore<Vec512>::scratch_bytes},
    MergeCore<Vec512>::merge,
    RowStore<Vec512>::store,
};

}  // namespace kvasir
