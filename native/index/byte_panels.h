// Rows as bytes in panels, and what is found with them: nearest centroids and best keys of many queries, nearly.
//
// A column is centred on the mean of all, scaled dimension by dimension to one spread, and rounded with a scale of its own, so that
// rounding weighs alike whatever dimensions stand out: an error of about .01 of the spread of a row's products, .03 where one dimension outweighs all others.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "isa.h"
#include "kmeans.h"
#include "rows.h"

namespace kvasir {

// Fills out [count, dim] with columns [first, first + count).
using ReadColumns = std::function<void(float* out, int32_t first, int32_t count)>;

class BytePanels {
 public:
  // Rows that are multiplied with the columns of one BytePanels.
  struct Terms {
    int32_t count = 0;
    std::vector<int8_t> codes;
    std::vector<float> scales, bases;
    std::vector<int32_t> shifts;
  };

  BytePanels(const RunTasks& run, int32_t count, int32_t dim, const ReadColumns& read);
  // Every `step`-th column of another.
  BytePanels(const BytePanels& from, int32_t step);

  int32_t count() const { return count_; }
  int32_t panels() const { return (count_ + 31) / 32; }
  // rows [count, dim]; what stands beside their products: offsets [count], or null.
  Terms terms(const float* rows, const float* offsets, int32_t count) const;
  // out [some, 32]: rows [first, first + some) . columns of a panel; what is behind the last column means nothing.
  void dot(const ByteKernels& kernels, float* out, const Terms& rows, int32_t first, int32_t some, int32_t panel) const;
  // nearest [count()]: the row of the largest product, of equals the first.
  void nearest(const ByteKernels& kernels, const RunTasks& run, int32_t* nearest, const Terms& rows) const;

 private:
  void measure(const ReadColumns& read);

  int32_t count_, dim_, units_;
  std::vector<float> mean_, spread_;  // [dim]
  std::vector<uint8_t> codes_;        // [panels][units][32][4]
  std::vector<float> scales_;         // [panels * 32]
};

// Keys [from, from + count) of a head.
BytePanels key_panels(const IndexIsa& isa, const RunTasks& run, const Rows& rows, int32_t head, int32_t from, int32_t count);

// The k columns with the largest products of each row: [rows, k], for each of `cuts` (ascending, the last is k) the best so many
// stand first, in no order within. scores as ids.
struct BestColumns {
  int32_t k = 0;
  std::vector<int32_t> ids;
  std::vector<float> scores;
};
BestColumns best_columns(const IndexIsa& isa, const RunTasks& run, const BytePanels& columns, const BytePanels::Terms& rows,
                         const std::vector<int32_t>& cuts);

}  // namespace kvasir
