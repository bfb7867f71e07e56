// What types "ivf" and "lists" share: one partition a KV head over codes, built and extended behind the caller.
#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "builders.h"
#include "codes.h"
#include "flat_search.h"
#include "index.h"
#include "partition.h"
#include "partition_search.h"
#include "query_samples.h"

namespace kvasir {

// What a recipe builds one KV head's partition from. All of it outlives the build.
struct PartitionInput {
  PartitionSource source;
  const LayerShape* shape;
  const QuerySamples* samples;
  const Codes* codes;   // of the same keys
  const Partition* old;  // null, or the partition whose clusters are kept and whose lists are aimed anew
  const RunTasks* run;  // leaves tasks out once the build was cancelled: what is made then is dropped
};

// How a type builds, and its settings. Immutable: builders hold it.
class PartitionRecipe {
 public:
  virtual ~PartitionRecipe() = default;
  // One line for stats goes behind `decisions`. Null: the head is scanned.
  virtual std::shared_ptr<const Partition> build(const PartitionInput& input, std::string& decision) const = 0;
  // What, beside its parameters, it decides by.
  virtual void save(FileWriter&) const {}
  // First position of queries for which lists over tokens that end at `end` are made.
  int32_t aim(int32_t end) const { return end + ahead; }
  // Keys without a home that start an extension of a structure over `keys`.
  virtual int32_t step(int32_t keys) const { return std::max(extend, keys / 32); }
  // Why nothing is built over these tokens; empty: something is.
  virtual std::string refuses(const QuerySamples& samples, int32_t keys) const = 0;

  int32_t min_keys = 1024;  // fewer are scanned
  int32_t extend = 1024;    // see step
  double growth = 0.5;      // share of new keys that starts a rebuild
  int32_t ahead = 0;        // tokens between the last key and the query: the window
  double lift = 2;
  int32_t probes = 0;       // lists a query; 0: as calibrated
  int32_t calibrated = 0;   // most keys a query that the calibration speaks for
};

// The partitions of all KV heads, as one structure that takes over at once.
struct PartitionSet {
  std::vector<std::shared_ptr<const Partition>> heads;  // null: scanned
  int32_t built = 0;  // keys at the last build
  int32_t known = 0;  // keys of every partition in `heads`: more than built, by extensions
  double seconds = 0;
  std::vector<std::string> decisions;

  int32_t keys() const { return known; }
  // Where lists are aimed, and for how many positions; 0: nowhere.
  int32_t aim() const { return aimed() == nullptr ? 0 : aimed()->aim; }
  int32_t horizon() const { return aimed() == nullptr ? 0 : aimed()->horizon; }

 private:
  const Partition* aimed() const {
    for (const auto& head : heads) {
      if (head != nullptr && head->horizon > 0) return head.get();
    }
    return nullptr;
  }
};

class PartitionIndex final : public Index {
 public:
  PartitionIndex(const Environment& environment, const LayerShape& shape, Rows rows,
                 std::shared_ptr<const PartitionRecipe> recipe, Codes::Kind codes);

  void add(int32_t start, int32_t count) override;
  bool observes() const override { return true; }
  void observe(int32_t start, int32_t count, const float* queries) override;
  void commit() override;
  void settle() override;
  void search(const Query& query, const Hits& hits, Report& report) override;
  std::unique_ptr<Index> fork(const Rows& rows) const override;
  void save(FileWriter& to) const override;
  void restore(const FileReader& from);
  IndexStats stats() const override;

 private:
  using SetPtr = std::shared_ptr<const PartitionSet>;
  void take_over(SetPtr set);
  void start_if_due();

  std::shared_ptr<const PartitionRecipe> recipe_;
  Codes codes_;
  std::shared_ptr<QuerySamples> samples_;  // shared by forks and builders: copied before it changes
  SetPtr set_;                             // null: every key is scanned
  Pending<PartitionSet> pending_;
  int32_t committed_ = 0;  // keys
  double build_seconds_ = 0, waited_seconds_ = 0;
  std::vector<std::string> takeovers_;
  std::vector<PartitionSearch> searches_;  // by worker
  FlatSearch scan_;
  std::vector<int32_t> scanned_, listed_;  // KV heads of the running search
};

}  // namespace kvasir
