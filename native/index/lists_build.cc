#include "lists_build.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "knn.h"
#include "spread.h"

namespace kvasir {
namespace {

// Positions of the calibration, the latest: a query from far back moved to the end wants keys that no decode query wants, as what it
// had behind it then is now far away.
constexpr int32_t kMaxHeld = 64;
constexpr int32_t kMaxProbes = 32;
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

int32_t horizon_of(const ListsOptions& options, int32_t keys) {
  return options.horizon > 0 ? options.horizon : std::min(8192, std::max(1024, keys / 16 - 1024));
}

struct Choice {
  int32_t depth = 1;
  std::vector<int32_t> probes;     // of each query head
  double recall = 0, visited = 1;  // means over held-out queries
  int32_t positions = 0;
  bool reached = false;
};

// Plays searches of held-out positions with lists of one depth: each query head its own lists, as in a search. Each head gets one
// list, then the head whose next list finds most for the keys it adds gets another, until the mean recall is reached.
Choice probe_greedily(const PartitionInput& in, const ListsOptions& options, const Ranked& ranked, const Neighbours& truth,
                      const std::vector<int32_t>& nearest, int32_t most, int32_t depth, int32_t positions) {
  const int32_t group = in.shape->group();
  const size_t keys = static_cast<size_t>(in.source.keys), words = (keys + 63) / 64;
  std::vector<uint64_t> seen(words * static_cast<size_t>(positions * group), 0);
  std::vector<uint8_t> wanted(keys, 0);
  Choice c;
  c.depth = depth;
  c.probes.assign(static_cast<size_t>(group), 0);
  double found = 0, visited = 0;
  const double all = static_cast<double>(positions) * group * truth.k;
  struct Gain {
    double found = 0, keys = 0;
  };
  // What the next list of head g adds, of all positions; with `take` it is added.
  const auto gain = [&](int32_t g, bool take) {
    Gain sum;
    const int32_t probe = c.probes[static_cast<size_t>(g)];
    for (int32_t p = 0; p < positions; p++) {
      const int32_t query = p * group + g;
      const int32_t* want = truth.of(query);
      for (int32_t j = 0; j < truth.k; j++) wanted[static_cast<size_t>(want[j] - in.source.begin)] = 1;
      uint64_t* marks = seen.data() + static_cast<size_t>(query) * words;
      const int32_t* ids = ranked.of(nearest[static_cast<size_t>(query * most + probe)]);
      int32_t fresh = 0, good = 0;
      for (int32_t r = 0; r < depth; r++) {
        const size_t id = static_cast<size_t>(ids[r]);
        const int32_t unseen = static_cast<int32_t>(~(marks[id >> 6] >> (id & 63)) & 1);
        fresh += unseen;
        good += unseen & wanted[id];
        if (take) marks[id >> 6] |= 1ull << (id & 63);
      }
      sum.found += good;
      sum.keys += fresh;
      for (int32_t j = 0; j < truth.k; j++) wanted[static_cast<size_t>(want[j] - in.source.begin)] = 0;
    }
    return sum;
  };
  std::vector<Gain> next(static_cast<size_t>(group));
  const auto take = [&](int32_t g) {
    const Gain got = gain(g, true);
    found += got.found;
    visited += got.keys;
    if (++c.probes[static_cast<size_t>(g)] < most) next[static_cast<size_t>(g)] = gain(g, false);
  };
  for (int32_t g = 0; g < group; g++) take(g);
  while (found < options.recall * all) {
    int32_t best = -1;
    double rate = -1;
    for (int32_t g = 0; g < group; g++) {
      if (c.probes[static_cast<size_t>(g)] >= most) continue;
      const Gain& of = next[static_cast<size_t>(g)];
      const double r = of.found / (of.keys + 1);
      if (r > rate) rate = r, best = g;
    }
    if (best < 0) break;
    take(best);
  }
  c.recall = all > 0 ? found / all : 0;
  c.visited = positions > 0 ? visited / positions / group / static_cast<double>(keys) : 1;
  c.reached = positions > 0 && c.recall >= options.recall;
  return c;
}

// The depth and the numbers of lists that reach the recall with least work on held-out positions; where none does, those of the best
// recall.
Choice calibrate(const PartitionInput& in, const ListsOptions& options, const Panels& routers, const Ranked& ranked) {
  const size_t group = static_cast<size_t>(in.shape->group()), dim = static_cast<size_t>(in.source.dim);
  const int32_t end = in.source.begin + in.source.keys, horizon = horizon_of(options, in.source.keys);
  std::vector<float> held = in.samples->moved(*in.shape, in.source.head, end + options.ahead, horizon, kHoldEvery, kHoldRest, true);
  const size_t all = held.size() / (group * dim), positions = std::min<size_t>(all, kMaxHeld);
  held.erase(held.begin(), held.end() - static_cast<std::ptrdiff_t>(positions * group * dim));
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
  constexpr int32_t kTried = static_cast<int32_t>(sizeof kDepths / sizeof kDepths[0]);
  std::vector<Choice> tried(kTried);
  (*in.run)(kTried, [&](int32_t i) {
    const int32_t depth = std::max(1, static_cast<int32_t>(std::lround(kDepths[i] * ranked.depth)));
    tried[static_cast<size_t>(i)] = probe_greedily(in, options, ranked, truth, nearest, most, depth, static_cast<int32_t>(positions));
  });
  Choice best;
  for (Choice& c : tried) {
    const bool better = c.reached != best.reached ? c.reached : c.reached ? c.visited < best.visited : c.recall > best.recall;
    if (best.probes.empty() || better) best = std::move(c);
  }
  best.positions = static_cast<int32_t>(positions);
  return best;
}

}  // namespace

std::shared_ptr<const Partition> build_lists(const PartitionInput& in, const ListsOptions& options, std::string& decision) {
  const Partition* old = in.old;
  const PartitionSource& source = in.source;
  const int32_t end = source.begin + source.keys, horizon = horizon_of(options, source.keys), aim = end + options.ahead;
  const size_t dim = static_cast<size_t>(source.dim);
  const uint32_t seed = options.seed + static_cast<uint32_t>(source.head);
  std::vector<float> train, unit, centroids;
  if (old == nullptr || options.knn) {
    train = in.samples->moved(*in.shape, source.head, aim, horizon, kHoldEvery, kHoldRest, false);
  }
  int32_t count = static_cast<int32_t>(train.size() / dim), lists;
  std::shared_ptr<Partition> made;
  if (old == nullptr) {
    made = std::make_shared<Partition>();
    build_homes(*made, source, *in.run, std::max(1, source.keys / 128), train.data(), count, options.iterations, seed);
    const int32_t keys_per_list = options.keys_per_list > 0 ? options.keys_per_list : 24 + 2048 / source.dim;
    lists = std::max(1, std::min(source.keys / keys_per_list, count / 4));
  } else {
    made = extend(*old, source, *in.run);
    lists = old->routed.count();
    centroids = old->routed.centroids.unpack();
    rotate_all(*in.shape, centroids.data(), lists, aim - old->aim);
  }
  // Evenly thinned where there are more queries than training needs.
  const int32_t enough = std::min(count, lists * kTrainPerList);
  for (int32_t i = 0; i < enough; i++) {
    std::copy_n(train.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(static_cast<int64_t>(i) * count / enough) * dim),
                dim, train.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(i) * dim));
  }
  count = enough;
  train.resize(static_cast<size_t>(count) * dim);
  unit = train;
  normalize(unit.data(), count, source.dim);
  if (old == nullptr) {
    KMeans settings;
    settings.clusters = lists;
    settings.iterations = options.iterations;
    settings.spherical = true;
    settings.seed = seed;
    centroids = kmeans(*source.isa->panels, *in.run, unit.data(), count, source.dim, settings);
  }
  const Nearest routers(centroids.data(), lists, source.dim, true);

  Neighbours near = nearest_keys(*source.isa, *in.run, *source.rows, source.head, source.begin, end, centroids.data(), lists,
                                 std::min(options.depth, source.keys));
  for (int32_t& position : near.positions) position -= source.begin;
  Ranked ranked = {lists, near.k, std::move(near.positions), std::move(near.scores)};
  if (options.knn) order_by_votes(ranked, in, routers, train.data(), unit.data(), count);

  const Choice choice = calibrate(in, options, routers.panels, ranked);
  PackedLists routed;
  routed.centroids = routers.panels;
  std::vector<float> thresholds;
  std::vector<std::vector<int32_t>> members(static_cast<size_t>(lists));
  for (int32_t list = 0; list < lists; list++) {
    const int32_t* ids = ranked.of(list);
    members[static_cast<size_t>(list)].assign(ids, ids + choice.depth);
    std::sort(members[static_cast<size_t>(list)].begin(), members[static_cast<size_t>(list)].end());
    thresholds.push_back(
        ranked.scores[static_cast<size_t>(list) * static_cast<size_t>(ranked.depth) + static_cast<size_t>(choice.depth - 1)]);
  }
  routed.append(members, source.keys);
  made->routed = std::move(routed);
  made->thresholds = std::move(thresholds);
  made->aim = aim;
  made->horizon = horizon;
  made->probes = 0;
  made->head_probes = choice.probes;
  if (choice.positions > 0) {
    made->recall = choice.recall;
    made->visited = choice.visited;
  }
  std::string probes;
  for (int32_t p : choice.probes) probes += (probes.empty() ? "" : "+") + std::to_string(p);
  char line[300];
  std::snprintf(line, sizeof line,
                "KV head %d: %d lists of %d of %d keys, %.60s for a group; recall %.3f%s and %.2f %% of keys scored by a query on %d "
                "held-out prompt positions",
                source.head, lists, choice.depth, source.keys, probes.c_str(), choice.recall,
                choice.reached ? "" : " (below what was asked)", 100 * choice.visited, choice.positions);
  decision = line;
  return made;
}

}  // namespace kvasir
