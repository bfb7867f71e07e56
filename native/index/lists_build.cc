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
constexpr double kShare = 0.15;  // of the bytes of f16 keys, for lists and routers
// Up to so many keys a list is of one query, one of the latest: that tells queries apart better than clusters do, and what is decoded
// next resembles them most. Where a context is longer a product of each key with so many lists costs too much.
constexpr int32_t kFineKeys = 32768;
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

// Bytes of the share for lists and routers, of a router, and of a member: the gap, an eighth more in long contexts.
double share_of(const PartitionSource& source) { return kShare * 2 * source.dim * source.keys; }
double router_bytes(const PartitionSource& source) { return static_cast<double>(GraphCodes::row_bytes_of(source.dim) + 3 * sizeof(float)); }
constexpr double kMemberBytes = 1.125;

// What routers leave of the share.
int32_t depth_of(const ListsOptions& options, const PartitionSource& source, int32_t lists) {
  if (options.depth > 0) return options.depth;
  return static_cast<int32_t>(std::clamp((share_of(source) / lists - router_bytes(source)) / kMemberBytes, 1.0, static_cast<double>(kDepth)));
}

int32_t horizon_of(const ListsOptions& options, int32_t keys) {
  return options.horizon > 0 ? options.horizon : std::max(1024, keys / 2 - 16384);
}

// Lists for `queries` training queries; `fine`: of one query each.
int32_t lists_for(const ListsOptions& options, const PartitionSource& source, int32_t queries, bool fine) {
  const int32_t dim = source.dim, coarse = options.keys_per_list > 0 ? options.keys_per_list : std::max(16, 72 - dim / 4);
  // Deep enough for the best keys and what a query nearby has in their place; wider routers weigh more: fewer and deeper.
  const double depth = options.depth > 0 ? options.depth : options.k + dim / 2;
  const int32_t lists = fine ? static_cast<int32_t>(share_of(source) / (router_bytes(source) + kMemberBytes * depth)) : source.keys / coarse;
  return std::max(1, std::min(lists, queries));
}

// Clusters of queries train [count, dim] of length 1: [lists, dim], as well. Those of before, moved on with the tokens, are where they
// begin, as moving all queries by one distance moves their means by it.
std::vector<float> cluster(const PartitionInput& in, const ListsOptions& options, const float* train, int32_t count, int32_t lists,
                           int32_t aim) {
  const PartitionSource& source = in.source;
  KMeans settings;
  settings.clusters = lists;
  settings.iterations = options.iterations;
  settings.spherical = true;
  settings.seed = options.seed + static_cast<uint32_t>(source.head);
  settings.bytes = source.isa->bytes;
  std::vector<float> start;
  if (in.old != nullptr && in.old->routed.count() == lists) {
    start = in.old->routed.routers->decode();
    rotate_all(*in.shape, start.data(), lists, aim - in.old->aim);
    normalize(start.data(), lists, source.dim);
    settings.start = start.data();
    settings.iterations = 1;
  }
  return kmeans(*source.isa->panels, *in.run, train, count, source.dim, settings);
}

// Scores of what routers stand for, as codes have it, above those of what they are: of a mean key, which a threshold must be moved by.
std::vector<float> shifts_of(const GraphCodes& routers, const std::vector<float>& exact, const std::vector<float>& mean) {
  const std::vector<float> coded = routers.decode();
  const size_t dim = mean.size();
  std::vector<float> shifts(coded.size() / dim);
  for (size_t i = 0; i < coded.size(); i++) shifts[i / dim] += (coded[i] - exact[i]) * mean[i % dim];
  return shifts;
}

// Lists as they were tried, with what held-out queries find in them.
struct ListsTrial {
  std::shared_ptr<const GraphCodes> routers;
  RankedLists ranked;
  std::vector<float> shifts;
  ListsChoice choice;
};

