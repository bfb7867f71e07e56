// The columns of BytePanels that pass the thresholds of some rows: ids and scores, ascending by id.
#pragma once
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "byte_kernels.h"
#include "byte_panels.h"
#include "graph_kernels.h"

namespace kvasir {

class PassedColumns {
 public:
  static constexpr int32_t kPanels = 32;  // pass at once; even

  // Of each row at most `most` may be held before a call of pass().
  PassedColumns(int32_t rows, int32_t most)
      : thresholds(static_cast<size_t>(rows), -std::numeric_limits<float>::infinity()), counts(static_cast<size_t>(rows)),
        room_(static_cast<size_t>(most + (kPanels + 2) * kPanelRows)), masks_(static_cast<size_t>(rows) * kPanels),
        scores_(new float[static_cast<size_t>(rows) * room_]), ids_(new int32_t[static_cast<size_t>(rows) * room_]) {}

  std::vector<float> thresholds;  // [rows]
  std::vector<int32_t> counts;    // [rows]

  size_t room() const { return room_; }
  float* scores(int32_t row) { return scores_.get() + static_cast<size_t>(row) * room_; }
  int32_t* ids(int32_t row) { return ids_.get() + static_cast<size_t>(row) * room_; }

  // Rows [from, from + count), which are terms' from first + from on, with panels [panel, panel + kPanels) as far as there are:
  // columns that pass join what their rows hold.
  void pass(const IndexIsa& isa, const BytePanels& columns, const BytePanels::Terms& terms, int32_t first, int32_t from, int32_t count,
            int32_t panel) {
    const int32_t end = panel + kPanels < columns.panels() ? panel + kPanels : columns.panels();
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

 private:
  size_t room_;
  std::vector<uint32_t> masks_;  // [rows, kPanels]
  std::unique_ptr<float[]> scores_;
  std::unique_ptr<int32_t[]> ids_;
  std::vector<int32_t> before_;
};

}  // namespace kvasir
