// Growth of a graph: new keys find neighbours among their cell mates and among the keys that queries who want them start from, and
// such queries start from them, too.
#include <algorithm>
#include <numeric>

#include "byte_panels.h"
#include "graph_build.h"
#include "graph_entries.h"
#include "graph_prune.h"
#include "partition.h"

namespace kvasir {
namespace {

constexpr int32_t kRound = 4096;      // nodes whose wishes are granted together: each host is pruned once
constexpr int32_t kMostMates = 32;    // the youngest of a cell
constexpr int32_t kMostWishes = 6;    // neighbours, nearest first, that learn of a new node
constexpr int32_t kTask = 32;         // a panel of keys

}  // namespace

std::shared_ptr<Graph> insert_nodes(const IndexIsa& isa, const Graph& graph, const GraphKeys& keys, const ListTable& homes,
                                    const RunTasks& run) {
  auto next = std::make_shared<Graph>(graph);
  next->links = graph.links.next();
  const int32_t from = graph.nodes(), to = keys.nodes();
  next->links.resize(to);
  next->codes.append(keys, run);
  next->newcomers.resize(static_cast<size_t>(graph.entries->centroids.count()));
  const int32_t m = std::max(4, graph.links.slots() / 2);
  const std::vector<int32_t> home = homes_of(homes, to);
  const BytePanels fresh = key_panels(isa, run, keys.rows(), keys.head(), keys.begin() + from, to - from);
  const int32_t centroids = graph.entries->centroids.count();
  const BytePanels::Terms routers = fresh.terms(graph.entries->centroids.unpack().data(), nullptr, centroids);
  for (int32_t first = from; first < to; first += kRound) {
    const int32_t last = std::min(to, first + kRound);
    // Which centroids of queries would have a new key among their best, and which most so.
    const GraphEntries& entries = *next->entries;
    std::vector<std::vector<int32_t>> wanted(static_cast<size_t>(last - first));
    std::vector<int32_t> mosts(static_cast<size_t>(last - first), GraphLinks::kNone);
    run((last - first + kTask - 1) / kTask, [&](int32_t task) {
      const int32_t start = first + task * kTask, some = std::min(kTask, last - start);
      std::vector<float> scores(static_cast<size_t>(centroids) * kTask);
      fresh.dot(*isa.bytes, scores.data(), routers, 0, centroids, (start - from) / kTask);
      float margins[kTask] = {}, kept[kTask];
      int32_t ids[kTask];
      for (int32_t c = 0; c < centroids; c++) {
        const float least = entries.least[static_cast<size_t>(c)];
        const int32_t above = isa.graph->above(kept, ids, scores.data() + static_cast<size_t>(c) * kTask, least, 0);
        for (int32_t i = 0; i < above && ids[i] < some; i++) {
          const size_t at = static_cast<size_t>(start + ids[i] - first);
          wanted[at].push_back(c);
          if (mosts[at] == GraphLinks::kNone || kept[i] - least > margins[ids[i]]) mosts[at] = c, margins[ids[i]] = kept[i] - least;
        }
      }
    });
    // Nodes of a cell one after the other: most of their candidates are the same.
    std::vector<int32_t> order(static_cast<size_t>(last - first));
    std::iota(order.begin(), order.end(), first);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return home[static_cast<size_t>(a)] < home[static_cast<size_t>(b)]; });
    std::vector<int32_t> lists(static_cast<size_t>(last - first) * static_cast<size_t>(m), GraphLinks::kNone);
    run((last - first + kTask - 1) / kTask, [&](int32_t task) {
      GraphPruner pruner;
      std::vector<int32_t> candidates;
      const int32_t start = task * kTask, some = std::min(kTask, last - first - start);
      for (int32_t i = start; i < start + some; i++) {
        const int32_t node = order[static_cast<size_t>(i)];
        const size_t cell = static_cast<size_t>(home[static_cast<size_t>(node)]);
        const int32_t* members = homes.members.data();
        const int32_t* begin = members + homes.offsets[cell];
        const int32_t* end = std::lower_bound(begin, members + homes.offsets[cell + 1], node);
        candidates.assign(std::max(begin, end - kMostMates), end);
        const int32_t most = mosts[static_cast<size_t>(node - first)];
        for (int32_t j = 0; most != GraphLinks::kNone && j < GraphEntries::kKeys; j++) {
          const int32_t entry = entries.nodes[static_cast<size_t>(most) * GraphEntries::kKeys + static_cast<size_t>(j)];
          if (entry != GraphLinks::kNone) candidates.push_back(entry);
        }
        std::sort(candidates.begin(), candidates.end());
        candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
        pruner.select(lists.data() + static_cast<size_t>(node - first) * static_cast<size_t>(m), keys, node,
                      candidates.data(), static_cast<int32_t>(candidates.size()), m);
      }
    });
    std::vector<GraphWish> wishes;
    for (int32_t node = first; node < last; node++) {
      const int32_t* list = lists.data() + static_cast<size_t>(node - first) * static_cast<size_t>(m);
      int32_t count = 0;
      while (count < m && list[count] != GraphLinks::kNone) count++;
      next->links.set(node, list, count);
      for (int32_t i = 0; i < std::min(count, kMostWishes); i++) wishes.push_back({list[i], node});
      for (int32_t c : wanted[static_cast<size_t>(node - first)]) next->newcomers[static_cast<size_t>(c)].push_back(node);
      // Whatever pruning does later: a thread that is never cut leads here.
      int32_t host = GraphLinks::kNone;
      for (int32_t i = 0; i < count && host == GraphLinks::kNone; i++) {
        if (next->links.thread(list[i]) == GraphLinks::kNone) host = list[i];
      }
      // The one before was given nobody's but its predecessor's thread: it still has its own.
      if (host == GraphLinks::kNone) host = node - 1;
      while (next->links.thread(host) != GraphLinks::kNone) host = next->links.thread(host);
      next->links.edit(host)[next->links.slots() - 1] = node;
    }
    grant_wishes(next->links, keys, wishes, run, next->parents.get());
  }
  return next;
}

}  // namespace kvasir
