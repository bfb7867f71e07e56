// What the types of published methods share. A method keeps a small structure per KV head that gives units of keys (a key, a page,
// a cluster) a cheap score for each head of the group; what is picked by those scores follows from the goal, the same for all:
//   best keys    the best units until the budget is full; what does not fill a unit goes to its best keys by their own scores.
//   samples      threshold or priority sampling with the cheap scores as proposals (design of type "flat"; Duffield, Lund, Thorup
//                2007). Unbiased whatever they are, but only upper bounds keep heavy keys from tiny probabilities: other
//                methods vouch for nothing.
// Keys that the structure does not cover yet are units of their own, scored by their rows. Structures grow in commit(), on the
// searching threads; forks share them until one of them grows.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "index.h"
#include "query_samples.h"
#include "recent_queries.h"

namespace kvasir {

// Keys [0, count) of one KV head: rows of the cache from position `begin` on.
struct HeadKeys {
  const Environment* environment;
  const LayerShape* shape;
  const Rows* rows;
  int32_t head, begin, count;

  int32_t dim() const { return shape->head_dim; }
  int32_t group() const { return shape->group(); }
  void read(float* out, int32_t from, int32_t n) const { rows->read_keys(out, head, begin + from, n); }
  void read_values(float* out, int32_t from, int32_t n) const { rows->read_values(out, head, begin + from, n); }
  // Logits before softcap by the rows themselves: out[g * stride + i - from], i in [from, to), for `queries` rows q
  // [queries, dim].
  void score(float* out, size_t stride, const float* q, int32_t queries, int32_t from, int32_t to) const;
  // The same of keys ids [n], ascending, for one query.
  void score_ids(float* out, const float* q, const int32_t* ids, int32_t n) const;
};

// What was asked, for methods that learn from it.
struct Asked {
  const QuerySamples* samples;
  const RecentQueries* recent;
};

// Visits the arrays that a structure consists of: what is counted, saved and restored.
class Arrays {
 public:
  virtual ~Arrays() = default;
  virtual void operator()(const char* name, std::vector<float>& array) = 0;
  virtual void operator()(const char* name, std::vector<int32_t>& array) = 0;
  virtual void operator()(const char* name, std::vector<uint16_t>& array) = 0;
  virtual void operator()(const char* name, std::vector<uint8_t>& array) = 0;
};

// How heads of a group come to what they share; kHead: each for itself.
enum class Sharing { kHead, kSum, kMax, kMean, kLayer };
// Reads the parameter `group`: head, sum (of softmax weights), max (of them), mean (of logits), layer (mean over all
// its heads).
Sharing parse_sharing(const Params& params);

// One row of picks.
struct Picked {
  std::vector<int32_t> ids;  // ascending keys
  std::vector<float> bias;   // empty: 0
};

// What a pick is made for and with.
struct PickQuery {
  const float* q;      // [group, dim]
  const float* exact;  // [group]
  Goal goal;
};

struct PickWork {
  double keys_scored = 0, bytes_read = 0;
  std::vector<float> rest;      // with Goal::surrogate_tail: [group, dim] and [group], see index.h
};

// A method's structure over the keys of one KV head.
class HeadState {
 public:
  virtual ~HeadState() = default;
  virtual std::shared_ptr<HeadState> copy() const = 0;
  // Keys [from, keys.count) join those before them.
  virtual void grow(const HeadKeys& keys, const Asked& asked, int32_t from) = 0;
  virtual int32_t covered() const = 0;  // keys [0, covered) are in units
  virtual int32_t units() const { return covered(); }
  virtual bool keyed() const { return true; }  // unit i is key i
  virtual bool whole() const { return false; }  // a unit that does not fit is left out whole
  // Appends a unit's keys, ascending.
  virtual void members(std::vector<int32_t>& out, int32_t unit) const { out.push_back(unit); }
  // Cheap logits of all units: out[g * stride + unit] for q [group, dim].
  virtual void score(float* out, size_t stride, const HeadKeys& keys, const float* q) const = 0;
  virtual double score_bytes() const = 0;                     // that reads
  virtual int32_t keys_scored() const { return covered(); }   // keys, or bounds and centroids, that it scores
  // How many of at most k keys the method wants by one head's scores of n entries; heads of a group take the mean.
  virtual int32_t wanted(const float* /*scores*/, int32_t /*n*/, int32_t k) const { return k; }
  // A pick of the method's own in place of the common one: a row for each head, and the work. False: it has none for
  // this goal.
  virtual bool pick(const HeadKeys&, const PickQuery&, Picked*, PickWork&) const { return false; }
  // What stands for keys that are not among `ids`, for one head: see index.h, Hits::rest. scores: this head's, ranking:
  // those that picked, of all units and then of keys that no unit covers.
  virtual void rest(float* /*o*/, float* lse, const HeadKeys&, const float* /*q*/, const float* /*scores*/,
                    const float* /*ranking*/, const std::vector<int32_t>& /*ids*/) const {
    *lse = -__builtin_inff();
  }
  virtual void visit(Arrays& arrays) = 0;
  // After restoring: throws Error{KVASIR_ARGUMENT} unless the arrays fit `keys` committed keys.
  virtual void check(const HeadKeys& keys) const = 0;
  virtual std::string decision() const { return ""; }