// Lists of single queries (`fine`) or of clusters, of training queries [count, dim].
ListsTrial try_lists(const PartitionInput& in, const ListsOptions& options, std::vector<float> train, bool fine, int32_t aim, int32_t horizon) {
  const Partition* old = in.old;
  const PartitionSource& source = in.source;
  const size_t dim = static_cast<size_t>(source.dim);
  int32_t count = static_cast<int32_t>(train.size() / dim), lists = lists_for(options, source, count, fine);
  // An aim has the clusters of before.
  if (old != nullptr && !fine && old->routed.count() <= std::min(2 * lists, count)) lists = old->routed.count();
  // Evenly thinned where there are more queries than training needs.
  const int32_t enough = fine ? count : std::min(count, lists * kTrainPerList);
  for (int32_t i = 0; i < enough; i++) {
    std::copy_n(train.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(static_cast<int64_t>(i) * count / enough) * dim),
                dim, train.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(i) * dim));
  }
  count = enough;
  train.resize(static_cast<size_t>(count) * dim);
  std::vector<float> unit = train;
  normalize(unit.data(), count, source.dim);
  const auto latest = unit.end() - static_cast<std::ptrdiff_t>(static_cast<size_t>(lists) * dim);
  const std::vector<float> exact = fine ? std::vector<float>(latest, unit.end()) : cluster(in, options, unit.data(), count, lists, aim);
  ListsTrial trial;
  trial.routers = GraphCodes::of_rows(exact, source.dim);

  // The depth is a build's choice; an aim keeps it, for about as many lists.
  std::vector<int32_t> depths;
  const bool keep = old != nullptr && std::abs(lists - old->routed.count()) <= lists / 4;
  const int32_t most = std::min(keep ? old->depth : depth_of(options, source, lists), source.keys);
  for (double share : kDepths) {
    const int32_t depth = std::max(1, static_cast<int32_t>(std::lround(share * most)));
    if (!keep && (depths.empty() || depth > depths.back())) depths.push_back(depth);
  }
  if (keep) depths = {most};
  const BytePanels keys = key_panels(*source.isa, *in.run, *source.rows, source.head, source.begin, source.keys,
                                     mean_squares(exact.data(), lists, source.dim).data());
  BestColumns best = best_columns(*source.isa, *in.run, keys, keys.terms(exact.data(), nullptr, lists, kRouterShare), depths);
  trial.ranked = {lists, most, std::move(best.ids), std::move(best.scores)};
  if (options.knn && !fine) {
    order_by_votes(trial.ranked, in, keys, Nearest(exact.data(), lists, source.dim, true), train.data(), unit.data(), count);
  }
  trial.shifts = shifts_of(*trial.routers, exact, keys.mean());
  trial.choice = calibrate_lists(in, options, keys, *trial.routers, trial.ranked, depths, aim, horizon);
  return trial;
}

// The lists that were chosen, and from what score on a new key joins them.
void store_lists(Partition& to, const PartitionInput& in, ListsTrial trial) {
  const RankedLists& ranked = trial.ranked;
  const int32_t depth = trial.choice.depth, lists = ranked.lists;
  std::vector<float> thresholds = std::move(trial.shifts);
  std::vector<std::vector<int32_t>> members(static_cast<size_t>(lists));
  (*in.run)((lists + kTaskLists - 1) / kTaskLists, [&](int32_t task) {
    std::vector<uint64_t> marks((static_cast<size_t>(in.source.keys) + 63) / 64);
    for (int32_t list = task * kTaskLists; list < std::min(lists, (task + 1) * kTaskLists); list++) {
      const float* scores = ranked.scores.data() + static_cast<size_t>(list) * static_cast<size_t>(ranked.depth);
      thresholds[static_cast<size_t>(list)] += *std::min_element(scores, scores + depth);
      in_order(members[static_cast<size_t>(list)], ranked.of(list), depth, marks);
    }
  });
  GapLists routed;
  routed.routers = std::move(trial.routers);
  routed.append(members);
  to.routed = std::move(routed);
  to.thresholds = std::move(thresholds);
  to.depth = depth;
  to.probes = 0;
  to.head_probes = trial.choice.probes;
  if (trial.choice.positions > 0) {
    to.recall = trial.choice.recall;
    to.visited = trial.choice.visited;
  }
}

}  // namespace

std::shared_ptr<const Partition> build_lists(const PartitionInput& in, const ListsOptions& options, std::string& decision) {
  const PartitionSource& source = in.source;
  const int32_t horizon = horizon_of(options, source.keys), aim = source.begin + source.keys + options.ahead;
  const std::vector<float> train = in.samples->moved(*in.shape, source.head, aim, horizon, kHeldOut, false);
  std::shared_ptr<Partition> made;
  if (in.old == nullptr) {
    made = std::make_shared<Partition>();
    build_homes(*made, source, *in.run, std::max(1, source.keys / 128), train.data(), static_cast<int32_t>(train.size()) / source.dim,
                options.iterations, options.seed + static_cast<uint32_t>(source.head));
  } else {
    made = extend_homes(*in.old, source, *in.run);
  }
  const bool fine = options.fine && options.keys_per_list == 0 && source.keys <= kFineKeys;
  ListsTrial trial = try_lists(in, options, train, fine, aim, horizon);
  if (fine && !trial.choice.reached) {
    // Where keys are few or narrow such lists are too short; those of clusters are fewer and deeper.
    ListsTrial other = try_lists(in, options, train, false, aim, horizon);
    if (other.choice.recall > trial.choice.recall) trial = std::move(other);
  }
  const ListsChoice choice = trial.choice;
  store_lists(*made, in, std::move(trial));
  made->aim = aim;
  made->horizon = horizon;
  std::string probes;
  for (int32_t p : choice.probes) probes += (probes.empty() ? "" : "+") + std::to_string(p);
  char line[300];
  std::snprintf(line, sizeof line,
                "KV head %d: %d lists of %d of %d keys, %.60s for a group; recall %.3f%s and %.2f %% of keys scored by a query on %d "
                "held-out prompt positions",
                source.head, made->routed.count(), choice.depth, source.keys, probes.c_str(), choice.recall,
                choice.reached ? "" : " (below what was asked)", 100 * choice.visited, choice.positions);
  decision = line;
  return made;
}

}  // namespace kvasir
