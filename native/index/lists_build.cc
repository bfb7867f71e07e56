#include "lists_build.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "byte_panels.h"
#include "lists_calibrate.h"
#include "spread.h"

namespace kvasir {
namespace {

constexpr int32_t kDepth = 1024;
constexpr int32_t kTrainPerList = 32;
constexpr int32_t kTaskLists = 64;
constexpr int32_t kNearest = 100;    // keys a training query votes for
constexpr double kDepths[] = {0.125, 0.1875, 0.25, 0.375, 0.5, 0.75, 1};  // of the greatest

// With kNN, keys that more of the cluster's queries have among their nearest come first; those without a vote follow by centroid
// score.
void order_by_votes(RankedLists& ranked, const PartitionInput& in, const BytePanels& keys, const Nearest& routers, const float* train,
                    const float* unit, int32_t count) {
  std::vector<int32_t> cluster(static_cast<size_t>(count));
  routers.find(*in.source.isa->panels, cluster.data(), nullptr, unit, count);
  const BestColumns near = best_columns(*in.source.isa, *in.run, keys, keys.terms(train, nullptr, count),
                                        {std::min(kNearest, in.source.keys)});
  std::vector<std::vector<int32_t>> voted(static_cast<size_t>(ranked.lists));
  for (int32_t i = 0; i < count; i++) {
    auto& ids = voted[static_cast<size_t>(cluster[static_cast<size_t>(i)])];
    for (int32_t j = 0; j < near.k; j++) ids.push_back(near.ids[static_cast<size_t>(i) * static_cast<size_t>(near.k) + static_cast<size_t>(j)]);
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

// ids [count], all different, in order; marks [keys / 64] are zero before and after.
void in_order(std::vector<int32_t>& out, const int32_t* ids, int32_t count, std::vector<uint64_t>& marks) {
  out.reserve(static_cast<size_t>(count));
  if (std::is_sorted(ids, ids + count)) {
    out.assign(ids, ids + count);
    return;
  }
  for (int32_t i = 0; i < count; i++) marks[static_cast<size_t>(ids[i]) >> 6] |= 1ull << (ids[i] & 63);
  for (size_t w = 0; w < marks.size(); w++) {
    for (uint64_t word = marks[w]; word != 0; word &= word - 1) {
      out.push_back(static_cast<int32_t>(w * 64) + __builtin_ctzll(word));
    }
    marks[w] = 0;
  }
}

// A member weighs a byte, a little more in lists of long contexts.
int32_t depth_of(const ListsOptions& options, const PartitionSource& source, int32_t lists) {
  if (options.depth > 0) return options.depth;
  const int64_t members = int64_t{source.keys} * source.dim * 7 / 32;
  return static_cast<int32_t>(std::min<int64_t>(kDepth, std::max<int64_t>(1, members / lists)));
}

int32_t horizon_of(const ListsOptions& options, int32_t keys) {
  return options.horizon > 0 ? options.horizon : std::max(1024, keys / 2 - 16384);
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
    const int32_t keys_per_list = options.keys_per_list > 0 ? options.keys_per_list : std::max(16, 72 - source.dim / 4);
    lists = std::max(1, std::min(source.keys / keys_per_list, count / 4));
  } else {
    made = extend_homes(*old, source, *in.run);
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
    settings.bytes = source.isa->bytes;
    centroids = kmeans(*source.isa->panels, *in.run, unit.data(), count, source.dim, settings);
  }
  // In half the bytes, which costs no recall. From here on centroids are what a search will see.
  Panels narrow;
  narrow.pack(centroids.data(), lists, source.dim);
  narrow.narrow();
  centroids = narrow.unpack();

  // The depth is a build's choice; an aim keeps it.
  std::vector<int32_t> depths;
  const int32_t most = std::min(old == nullptr ? depth_of(options, source, lists) : old->depth, source.keys);
  for (double share : kDepths) {
    const int32_t depth = std::max(1, static_cast<int32_t>(std::lround(share * most)));
    if (old == nullptr && (depths.empty() || depth > depths.back())) depths.push_back(depth);
  }
  if (old != nullptr) depths = {most};
  const BytePanels keys = key_panels(*source.isa, *in.run, *source.rows, source.head, source.begin, source.keys,
                                     mean_squares(centroids.data(), lists, source.dim).data());
  BestColumns best = best_columns(*source.isa, *in.run, keys, keys.terms(centroids.data(), nullptr, lists, kRouterShare), depths);
  RankedLists ranked = {lists, most, std::move(best.ids), std::move(best.scores)};
  if (options.knn) order_by_votes(ranked, in, keys, Nearest(centroids.data(), lists, source.dim, true), train.data(), unit.data(), count);

  const ListsChoice choice = calibrate_lists(in, options, keys, narrow, ranked, depths, aim, horizon);
  GapLists routed;
  routed.centroids = std::move(narrow);
  std::vector<float> thresholds(static_cast<size_t>(lists));
  std::vector<std::vector<int32_t>> members(static_cast<size_t>(lists));
  (*in.run)((lists + kTaskLists - 1) / kTaskLists, [&](int32_t task) {
    std::vector<uint64_t> marks((static_cast<size_t>(source.keys) + 63) / 64);
    for (int32_t list = task * kTaskLists; list < std::min(lists, (task + 1) * kTaskLists); list++) {
      const float* best_scores = ranked.scores.data() + static_cast<size_t>(list) * static_cast<size_t>(ranked.depth);
      thresholds[static_cast<size_t>(list)] = *std::min_element(best_scores, best_scores + choice.depth);
      in_order(members[static_cast<size_t>(list)], ranked.of(list), choice.depth, marks);
    }
  });
  routed.append(members);
  made->routed = std::move(routed);
  made->thresholds = std::move(thresholds);
  made->aim = aim;
  made->horizon = horizon;
  made->depth = choice.depth;
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
