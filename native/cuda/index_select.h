// Thresholds of the best k of stored scores, by radix selection.
#pragma once
#include "index_types.h"
#include "runtime.h"

namespace kvasir {

// Of rows [rows, stride], `keys` scores each: selections[row].wanted is k, at most `keys`, its other fields and histograms
// [rows, 256] are zero.
void find_thresholds(Runtime& runtime, const float* scores, size_t stride, int32_t keys, int32_t rows, Selection* selections,
                     int32_t* histograms);

}  // namespace kvasir
