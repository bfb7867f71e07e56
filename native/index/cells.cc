#include "cells.h"

#include <algorithm>

#include "error.h"
#include "kmeans.h"
#include "kvasir_index.h"

namespace kvasir {

void Cells::cluster(const HeadKeys& keys, int32_t from, int32_t to, int32_t cells, int32_t iterations, uint32_t seed,
                    const float* shift) {
  const int32_t n = to - from;
  const size_t dim = static_cast<size_t>(keys.dim());
  const RunTasks run = [](int32_t tasks, const std::function<void(int32_t)>& body) {
    for (int32_t i = 0; i < tasks; i++) body(i);
  };
  std::vector<float> rows(static_cast<size_t>(n) * dim);
  keys.read(rows.data(), from, n);
  std::vector<float> directions = rows;
  for (size_t i = 0; shift != nullptr && i < directions.size(); i++) directions[i] -= shift[i % dim];
  normalize(directions.data(), n, keys.dim());
  cells = std::max(1, std::min(cells, n));
  const PanelKernels& panels = *keys.environment->isa->panels;
  const std::vector<float> means = kmeans(panels, run, directions.data(), n, keys.dim(), {cells, iterations, true, seed});
  std::vector<int32_t> home(static_cast<size_t>(n)), sizes(static_cast<size_t>(cells));
  Nearest(means.data(), cells, keys.dim(), true).find(panels, home.data(), nullptr, directions.data(), n);
  for (int32_t cell : home) sizes[static_cast<size_t>(cell)]++;
  std::vector<int32_t> place(static_cast<size_t>(cells), -1), next;
  for (int32_t cell = 0; cell < cells; cell++) {
    if (sizes[static_cast<size_t>(cell)] == 0) continue;
    place[static_cast<size_t>(cell)] = count();
    offsets.push_back(offsets.back() + sizes[static_cast<size_t>(cell)]);
  }
  next.assign(offsets.begin(), offsets.end() - 1);
  ids.resize(static_cast<size_t>(offsets.back()));
  centroids.resize(static_cast<size_t>(count()) * dim, 0);
  for (int32_t i = 0; i < n; i++) {
    const size_t cell = static_cast<size_t>(place[static_cast<size_t>(home[static_cast<size_t>(i)])]);
    ids[static_cast<size_t>(next[cell]++)] = from + i;
    const float share = 1 / static_cast<float>(size(static_cast<int32_t>(cell)));
    for (size_t c = 0; c < dim; c++) centroids[cell * dim + c] += share * rows[static_cast<size_t>(i) * dim + c];
  }
}

void Cells::visit(Arrays& arrays) {
  arrays("centroids", centroids);
  arrays("offsets", offsets);
  arrays("ids", ids);
}

void Cells::check(const HeadKeys& keys) const {
  if (offsets.empty() || offsets.front() != 0 || !std::is_sorted(offsets.begin(), offsets.end()) ||
      offsets.back() != static_cast<int32_t>(ids.size()) || this->keys() > keys.count) {
    fail(KVASIR_ARGUMENT, "Cannot open index: its cells do not follow each other");
  }
  expect_size("centroids", centroids.size(), static_cast<size_t>(count()) * static_cast<size_t>(keys.dim()));
  std::vector<char> seen(ids.size());
  for (int32_t id : ids) {
    if (id < 0 || id >= this->keys() || seen[static_cast<size_t>(id)] != 0) {
      fail(KVASIR_ARGUMENT, "Cannot open index: key %d is in its cells twice, or not there", id);
    }
    seen[static_cast<size_t>(id)] = 1;
  }
  for (int32_t cell = 0; cell < count(); cell++) {
    if (size(cell) == 0 || !std::is_sorted(begin(cell), begin(cell) + size(cell))) {
      fail(KVASIR_ARGUMENT, "Cannot open index: members of cell %d are none, or do not ascend", cell);
    }
  }
}

}  // namespace kvasir
