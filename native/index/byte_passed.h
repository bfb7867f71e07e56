// The columns of BytePanels that pass the thresholds of some rows: ids and scores, ascending by id.
#pragma once
#include <limits>
#include <memory>
#include <vector>

#include "byte_panels.h"

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
            int32_t panel);

 private:
  size_t room_;
  std::vector<uint32_t> masks_;  // [rows, kPanels]
  std::unique_ptr<float[]> scores_;
  std::unique_ptr<int32_t[]> ids_;
  std::vector<int32_t> before_;
};

}  // namespace kvasir
