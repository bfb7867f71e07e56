// Rows as bytes in panels, and what is found with them: nearest centroids and best keys of many queries, nearly.
//
// A column is centred on the mean of all, scaled dimension by dimension to one spread, and rounded with a scale of its own, so that
// rounding weighs alike whatever dimensions stand out: an error of about .01 of the spread of a row's products, .03 where one dimension outweighs all others.
//
// Rows that are known before may have their dimensions in the order of what they add to the products' variance, so that products with
// fewer dimensions are nearly the same: the centroid of queries spread over many positions has lost what turns fast with position.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "isa.h"
#include "kmeans.h"
#include "rows.h"

namespace kvasir {

struct BytePassed;
struct ByteTerms;

// Fills out [count, dim] with columns [first, first + count).
using ReadColumns = std::function<void(float* out, int32_t first, int32_t count)>;

class BytePanels {
 public:
  // Rows that are multiplied with the columns of one BytePanels.
  struct Terms {
    int32_t count = 0, units = 0;  // of four dimensions each, the first of the columns'
    std::vector<int8_t> codes;
    std::vector<float> scales, bases;
    std::vector<int32_t> shifts;
  };

  // weights [dim]: mean squares of the rows to come, which order the dimensions; null: as they stand.
  BytePanels(const ByteKernels& kernels, const RunTasks& run, int32_t count, int32_t dim, const ReadColumns& read,
             const float* weights = nullptr);
  // Every `step`-th column of another.
  BytePanels(const BytePanels& from, int32_t step);

  int32_t count() const { return count_; }
  const std::vector<float>& mean() const { return mean_; }  // of the columns
  int32_t panels() const { return (count_ + 31) / 32; }
  // rows [count, dim]; what stands beside their products: offsets [count], or null. With as many
  // dimensions as hold `share` of the variance of the products with `weights`.
  Terms terms(const float* rows, const float* offsets, int32_t count, double share = 1) const;
  // out [some, 32]: rows [first, first + some) . columns of a panel; what is behind the last column means nothing.
  void dot(const ByteKernels& kernels, float* out, const Terms& rows, int32_t first, int32_t some, int32_t panel) const;
  // Of the same products those that pass; what is behind the last column may pass too.
  void above(const ByteKernels& kernels, const BytePassed& passed, const Terms& rows, int32_t first, int32_t some, int32_t panel) const;
  // nearest [count()]: the row of the largest product, of equals the first.
  void nearest(const ByteKernels& kernels, const RunTasks& run, int32_t* nearest, const Terms& rows) const;

 private:
  void measure(const ReadColumns& read, const float* weights);
  ByteTerms terms_from(const Terms& rows, int32_t first) const;

  int32_t count_, dim_, units_;
  std::vector<float> mean_, spread_;  // [dim]
  std::vector<int32_t> order_;        // [4 * units]: dimensions, dim behind the last
  std::vector<double> parts_;         // [units]: shares of the variance up to each, or empty
  std::vector<uint8_t> codes_;        // [panels][units][32][4]
  std::vector<float> scales_;         // [panels * 32]
};

// Keys [from, from + count) of a head.
BytePanels key_panels(const IndexIsa& isa, const RunTasks& run, const Rows& rows, int32_t head, int32_t from, int32_t count,
                      const float* weights = nullptr);
// The mean squares of rows [count, dim], by dimension: weights of BytePanels.
std::vector<float> mean_squares(const float* rows, int32_t count, int32_t dim);

// The k columns with the largest products of each row: [rows, k], for each of `cuts` (ascending, the last is k) the best so many
// stand first, ascending within what a cut adds. scores as ids.
struct BestColumns {
  int32_t k = 0;
  std::vector<int32_t> ids;
  std::vector<float> scores;
};
BestColumns best_columns(const IndexIsa& isa, const RunTasks& run, const BytePanels& columns, const BytePanels::Terms& rows,
                         const std::vector<int32_t>& cuts);

}  // namespace kvasir
