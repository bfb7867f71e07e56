// Neighbours within a home cell.
#include <algorithm>

#include "graph_build.h"
#include "graph_prune.h"
#include "partition.h"

namespace kvasir {
namespace {

constexpr int32_t kGramKeys = 256;  // cells larger than this (copies of one key) are linked in pieces

}  // namespace

void link_mates(GraphLinks& links, const GraphKeys& keys, const PanelKernels& kernels, const ListTable& homes, int32_t limit,
                const RunTasks& run) {
  // Found by cell, written by block of links.
  const int32_t n = keys.nodes(), dim = keys.dim(), cells = homes.count();
  std::vector<int32_t> found(static_cast<size_t>(n) * static_cast<size_t>(limit), GraphLinks::kNone);
  constexpr int32_t kCellsPerTask = 8;
  run((cells + kCellsPerTask - 1) / kCellsPerTask, [&](int32_t task) {
    std::vector<float> rows, gram;
    std::vector<std::pair<float, int32_t>> order;
    std::vector<int32_t> accepted(static_cast<size_t>(limit));
    Panels panels;
    for (int32_t c = task * kCellsPerTask; c < std::min(cells, (task + 1) * kCellsPerTask); c++) {
      for (int32_t from = homes.offsets[static_cast<size_t>(c)]; from < homes.offsets[static_cast<size_t>(c) + 1]; from += kGramKeys) {
        const int32_t count = std::min(kGramKeys, homes.offsets[static_cast<size_t>(c) + 1] - from);
        const int32_t* ids = homes.members.data() + from;
        rows.resize(static_cast<size_t>(count) * static_cast<size_t>(dim));
        for (int32_t i = 0; i < count; i++) {
          float* row = rows.data() + static_cast<size_t>(i) * static_cast<size_t>(dim);
          keys.read(row, ids[i]);
          // Relative to the cell, so that distances keep their digits.
          for (int32_t d = 0; d < dim; d++) row[d] -= homes.centroids.at(c, d);
        }
        panels.pack(rows.data(), count, dim);
        const size_t width = static_cast<size_t>(panels.panels()) * kPanelRows;
        gram.resize(width * static_cast<size_t>(count));
        panels.dot(kernels, gram.data(), rows.data(), count);
        const auto square = [&](int32_t a, int32_t b) {
          const size_t i = static_cast<size_t>(a), j = static_cast<size_t>(b);
          return gram[i * width + i] + gram[j * width + j] - 2 * gram[i * width + j];
        };
        for (int32_t i = 0; i < count; i++) {
          order.clear();
          for (int32_t j = 0; j < count; j++) {
            if (j != i) order.push_back({square(i, j), j});
          }
          const int32_t some = std::min<int32_t>(static_cast<int32_t>(order.size()), 4 * limit);
          std::partial_sort(order.begin(), order.begin() + some, order.end());
          const int32_t taken = GraphPruner::occlude(accepted.data(), order.data(), some, limit, square);
          int32_t* to = found.data() + static_cast<size_t>(ids[i]) * static_cast<size_t>(limit);
          for (int32_t j = 0; j < taken; j++) to[j] = ids[accepted[static_cast<size_t>(j)]];
        }
      }
    }
  });
  run(links.blocks(), [&](int32_t block) {
    std::vector<int32_t> list;
    for (int32_t i = block << GraphLinks::kBlockBits; i < std::min(n, (block + 1) << GraphLinks::kBlockBits); i++) {
      list.assign(links.of(i), links.of(i) + links.count(i));
      const int32_t* from = found.data() + static_cast<size_t>(i) * static_cast<size_t>(limit);
      for (int32_t j = 0; j < limit && from[j] != GraphLinks::kNone; j++) {
        if (static_cast<int32_t>(list.size()) == links.slots() - 1) break;
        if (std::find(list.begin(), list.end(), from[j]) == list.end()) list.push_back(from[j]);
      }
      links.set(i, list.data(), static_cast<int32_t>(list.size()));
    }
  });
}

}  // namespace kvasir
