// Growth of a graph: new keys find neighbours among their cell mates and among the keys that queries who want them start from, and
// such queries start from them, too.
#include <algorithm>

#include "graph_build.h"
#include "graph_entries.h"
#include "graph_prune.h"
#include "partition.h"

namespace kvasir {
namespace {

constexpr int32_t kRound = 512;       // nodes that do not see each other before they are linked
constexpr int32_t kMostMates = 32;    // the youngest of a cell
constexpr int32_t kMostWishes = 6;    // neighbours, nearest first, that learn of a new node
constexpr int32_t kTask = 32;

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
  for (int32_t first = from; first < to; first += kRound) {
    const int32_t last = std::min(to, first + kRound);
    // Which centroids of queries would have a new key among their best.
    const GraphEntries& entries = *next->entries;
    const int32_t centroids = entries.centroids.count();
    std::vector<std::vector<int32_t>> wanted(static_cast<size_t>(last - first));
    std::vector<int32_t> lists(static_cast<size_t>(last - first) * static_cast<size_t>(m), GraphLinks::kNone);
    run((last - first + kTask - 1) / kTask, [&](int32_t task) {
      GraphPruner pruner;
      const size_t dim = static_cast<size_t>(keys.dim());
      std::vector<int32_t> candidates;
      std::vector<float> scores(entries.centroids.width() * kTask), rows(dim * kTask);
      const int32_t start = first + task * kTask, some = std::min(kTask, last - start);
      for (int32_t i = 0; i < some; i++) keys.read(rows.data() + static_cast<size_t>(i) * dim, start + i);
      entries.centroids.dot(*isa.panels, scores.data(), rows.data(), some);
      for (int32_t node = first + task * kTask; node < std::min(last, first + (task + 1) * kTask); node++) {
        candidates.clear();
        const size_t cell = static_cast<size_t>(home[static_cast<size_t>(node)]);
        const int32_t* members = homes.members.data();
        const int32_t* begin = members + homes.offsets[cell];
        const int32_t* end = std::lower_bound(begin, members + homes.offsets[cell + 1], node);
        candidates.assign(std::max(begin, end - kMostMates), end);
        const float* row = scores.data() + static_cast<size_t>(node - start) * entries.centroids.width();
        std::pair<float, int32_t> most = {0, GraphLinks::kNone};
        const float* least = entries.least.data();
        constexpr int32_t kStretch = 32;  // most have none that passes
        for (int32_t from_c = 0; from_c < centroids; from_c += kStretch) {
          const int32_t end_c = std::min(centroids, from_c + kStretch);
          int32_t passed = 0;
          for (int32_t c = from_c; c < end_c; c++) passed += row[c] >= least[c];
          for (int32_t c = from_c; passed > 0 && c < end_c; c++) {
            const float excess = row[c] - least[c];
            if (!(excess >= 0)) continue;
            wanted[static_cast<size_t>(node - first)].push_back(c);
            if (most.second == GraphLinks::kNone || excess > most.first) most = {excess, c};
          }
        }
        if (most.second != GraphLinks::kNone) {
          for (int32_t i = 0; i < GraphEntries::kKeys; i++) {
            const int32_t entry = entries.nodes[static_cast<size_t>(most.second) * GraphEntries::kKeys + static_cast<size_t>(i)];
            if (entry != GraphLinks::kNone) candidates.push_back(entry);
          }
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
