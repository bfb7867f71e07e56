// Keys of one KV head in lists: what types "ivf" and "lists" search. Immutable: growing makes another.
//
// Every key has one home: cells of a k-means on keys. Where queries are known, cells are compact in their metric, the mean of
// (q . x)^2 over training queries, because a cell must tell what its keys' scores are: mean q . centroid, deviation as stored.
// From a home the keys that no list returned are drawn. Type "lists" has routed lists beside, under centroids of queries: each
// holds the keys that its queries score best, so that a key stands in several lists or in none. Type "graph" has a graph over the
// same keys in place of lists.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "isa.h"
#include "kmeans.h"
#include "list_tables.h"
#include "rows.h"

namespace kvasir {

class FileReader;
class FileWriter;
struct Graph;
class GraphCodes;

struct Partition {
  ListTable homes;
  // Of a cell's keys: root mean square over keys and training queries of q . (key - mean), divided by that of |q|.
  std::vector<float> deviations;  // [homes.count()]
  Panels metric;                  // columns of the Cholesky factor of the queries' second moment; empty: identity
  GapLists routed;                // empty in "ivf"
  std::vector<float> thresholds;  // [routed.count()]: router . key from which a new key belongs to the list
  std::shared_ptr<const Graph> graph;  // null but in "graph" and where "planned" chose one
  // Null, or 4 bits a dimension of all keys, a row each: what the lists' keys are scored by first. In "planned" alone.
  std::shared_ptr<const GraphCodes> sketches;
  // With them: the ids of `routed` as they are, which gaps take several times as long to give.
  std::shared_ptr<const ListTable> plain;
  int32_t depth = 0;                   // keys of a routed list when it was made
  int32_t probes = 0;                  // lists a query; the width of a graph's queue; 0: as head_probes
  std::vector<int32_t> head_probes;    // lists of each query head of the group, or empty
  double recall = __builtin_nan("");    // on held-out queries
  double visited = __builtin_nan("");   // keys scored there, of all
  int32_t keys = 0;                     // ids [0, keys) have a home
  int32_t aim = 0, horizon = 0;         // routed lists serve queries at [aim, aim + horizon)
  bool serves_best = true, serves_samples = true;  // where not, a scan is cheaper

  // Lists that queries are sent to.
  int32_t lists() const { return routed.count() > 0 ? routed.count() : homes.count(); }
  // Sets sketches, of all keys or null, and what goes with them.
  void sketch(std::shared_ptr<const GraphCodes> of_keys);
  size_t bytes() const;
  void save(FileWriter& to, const std::string& prefix) const;
  // Throws Error{KVASIR_ARGUMENT} where contents make no partition of [0, keys).
  void restore(const FileReader& from, const std::string& prefix, int32_t dim, int32_t group);
};

// Of the variance of centroids' products with keys, what is computed: what is left out is .03 of a product's spread, as
// much as bytes round, and a third of the dimensions where contexts are long.
constexpr double kRouterShare = 0.999;

// What a builder of one KV head works on.
struct PartitionSource {
  const IndexIsa* isa;
  const Rows* rows;
  int32_t head, dim;
  int32_t begin;  // position of id 0
  int32_t keys;   // ids [0, keys)
};

// keys [count, dim] become what they are in a metric.
void move_to_metric(const Panels& metric, const PartitionSource& source, std::vector<float>& keys, int32_t count);

// Keys [first, first + count) as they are in a metric: out [count, dim].
void read_moved(float* out, const Panels& metric, const PartitionSource& source, int32_t first, int32_t count);

// Fills homes, deviations, metric and cells: `count` cells. queries [queries_count, dim] make the metric; none: the identity.
// Trains on at most 32 keys a cell, then every key goes to its nearest cell.
void build_homes(Partition& to, const PartitionSource& source, const RunTasks& run, int32_t count, const float* queries,
                 int32_t queries_count, int32_t iterations, uint32_t seed);

// The same partition with ids [from.keys, source.keys): each to its home and to the routed lists whose threshold it passes.
std::shared_ptr<Partition> extend(const Partition& from, const PartitionSource& source, const RunTasks& run);
// The homes alone, extended so; for lists that are made anew.
std::shared_ptr<Partition> extend_homes(const Partition& from, const PartitionSource& source, const RunTasks& run);

}  // namespace kvasir
