// Growth of a graph: new keys find neighbours among their cell mates and among the keys that similar queries start from.
#include <algorithm>

#include "graph_build.h"
#include "graph_entries.h"
#include "graph_prune.h"
#include "partition.h"

namespace kvasir {
namespace {

constexpr int32_t kRound = 512;       // nodes that do not see each other before they are linked
constexpr int32_t kMostMates = 192;   // the youngest of a cell
constexpr int32_t kTask = 32;

}  // namespace

std::shared_ptr<Graph> insert_nodes(const IndexIsa& isa, const Graph& graph, const GraphKeys& keys, const ListTable& homes,
                                    const RunTasks& run) {
  auto next = std::make_shared<Graph>(graph);
  next->links = graph.links.next();
  const int32_t from = graph.nodes(), to = keys.nodes();
  next->links.resize(to);
  const int32_t m = graph.links.slots() * 2 / 3;
  const std::vector<int32_t> home = homes_of(homes, to);
  for (int32_t first = from; first < to; first += kRound) {
    const int32_t last = std::min(to, first + kRound);
    std::vector<int32_t> lists(static_cast<size_t>(last - first) * static_cast<size_t>(m), GraphLinks::kNone);
    run((last - first + kTask - 1) / kTask, [&](int32_t task) {
      GraphPruner pruner;
      std::vector<float> self(static_cast<size_t>(keys.dim()));
      std::vector<int32_t> candidates;
      for (int32_t node = first + task * kTask; node < std::min(last, first + (task + 1) * kTask); node++) {
        candidates.clear();
        const size_t cell = static_cast<size_t>(home[static_cast<size_t>(node)]);
        const int32_t* members = homes.members.data();
        const int32_t* begin = members + homes.offsets[cell];
        const int32_t* end = std::lower_bound(begin, members + homes.offsets[cell + 1], node);
        candidates.assign(std::max(begin, end - kMostMates), end);
        keys.read(self.data(), node);
        next->entries->find(candidates, *isa.panels, self.data(), 2);
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
      for (int32_t i = 0; i < count; i++) wishes.push_back({list[i], node});
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
    grant_wishes(next->links, keys, wishes, run);
  }
  return next;
}

}  // namespace kvasir
