#include "lists_build.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "knn.h"

namespace kvasir {
namespace {

constexpr int32_t kMaxHeld = 96;     // positions of the calibration
constexpr int32_t kMaxProbes = 8;
constexpr int32_t kTrainPerList = 32;
constexpr int32_t kNearest = 100;    // keys a training query votes for
constexpr double kDepths[] = {0.125, 0.1875, 0.25, 0.375, 0.5, 0.75, 1};  // of the greatest

// Keys of each list, best first: [lists, depth] ids.
struct Ranked {
  int32_t lists, depth;
  std::vector<int32_t> ids;
  std::vector<float> scores;  // centroid . key of the key at a rank by centroid score
  const int32_t* of(int32_t list) const { return ids.data() + static_cast<size_t>(list) * static_cast<size_t>(depth); }
};

// With kNN, keys that more of the cluster's queries have among their nearest come first; those without a vote follow by centroid
// score.
void order_by_votes(Ranked& ranked, const PartitionInput& in, const Nearest& routers, const float* train, const float* unit,
                    int32_t count) {
  std::vector<int32_t> cluster(static_cast<size_t>(count));
  routers.find(*in.source.isa->panels, cluster.data(), nullptr, unit, count);
  const Neighbours near = nearest_keys(*in.source.isa, *in.run, *in.source.rows, in.source.head, in.source.begin,
                                       in.source.begin + in.source.keys, train, count, std::min(kNearest, in.source.keys));
  std::vector<std::vector<int32_t>> voted(static_cast<size_t>(ranked.lists));
  for (int32_t i = 0; i < count; i++) {
    auto& ids = voted[static_cast<size_t>(cluster[static_cast<size_t>(i)])];
    for (int32_t j = 0; j < near.k; j++) ids.push_back(near.of(i)[j] - in.source.begin);
  }
  for (int32_t list = 0; list < ranked.lists; list++) {
    auto& ids = voted[static_cast<size_t>(list)];
    std::sort(ids.begin(), ids.end());
    std::vector<std::pair<int32_t, int32_t>> votes;  // -votes, id
    for (size_t i = 0; i < ids.size();) {
      size_t j = i;
      while (j < ids.size() && ids[j] == ids[i]) j++;
      votes.push_back({-static_cast<int32_t>(j - i), ids[i]});
      i = j;
    }
    std::sort(votes.begin(), votes.end());
    if (votes.size() > static_cast<size_t>(ranked.depth)) votes.resize(static_cast<size_t>(ranked.depth));
    std::vector<int32_t> order, taken;
    for (const auto& v : votes) order.push_back(v.second);
    taken = order;
    std::sort(taken.begin(), taken.end());
    int32_t* row = ranked.ids.data() + static_cast<size_t>(list) * static_cast<size_t>(ranked.depth);
    for (int32_t i = 0; i < ranked.depth && order.size() < static_cast<size_t>(ranked.depth); i++) {
      if (!std::binary_search(taken.begin(), taken.end(), row[i])) order.push_back(row[i]);
    }
    std::copy(order.begin(), order.end(), row);
  }
}

struct Choice {
  int32_t depth = 1, probes = 1;
  double recall = 0, visited = 1;  // means over held-out queries, and positions
  int32_t positions = 0;
  bool reached = false;
};

// Plays searches of held-out positions, a group's queries together as in a search, for all depths and numbers of probes, and takes
// the least work that reaches the recall; where none does, the best recall.
Choice calibrate(const PartitionInput& in, const ListsOptions& options, const Panels& routers, const Ranked& ranked) {
  const size_t group = static_cast<size_t>(in.shape->group()), dim = static_cast<size_t>(in.source.dim);
  const int32_t end = in.source.begin + in.source.keys;
  std::vector<float> held = in.samples->moved(*in.shape, in.source.head, end, options.horizon, kHoldEvery, kHoldRest, true);
  const size_t all = held.size() / (group * dim), positions = std::min<size_t>(all, kMaxHeld);
  for (size_t i = 0; i < positions; i++) {
    std::copy_n(held.begin() + static_cast<std::ptrdiff_t>(i * all / positions * group * dim), group * dim,
                held.begin() + static_cast<std::ptrdiff_t>(i * group * dim));
  }
  const int32_t count = static_cast<int32_t>(positions * group), k = std::min(options.k, in.source.keys);
  const Neighbours truth = nearest_keys(*in.source.isa, *in.run, *in.source.rows, in.source.head, in.source.begin, end,
                                        held.data(), count, k);
  const int32_t most = std::min(kMaxProbes, routers.count());
  std::vector<int32_t> nearest(static_cast<size_t>(count) * static_cast<size_t>(most));
  std::vector<float> scores(routers.width() * group);
  for (size_t p = 0; p < positions; p++) {
    routers.dot(*in.source.isa->panels, scores.data(), held.data() + p * group * dim, static_cast<int32_t>(group));
    for (size_t g = 0; g < group; g++) {
      float* row = scores.data() + g * routers.width();
      for (int32_t i = 0; i < most; i++) {
        float best;
        const int32_t list = in.source.isa->panels->argmax(&best, row, routers.count());
        nearest[(p * group + g) * static_cast<size_t>(most) + static_cast<size_t>(i)] = list;
        row[list] = -std::numeric_limits<float>::infinity();
      }
    }
  }
  Choice best;
  std::vector<int32_t> seen(static_cast<size_t>(in.source.keys), 0);
  int32_t stamp = 0;
  for (double part : kDepths) {
    const int32_t depth = std::max(1, static_cast<int32_t>(std::lround(part * ranked.depth)));
    double found[kMaxProbes] = {}, visited[kMaxProbes] = {};
    for (size_t p = 0; p < positions; p++) {
      stamp++;
      int64_t here = 0;
      for (int32_t i = 0; i < most; i++) {
        for (size_t g = 0; g < group; g++) {
          const int32_t list = nearest[(p * group + g) * static_cast<size_t>(most) + static_cast<size_t>(i)];
          for (int32_t r = 0; r < depth; r++) {
            int32_t& s = seen[static_cast<size_t>(ranked.of(list)[r])];
            here += s != stamp;
            s = stamp;
          }
        }
        visited[i] += static_cast<double>(here);
        for (size_t g = 0; g < group; g++) {
          const int32_t* want = truth.of(static_cast<int32_t>(p * group + g));
          for (int32_t j = 0; j < truth.k; j++) found[i] += seen[static_cast<size_t>(want[j] - in.source.begin)] == stamp;
        }
      }
    }
    for (int32_t i = 0; i < most && positions > 0; i++) {
      Choice c;
      c.depth = depth;
      c.probes = i + 1;
      c.recall = found[i] / (static_cast<double>(count) * truth.k);
      c.visited = visited[i] / static_cast<double>(positions) / in.source.keys;
      c.reached = c.recall >= options.recall;
      const bool better = c.reached != best.reached ? c.reached : c.reached ? c.visited < best.visited : c.recall > best.recall;
      if (better) best = c;
    }
  }
  best.positions = static_cast<int32_t>(positions);
  return best;
}

}  // namespace

std::shared_ptr<const Partition> build_lists(const PartitionInput& in, const ListsOptions& options, std::string& decision) {
  const PartitionSource& source = in.source;
  const int32_t end = source.begin + source.keys;
  const size_t dim = static_cast<size_t>(source.dim);
  const uint32_t seed = options.seed + static_cast<uint32_t>(source.head);
  std::vector<float> train = in.samples->moved(*in.shape, source.head, end, options.horizon, kHoldEvery, kHoldRest, false);
  int32_t count = static_cast<int32_t>(train.size() / dim);

  auto made = std::make_shared<Partition>();
  build_homes(*made, source, *in.run, std::max(1, source.keys / 128), train.data(), count, options.iterations, seed);

  const int32_t lists = std::max(1, std::min(source.keys / options.keys_per_list, count / 4));
  // Evenly thinned where there are more than training needs.
  const int32_t enough = std::min(count, lists * kTrainPerList);
  for (int32_t i = 0; i < enough; i++) {
    std::copy_n(train.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(static_cast<int64_t>(i) * count / enough) * dim), dim,
                train.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(i) * dim));
  }
  count = enough;
  train.resize(static_cast<size_t>(count) * dim);
  std::vector<float> unit = train;
  normalize(unit.data(), count, source.dim);
  KMeans settings;
  settings.clusters = lists;
  settings.iterations = options.iterations;
  settings.spherical = true;
  settings.seed = seed;
  const std::vector<float> centroids = kmeans(*source.isa->panels, *in.run, unit.data(), count, source.dim, settings);
  const Nearest routers(centroids.data(), lists, source.dim, true);

  Neighbours near = nearest_keys(*source.isa, *in.run, *source.rows, source.head, source.begin, end, centroids.data(), lists,
                                 std::min(options.depth, source.keys));
  for (int32_t& position : near.positions) position -= source.begin;
  Ranked ranked = {lists, near.k, std::move(near.positions), std::move(near.scores)};
  if (options.knn) order_by_votes(ranked, in, routers, train.data(), unit.data(), count);

  const Choice choice = calibrate(in, options, routers.panels, ranked);
  ListTable& routed = made->routed;
  routed.centroids = routers.panels;
  routed.offsets.push_back(0);
  for (int32_t list = 0; list < lists; list++) {
    const int32_t* ids = ranked.of(list);
    routed.members.insert(routed.members.end(), ids, ids + choice.depth);
    std::sort(routed.members.end() - choice.depth, routed.members.end());
    routed.offsets.push_back(static_cast<int32_t>(routed.members.size()));
    made->thresholds.push_back(
        ranked.scores[static_cast<size_t>(list) * static_cast<size_t>(ranked.depth) + static_cast<size_t>(choice.depth - 1)]);
  }
  made->probes = choice.probes;
  if (choice.positions > 0) {
    made->recall = choice.recall;
    made->visited = choice.visited;
  }
  char line[240];
  std::snprintf(line, sizeof line,
                "KV head %d: %d lists of %d of %d keys, %d a query; recall %.3f%s and %.1f %% of keys visited on %d held-out prompt "
                "positions",
                source.head, lists, choice.depth, source.keys, choice.probes, choice.recall,
                choice.reached ? "" : " (below what was asked)", 100 * choice.visited, choice.positions);
  decision = line;
  return made;
}

}  // namespace kvasir
