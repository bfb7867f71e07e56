#include "attention_gather.h"
#include "attention_merge.h"
#include "attention_range.h"
#include "attention_sink.h"
#include "attention_store.h"
#include "attention_vec_portable.h"

namespace kvasir {

extern const AttentionKernels kAttentionPortable = {
    {RangeCore<VecPortable>::attend, RangeCore<VecPortable>::scratch_bytes, 1},
    {nullptr, nullptr, 0},
    {GatherCore<VecPortable>::attend, GatherCore<VecPortable>::scratch_bytes},
    {SinkCore<VecPortable>::best, SinkCore<VecPortable>::sums, SinkCore<VecPortable>::scratch_bytes},
    MergeCore<VecPortable>::merge,
    RowStore<VecPortable>::store,
};

}  // namespace kvasir