  size_t bytes() const;
};

// Settings that the common part goes by.
struct MethodSettings {
  Sharing sharing = Sharing::kHead;
  double recent_share = 0;     // of a budget, for the newest keys (of keyed methods)
  int32_t recent_queries = 0;  // positions whose queries are kept as they are
  int32_t recent_every = 1;    // of those, positions divisible by this
  bool consumes = false;       // a commit uses them up
  bool sampled_queries = false;
  bool selective = false;      // it may want fewer keys than there is room for,
  bool draws = false;          // and its own samples may
  bool bounds = false;         // cheap scores are nowhere below the exact ones: samples vouch for their mean
  bool surrogates = false;     // it has something for Goal::surrogate_tail
};

struct Method {
  MethodSettings settings;
  std::shared_ptr<const HeadState> empty;  // what each KV head begins as a copy of
};

class MethodIndex final : public Index {
 public:
  MethodIndex(const Environment& environment, const LayerShape& shape, Rows rows, Method method);
  ~MethodIndex() override;

  void add(int32_t, int32_t) override {}
  bool observes() const override { return method_.settings.recent_queries > 0 || method_.settings.sampled_queries; }
  void observe(int32_t start, int32_t count, const float* queries) override;
  bool has_surrogates() const override { return method_.settings.surrogates; }
  void commit() override;
  void search(const Query& query, const Hits& hits, Report& report) override;
  std::unique_ptr<Index> fork(const Rows& rows) const override;
  void save(FileWriter& to) const override;
  void restore(const FileReader& from);
  IndexStats stats() const override;

 private:
  struct Found;
  HeadKeys keys(int32_t head, int32_t count) const { return {&environment_, &shape_, &rows_, head, begin_, count}; }
  void score(int32_t head, const float* q, Found& found) const;
  void share_layer();
  void pick_best(int32_t head, const PickQuery& query, Found& found) const;
  void fill(Picked& picked, int32_t head, const float* q, int32_t queries, const float* scores, int32_t k, Found& found) const;
  void sample(int32_t head, const PickQuery& query, Found& found) const;
  void give(int32_t row, const Picked& picked, const Hits& hits, Report& report) const;

  Method method_;
  std::vector<std::shared_ptr<HeadState>> heads_;
  std::shared_ptr<QuerySamples> samples_;
  std::shared_ptr<RecentQueries> recent_;
  int32_t committed_ = 0;  // keys
  double build_seconds_ = 0;
  std::vector<Found> found_;  // by KV head, of the running search
};

// The entry of a type: make(shape, params) returns its Method.
template <Method (*make)(const LayerShape&, const Params&)>
constexpr IndexType method_type(const char* name, const char* defaults, const char* summary) {
  return {
      name, defaults, summary,
      [](const Environment& environment, const LayerShape& shape, const Params& params, Rows rows) -> std::unique_ptr<Index> {
        return std::make_unique<MethodIndex>(environment, shape, std::move(rows), make(shape, params));
      },
      [](const Environment& environment, const LayerShape& shape, const Params& params, Rows rows,
         FileReader& from) -> std::unique_ptr<Index> {
        auto index = std::make_unique<MethodIndex>(environment, shape, std::move(rows), make(shape, params));
        index->restore(from);
        return index;
      },
  };
}

// out[g * stride + i] = scale * q[g] . row i of rows [.., dim], for q [group, dim].
void score_rows(float* out, size_t stride, const HeadKeys& keys, const float* q, const std::vector<float>& rows);
// ln of the sum of exp(x[i]); -INFINITY of nothing.
double log_sum_exp(const float* x, int32_t n);
// For checks of restored arrays.
void expect_size(const char* what, size_t size, size_t expected);

}  // namespace kvasir
