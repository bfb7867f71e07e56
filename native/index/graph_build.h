// A graph over the keys of one KV head for the queries that will be asked of it (RetrievalAttention, Liu et al. 2024; RoarGraph,
// Chen et al. 2024: the projected bipartite graph), and its growth. Who becomes whose neighbour is a GraphWiring, one body so far
// (graph_wire.cc); codes, entries, connection, calibration, walks and growth are any graph's.
#pragma once
#include <memory>
#include <string>

#include "graph_codes.h"
#include "graph_keys.h"
#include "graph_links.h"
#include "graph_search.h"
#include "isa.h"
#include "kmeans.h"

namespace kvasir {

class FileReader;
class FileWriter;
struct ListTable;   // partition.h: every key's home cell
struct Neighbours;  // knn.h

struct GraphOptions {
  int32_t m = 32;            // a key takes 8 m bytes at most, its list up to m slots: see slots_for
  int32_t nq = 64;           // exact nearest keys of a training query
  int32_t pivots = 12;       // of the nearest keys, those that lead to the others
  int32_t l = 100;           // width of the searches that types "vamana" and "roar" build with
  double alpha = 1.2;        // of "vamana": how much longer than an edge a detour may be
  double sample = 0.01;      // of "vamana": training queries that are stitched in, as a share of the keys
  int32_t entries = 4;       // centroids of training queries whose best keys a search starts from
  int32_t ef = 0;            // queue width; 0: the least that reaches `recall` on held-out queries
  double recall = 0.95;
  int32_t k = 100;           // keys that recall is about
  uint32_t seed = 0;
};

// Where searches start: centroids of the training queries, each with the keys that most of its queries had among their best.
struct GraphEntries {
  static constexpr int32_t kKeys = 16;
  Panels centroids;             // of length 1
  std::vector<int32_t> nodes;   // [centroids, kKeys], kNone where there are fewer
  std::vector<float> least;     // [centroids]: centroid . key from which a new key is one that searches start from, too

  size_t bytes() const;
  // The nodes of the `count` centroids nearest to q [dim], and what `newcomers` [centroids] (may be empty) has there, appended.
  void find(std::vector<int32_t>& out, const PanelKernels& kernels, const float* q, int32_t count,
            const std::vector<std::vector<int32_t>>& newcomers) const;
};

// One version; never changes once others see it.
struct Graph {
  explicit Graph(int32_t slots, const std::shared_ptr<ChunkMemory>& memory = std::make_shared<ChunkMemory>())
      : links(slots, memory), codes(memory) {}
  GraphLinks links;
  GraphCodes codes;
  std::shared_ptr<const GraphEntries> entries;
  std::vector<std::vector<int32_t>> newcomers;  // [centroids], or none: nodes inserted since, ascending
  // [built]: a node in whose list each is, for as long as the graph grows: with threads they reach every node. kNone: by a thread.
  std::shared_ptr<const std::vector<int32_t>> parents;
  int32_t built = 0;               // nodes when it was built; the rest was inserted
  int32_t ef = 0;
  double expected_recall = 0;      // at ef, on held-out queries
  double expected_scored = 0;      // keys scored a held-out query

  int32_t starts = 4;              // centroids of entries a query starts from

  int32_t nodes() const { return links.nodes(); }
  size_t bytes() const;
};

// Slots of a list: m rounded up to whole cache lines, or what links, codes and entries of dim dimensions leave each other of 8 m bytes.
int32_t slots_for(int32_t m, int32_t dim);

// What a wiring may use: all keys, queries as they will be asked [.., dim] and their nearest keys, cells of keys.
struct GraphMaterial {
  const IndexIsa& isa;
  const GraphKeys& keys;
  const GraphOptions& options;
  const ListTable& homes;
  const std::vector<float>& training;
  const Neighbours& nearest;  // the best options.nq of each training query
  const RunTasks& run;
};
// Fills lists (not threads) of empty links: the seam for graphs of another kind, such as RobustVamana's. May leave nodes unreachable;
// must not depend on threads.
using GraphWiring = void (*)(GraphLinks& links, const GraphMaterial& material);
// Each query's best keys lead to the others, and to mates within the home cell.
void wire_from_queries(GraphLinks& links, const GraphMaterial& material);

// training, held_out [.., dim]: queries as they will be asked; homes: cells of all keys, whose mates are a key's first neighbours,
// whether any query voted for it or not.
std::shared_ptr<Graph> build_graph(const IndexIsa& isa, const GraphKeys& keys, const GraphOptions& options,
                                   const ListTable& homes, const std::vector<float>& training, const std::vector<float>& held_out,
                                   const RunTasks& run, GraphWiring wire = wire_from_queries);
// Occluded neighbours within the home cell for every node, at most `limit`, where its list has room.
void link_mates(GraphLinks& links, const GraphKeys& keys, const PanelKernels& kernels, const ListTable& homes, int32_t limit,
                const RunTasks& run);
// The next version of `graph`, with nodes [graph.nodes(), keys.nodes()) inserted; homes: of all of them.
std::shared_ptr<Graph> insert_nodes(const IndexIsa& isa, const Graph& graph, const GraphKeys& keys, const ListTable& homes,
                                    const RunTasks& run);
// Starts and runs a search, and finishes it where `exact`: q [group, dim].
void search_graph(GraphSearch& search, const IndexIsa& isa, const Graph& graph, const GraphKeys& keys, const float* q, int32_t group,
                  int32_t width, bool exact = true);
// Nodes that no search can reach from its entries.
std::vector<int32_t> unreachable_nodes(const Graph& graph);

// Codes, and a graph, in a saved index; restoring throws Error{KVASIR_ARGUMENT} where contents make no graph of `nodes` keys.
void save_codes(FileWriter& to, const std::string& prefix, const GraphCodes& codes);
void restore_codes(GraphCodes& to, const FileReader& from, const std::string& prefix, int32_t nodes, int32_t dim);
void save_graph(FileWriter& to, const std::string& prefix, const Graph& graph);
std::shared_ptr<const Graph> restore_graph(const FileReader& from, const std::string& prefix, int32_t nodes, int32_t dim);

}  // namespace kvasir
