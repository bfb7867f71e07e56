// Searches of lists whose keys have sketches: 4 bits a dimension, one cache line a key of 128 dimensions where its row has four.
// Sketches choose few, rows decide among them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "partition_search.h"
#include "select.h"

namespace kvasir {
namespace {

constexpr int32_t kPiece = 16, kAhead = 64;  // keys scored at once, and on their way meanwhile
constexpr size_t kRoom = 64;                 // selection reads scores by blocks
// Keys that are scored exactly, of as many wanted, and so many more: what a sketch errs by is less than what lies between their scores.
constexpr double kKept = 1.75, kMore = 25;

}  // namespace

// Every head looks at the keys of all heads' lists: a sketch is read and taken apart once for the group, and what one head's lists
// lack stands in another's.
void PartitionSearch::best_of_sketched(Report& report) {
  const Partition& p = *s_.partition;
  const int32_t homeless = s_.keys - p.keys;
  const size_t dim = static_cast<size_t>(s_.shape->head_dim);
  keys_ = std::make_unique<GraphKeys>(s_.isa->graph, *s_.rows, s_.head, s_.codes->begin(), p.keys);
  route(report);
  if (homeless > 0) {
    s_.codes->prepare(prepared_, s_.head, q_, group_, s_.shape->scale, 2, Codes::kUpper);
    scan_homeless(report);
  }
  p.sketches->prepare(sketched_, q_, group_);
  const int32_t all = gather_lists(report);
  stride_ = static_cast<size_t>(all) + kRoom;
  scores_.resize(std::max(scores_.size(), stride_ * static_cast<size_t>(group_)));
  score_sketches(all);
  const size_t room = static_cast<size_t>(kKept * query_->goal.value + kMore) + static_cast<size_t>(homeless) + kRoom;
  dots_.resize(std::max(dots_.size(), room));
  for (int32_t g = 0; g < group_; g++) {
    const int32_t kept = keep_sketched(g, all);
    score_rows(dots_.data(), q_ + static_cast<size_t>(g) * dim, 1, own_ids_.data(), kept);
    for (int32_t i = 0; i < homeless; i++) own_ids_.push_back(p.keys + i);
    if (homeless > 0) {
      std::copy_n(scan_.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(g) * scan_stride_ + scan_skip_), homeless,
                  dots_.begin() + kept);
    }
    softcap(dots_.data(), own_ids_.size());
    top(g, own_ids_.data(), static_cast<int32_t>(own_ids_.size()), dots_.data(), homeless == 0, report);
    report.keys_kept += static_cast<double>(picked_.size());
    report.bytes_read += static_cast<double>(kept) * static_cast<double>(keys_->row_bytes());
  }
  report.keys_scored += static_cast<double>(all);
  report.bytes_read += static_cast<double>(all) * static_cast<double>(p.sketches->row_bytes() + sizeof(float));
}

// The keys of the lists of all heads, each once, ascending: neighbours share pages. ids_; returns how many.
int32_t PartitionSearch::gather_lists(Report& report) {
  const ListTable& lists = *s_.partition->plain;
  const size_t words = (static_cast<size_t>(s_.partition->keys) + 63) / 64;
  marks_.assign(words, 0);
  uint64_t* marks = marks_.data();
  size_t most = kRoom;
  std::sort(lists_.begin(), lists_.end());
  lists_.erase(std::unique(lists_.begin(), lists_.end()), lists_.end());
  lists.each_of(lists_, [marks](int32_t id) { marks[static_cast<size_t>(id) >> 6] |= 1ull << (id & 63); });
  for (int32_t list : lists_) {
    most += static_cast<size_t>(lists.size(list));
    report.bytes_read += static_cast<double>(lists.bytes_of(list));
  }
  ids_.resize(std::max(ids_.size(), most));
  return s_.isa->graph->list_bits(ids_.data(), marks, static_cast<int32_t>(words));
}

// scores_[g * stride_ + i] ~ q[g] . key of ids_[i].
void PartitionSearch::score_sketches(int32_t count) {
  const GraphCodes& sketches = *s_.partition->sketches;
  const int32_t* ids = ids_.data();
  for (int32_t i = 0; i < std::min(count, kAhead); i++) sketches.prefetch(ids[i]);
  for (int32_t i = 0; i < count; i += kPiece) {
    for (int32_t j = i + kAhead; j < std::min(count, i + kAhead + kPiece); j++) sketches.prefetch(ids[j]);
    sketches.score_heads(scores_.data() + i, stride_, *s_.isa->graph, sketched_, ids + i, std::min(kPiece, count - i));
  }
}

// Of ids_ [count] those that the sketches find best for a head, ascending: own_ids_. Returns how many.
int32_t PartitionSearch::keep_sketched(int32_t g, int32_t count) {
  const int32_t most = static_cast<int32_t>(kKept * query_->goal.value + kMore);
  if (count <= most) {
    own_ids_.assign(ids_.begin(), ids_.begin() + count);
    return count;
  }
  float* scores = scores_.data() + static_cast<size_t>(g) * stride_;
  // What is not finite is out of what sketches hold: its row tells.
  constexpr float kLargest = std::numeric_limits<float>::max();
  for (int32_t i = 0; i < count; i++) scores[i] = scores[i] >= -kLargest && scores[i] <= kLargest ? scores[i] : kLargest;
  for (int32_t i = count; i % 32 != 0; i++) scores[i] = -std::numeric_limits<float>::infinity();
  select_.resize(SelectWork::floats(count));
  const SelectWork work(select_.data(), count);
  const int32_t kept = select_best(*s_.isa->select, scores, count, most, work);
  own_ids_.resize(static_cast<size_t>(kept));
  for (int32_t i = 0; i < kept; i++) own_ids_[static_cast<size_t>(i)] = ids_[static_cast<size_t>(work.ids[i])];  // ascending places
  return kept;
}

}  // namespace kvasir
