#include "lists_calibrate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "graph_keys.h"
#include "select.h"

namespace kvasir {
namespace {

constexpr int32_t kMaxProbes = 64;
constexpr int32_t kTaskQueries = 16;
constexpr size_t kSelected = 32;  // selection reads scores by so many
constexpr float kLowest = std::numeric_limits<float>::lowest();

// The k best keys of each held-out query, by id.
struct Truth {
  int32_t k = 0;
  std::vector<int32_t> ids;
  const int32_t* of(int32_t query) const { return ids.data() + static_cast<size_t>(query) * static_cast<size_t>(k); }
};

// Twice as many and a few by bytes, of which rows decide.
Truth find_truth(const PartitionInput& in, const BytePanels& keys, const std::vector<float>& queries, int32_t count, int32_t k) {
  const size_t dim = static_cast<size_t>(in.source.dim);
  const int32_t some = std::min(in.source.keys, 2 * k + 32);
  const BestColumns best = best_columns(*in.source.isa, *in.run, keys, keys.terms(queries.data(), nullptr, count), {some});
  Truth truth = {k, std::vector<int32_t>(static_cast<size_t>(count) * static_cast<size_t>(k))};
  (*in.run)((count + kTaskQueries - 1) / kTaskQueries, [&](int32_t task) {
    const GraphKeys rows(in.source.isa->graph, *in.source.rows, in.source.head, in.source.begin, in.source.keys);
    std::vector<float> scores(static_cast<size_t>(some));
    std::vector<std::pair<float, int32_t>> order;
    for (int32_t i = task * kTaskQueries; i < std::min(count, (task + 1) * kTaskQueries); i++) {
      const int32_t* ids = best.ids.data() + static_cast<size_t>(i) * static_cast<size_t>(some);
      rows.score(scores.data(), queries.data() + static_cast<size_t>(i) * dim, 1, ids, some);
      order.clear();
      for (size_t j = 0; j < static_cast<size_t>(some); j++) order.push_back({-scores[j], ids[j]});
      std::nth_element(order.begin(), order.begin() + (k - 1), order.end());
      for (size_t j = 0; j < static_cast<size_t>(k); j++) truth.ids[static_cast<size_t>(i * k) + j] = order[j].second;
    }
  });
  return truth;
}

// What the i-th nearest list of a query adds to those before it: wanted keys, and keys in all. [count, most]
struct Gain {
  int32_t found = 0, keys = 0;
};

// Lists of one depth.
std::vector<Gain> gains_of(const PartitionInput& in, const RankedLists& ranked, const Truth& truth, const std::vector<int32_t>& nearest,
                           int32_t most, int32_t depth, int32_t count) {
  std::vector<Gain> gains(static_cast<size_t>(count) * static_cast<size_t>(most));
  (*in.run)((count + kTaskQueries - 1) / kTaskQueries, [&](int32_t task) {
    std::vector<uint8_t> marks(static_cast<size_t>(in.source.keys));  // 0: seen, 1: not seen, 2: nor found, and wanted
    for (int32_t query = task * kTaskQueries; query < std::min(count, (task + 1) * kTaskQueries); query++) {
      std::fill(marks.begin(), marks.end(), 1);
      for (int32_t j = 0; j < truth.k; j++) marks[static_cast<size_t>(truth.of(query)[j])] = 2;
      for (int32_t probe = 0; probe < most; probe++) {
        const size_t at = static_cast<size_t>(query) * static_cast<size_t>(most) + static_cast<size_t>(probe);
        const int32_t* ids = ranked.of(nearest[at]);
        int32_t sum = 0, good = 0;
        for (int32_t r = 0; r < depth; r++) {
          uint8_t& mark = marks[static_cast<size_t>(ids[r])];
          sum += mark;
          good += mark >> 1;
          mark = 0;
        }
        gains[at] = {good, sum - good};
      }
    }
  });
  return gains;
}

// Plays searches of held-out positions with lists of one depth: each query head its own lists, as in a search. Each head gets one
// list, then the head whose next list finds most for the keys it adds gets another, until the mean recall is reached.
ListsChoice probe_greedily(const PartitionInput& in, const ListsOptions& options, const RankedLists& ranked, const Truth& truth,
                           const std::vector<int32_t>& nearest, int32_t most, int32_t depth, int32_t positions) {
  const int32_t group = in.shape->group(), count = positions * group;
  const std::vector<Gain> gains = gains_of(in, ranked, truth, nearest, most, depth, count);
  ListsChoice c;
  c.depth = depth;
  c.probes.assign(static_cast<size_t>(group), 0);
  double found = 0, visited = 0;
  const double all = static_cast<double>(count) * truth.k;
  // What the next list of head g adds, of all positions.
  const auto next = [&](int32_t g) {
    double good = 0, keys = 0;
    for (int32_t query = g; query < count; query += group) {
      const Gain& gain = gains[static_cast<size_t>(query * most + c.probes[static_cast<size_t>(g)])];
      good += gain.found, keys += gain.keys;
    }
    return std::pair<double, double>(good, keys);
  };
  const auto take = [&](int32_t g) {
    const auto got = next(g);
    found += got.first, visited += got.second;
    c.probes[static_cast<size_t>(g)]++;
  };
  for (int32_t g = 0; g < group; g++) take(g);
  while (found < options.recall * all) {
    int32_t best = -1;
    double rate = -1;
    for (int32_t g = 0; g < group; g++) {
      if (c.probes[static_cast<size_t>(g)] >= most) continue;
      const auto of = next(g);
      const double r = of.first / (of.second + 1);
      if (r > rate) rate = r, best = g;
    }
    if (best < 0) break;
    take(best);
  }
  c.recall = all > 0 ? found / all : 0;
  c.visited = positions > 0 ? visited / count / static_cast<double>(in.source.keys) : 1;
  c.reached = positions > 0 && c.recall >= options.recall;
  return c;
}

}  // namespace

ListsChoice calibrate_lists(const PartitionInput& in, const ListsOptions& options, const BytePanels& keys, const GraphCodes& routers,
                            const RankedLists& ranked, const std::vector<int32_t>& depths, int32_t from, int32_t horizon) {
  const size_t group = static_cast<size_t>(in.shape->group()), dim = static_cast<size_t>(in.source.dim);
  const std::vector<float> held = in.samples->moved(*in.shape, in.source.head, from, horizon, kHeldOut, true);
  const size_t positions = held.size() / (group * dim);
  const int32_t count = static_cast<int32_t>(positions * group);
  const Truth truth = find_truth(in, keys, held, count, std::min(options.k, in.source.keys));
  const int32_t lists = routers.nodes(), most = std::min(kMaxProbes, lists);
  const size_t width = (static_cast<size_t>(lists) + kSelected - 1) / kSelected * kSelected;
  std::vector<int32_t> all(static_cast<size_t>(lists));
  std::iota(all.begin(), all.end(), 0);
  std::vector<int32_t> nearest(static_cast<size_t>(count) * static_cast<size_t>(most));
  (*in.run)(static_cast<int32_t>(positions), [&](int32_t p) {
    std::vector<float> scores(width * group), memory(SelectWork::floats(lists));
    const SelectWork work(memory.data(), lists);
    GraphCodeQuery query;
    routers.prepare(query, held.data() + static_cast<size_t>(p) * group * dim, static_cast<int32_t>(group));
    routers.score_heads(scores.data(), width, *in.source.isa->graph, query, all.data(), lists);
    for (size_t g = 0; g < group; g++) {
      float* row = scores.data() + g * width;
      for (size_t i = 0; i < static_cast<size_t>(lists); i++) row[i] = std::isnan(row[i]) ? kLowest : row[i];
      for (size_t i = static_cast<size_t>(lists); i < width; i++) row[i] = -std::numeric_limits<float>::infinity();
      const int32_t found = select_best(*in.source.isa->select, row, lists, most, work);
      std::sort(work.ids, work.ids + found, [row](int32_t a, int32_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
      std::copy_n(work.ids, found, nearest.data() + (static_cast<size_t>(p) * group + g) * static_cast<size_t>(most));
    }
  });
  std::vector<ListsChoice> tried(depths.size());
  for (size_t i = 0; i < depths.size(); i++) {
    tried[i] = probe_greedily(in, options, ranked, truth, nearest, most, depths[i], static_cast<int32_t>(positions));
  }
  ListsChoice best;
  for (ListsChoice& c : tried) {
    const bool better = c.reached != best.reached ? c.reached : c.reached ? c.visited < best.visited : c.recall > best.recall;
    if (best.probes.empty() || better) best = std::move(c);
  }
  best.positions = static_cast<int32_t>(positions);
  return best;
}

}  // namespace kvasir
