#include "byte_passed.h"

#include <algorithm>

#include "byte_kernels.h"
#include "graph_kernels.h"

namespace kvasir {

void PassedColumns::pass(const IndexIsa& isa, const BytePanels& columns, const BytePanels::Terms& terms, int32_t first, int32_t from,
                         int32_t count, int32_t panel) {
  const int32_t end = std::min(panel + kPanels, columns.panels());
  before_.assign(counts.begin() + from, counts.begin() + from + count);
  for (int32_t p = panel; p < end; p++) {
    uint32_t* masks = masks_.data() + static_cast<size_t>(from) * kPanels + static_cast<size_t>(p - panel);
    const BytePassed passed = {thresholds.data() + from, masks, kPanels, scores(from), room_, counts.data() + from};
    columns.above(*isa.bytes, passed, terms, first + from, count, p);
  }
  uint64_t words[kPanels / 2];
  for (int32_t row = from; row < from + count; row++) {
    const uint32_t* masks = masks_.data() + static_cast<size_t>(row) * kPanels;
    for (int32_t i = 0; i < kPanels; i += 2) {
      const uint64_t low = panel + i < end ? masks[i] : 0, high = panel + i + 1 < end ? masks[i + 1] : 0;
      words[i / 2] = low | high << 32;
    }
    int32_t held = before_[static_cast<size_t>(row - from)];
    int32_t* to = ids(row) + held;
    const int32_t found = isa.graph->list_bits(to, words, kPanels / 2);
    for (int32_t i = 0; i < found; i++) to[i] += panel * kPanelRows;
    held += found;
    while (held > 0 && ids(row)[held - 1] >= columns.count()) held--;
    counts[static_cast<size_t>(row)] = held;
  }
}

}  // namespace kvasir
