// What PartitionSearch makes of its candidates: the best keys, or a sample.
#include <algorithm>
#include <cmath>
#include <limits>

#include "draw.h"
#include "kvasir_index.h"
#include "partition_search.h"
#include "select.h"

namespace kvasir {
namespace {

constexpr int32_t kBlock = 32;  // selection reads scores by so many
constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();

bool better(const std::pair<double, int32_t>& a, const std::pair<double, int32_t>& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

}  // namespace

void PartitionSearch::run(const SearchScope& scope, const Query& query, const Hits& hits, Report& report) {
  s_ = scope;
  query_ = &query;
  hits_ = &hits;
  group_ = scope.shape->group();
  const int32_t first = scope.head * group_;
  q_ = query.q + static_cast<size_t>(first) * static_cast<size_t>(scope.shape->head_dim);
  const Goal& goal = query.goal;
  const bool error = goal.kind == Goal::kError;
  if (error ? goal.value == 0 : goal.value >= scope.keys) {
    if (error) return everything(scope.head, report);
    for (int32_t g = 0; g < group_; g++) everything(first + g, report);
    return;
  }
  if (!error && !goal.sample_tail && scope.partition != nullptr) {
    if (scope.partition->graph != nullptr) return best_of_walks(report);
    return scope.partition->sketches != nullptr ? best_of_sketched(report) : best_of_lists(report);
  }
  visit(report);
  if (error) {
    score(Codes::kPlain, 1, report);
    propose(goal.value * goal.value, report);
    threshold();
    report.keys_kept += static_cast<double>(picked_.size());
  } else if (goal.sample_tail) {
    score(Codes::kPlain, 1, report);
    // Four times as many proposals as can be kept: what they add to the variance is small beside the choice among them.
    propose(1 / (4 * goal.value), report);
    for (int32_t g = 0; g < group_; g++) {
      priority(g);
      report.keys_kept += static_cast<double>(picked_.size());
    }
  } else {
    score(Codes::kUpper, 2, report);
    for (int32_t g = 0; g < group_; g++) {
      top(g, ids_.data(), static_cast<int32_t>(ids_.size()), scores_.data() + static_cast<size_t>(g) * stride_,
          s_.codes->kind() == Codes::kNone, report);
      report.keys_kept += static_cast<double>(picked_.size());
    }
  }
}

void PartitionSearch::everything(int32_t row, Report& report) {
  picked_.clear();
  for (int32_t id = 0; id < s_.keys; id++) picked_.push_back({id, 0});
  report.keys_kept += s_.keys;
  put(row, query_->goal.kind == Goal::kError ? 0 : kUnknown);
}

// Exact scores of candidates by place.
void PartitionSearch::rescore(float* out, int32_t g, const int32_t* from_ids, const int32_t* places, int32_t count) {
  const float* q = q_ + static_cast<size_t>(g) * static_cast<size_t>(s_.shape->head_dim);
  gathered_.resize(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; i++) gathered_[static_cast<size_t>(i)] = from_ids[places[i]];
  const int32_t begin = s_.codes->begin();
  for (int32_t i = 0; i < count;) {
    const Segment& segment = s_.rows->find(begin + gathered_[static_cast<size_t>(i)]);
    const int32_t from = segment.start() - begin, to = from + segment.capacity();
    int32_t n = 1;
    while (i + n < count && gathered_[static_cast<size_t>(i + n)] >= from && gathered_[static_cast<size_t>(i + n)] < to) n++;
    const int32_t* ids = gathered_.data() + i;
    s_.isa->select->rescore(out + i, q, segment.key(s_.head, 0), segment.dtype(), s_.shape->head_dim, -from, ids, n);
    for (int32_t j = 0; j < n; j++) out[i + j] *= s_.shape->scale * segment.key_scale(s_.head, ids[j] - from);
    softcap(out + i, static_cast<size_t>(n));
    i += n;
  }
}

// The best candidates by exact score. Upper bounds certify: once the k-th best of the exactly scored is above all other bounds,
// no other candidate can belong.
void PartitionSearch::top(int32_t g, const int32_t* ids, int32_t n, float* upper, bool sure, Report& report) {
  const int32_t wanted = static_cast<int32_t>(query_->goal.value);
  for (int32_t i = n; i % kBlock != 0; i++) upper[i] = -std::numeric_limits<float>::infinity();
  select_.resize(SelectWork::floats(n));
  const SelectWork work(select_.data(), n);
  int32_t k = 0, rescored = 0;
  if (n > 0 && sure) {
    k = select_best(*s_.isa->select, upper, n, wanted, work);
  } else if (n > 0) {
    k = select_certified(*s_.isa->select, upper, n, wanted, work,
                         [&](float* out, const int32_t* places, int32_t count) { rescore(out, g, ids, places, count); }, &rescored);
  }
  picked_.clear();
  for (int32_t i = 0; i < k; i++) picked_.push_back({ids[work.ids[i]], 0});
  report.bytes_read += rescored * static_cast<double>(s_.rows->segments().front()->row_bytes());
  put(s_.head * group_ + g, kUnknown);
}

// Threshold sampling shared by the group: a candidate is kept with p = min(1, max over its heads of exp(s) / (tau Z)), a proposed
// one with min(1, p / p1), so that it is there with min(p, p1).
void PartitionSearch::threshold() {
  const double log_tau = 2 * std::log(query_->goal.value);
  const uint32_t key = draw_key(query_->goal.draw, s_.head);
  std::vector<double> squares(static_cast<size_t>(group_));
  picked_.clear();
  for (size_t i = 0; i < ids_.size(); i++) {
    double log_p = -std::numeric_limits<double>::infinity();
    for (int32_t g = 0; g < group_; g++) {
      log_p = std::max(log_p, static_cast<double>(scores_of(g)[i]) - log_mass_[static_cast<size_t>(g)]);
    }
    const double p = log_p >= log_tau ? 1 : std::exp(log_p - log_tau);
    const double p1 = i < certain_ ? 1 : static_cast<double>(proposed_[i - certain_]);
    if (draw_bits(key, s_.codes->begin() + ids_[i]) * p1 >= p * 0x1p32) continue;
    const double inclusion = std::min(p, p1);
    for (int32_t g = 0; g < group_; g++) {
      const double weight = std::exp(static_cast<double>(scores_of(g)[i]) - log_mass_[static_cast<size_t>(g)]) / inclusion;
      squares[static_cast<size_t>(g)] += (1 - inclusion) * weight * weight;
    }
    picked_.push_back({ids_[i], inclusion == 1 ? 0.0f : static_cast<float>(-std::log(inclusion))});
  }
  put(s_.head, static_cast<float>(std::sqrt(*std::max_element(squares.begin(), squares.end()))));
}

// Priority sampling (Duffield, Lund, Thorup 2007) among the candidates, the proposed ones weighted by what they stand for.
void PartitionSearch::priority(int32_t g) {
  const size_t k = static_cast<size_t>(query_->goal.value);
  const uint32_t key = draw_key(query_->goal.draw, s_.head);
  order_.clear();
  const auto stands_for = [&](size_t i) { return i < certain_ ? 0.0 : -std::log(static_cast<double>(proposed_[i - certain_])); };
  for (size_t i = 0; i < ids_.size(); i++) {
    const double u = (draw_bits(key, s_.codes->begin() + ids_[i]) + 1.0) * 0x1p-32;
    order_.push_back({static_cast<double>(scores_of(g)[i]) + stands_for(i) - std::log(u), static_cast<int32_t>(i)});
  }
  double least = -std::numeric_limits<double>::infinity();
  if (k < order_.size()) {
    std::nth_element(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(k), order_.end(), better);
    least = order_[k].first;
  }
  picked_.clear();
  for (size_t i = 0; i < std::min(k, order_.size()); i++) {
    const size_t at = static_cast<size_t>(order_[i].second);
    const double bias = std::max(stands_for(at), least - static_cast<double>(scores_of(g)[at]));
    picked_.push_back({ids_[at], static_cast<float>(bias)});
  }
  put(s_.head * group_ + g, kUnknown);
}

// In order of position.
void PartitionSearch::put(int32_t row, float error) {
  std::sort(picked_.begin(), picked_.end(), [](const Picked& a, const Picked& b) { return a.id < b.id; });
  const size_t capacity = static_cast<size_t>(hits_->capacity), from = static_cast<size_t>(row) * capacity;
  for (size_t i = 0; i < std::min(picked_.size(), capacity); i++) {
    hits_->tokens[from + i] = s_.codes->begin() + picked_[i].id;
    hits_->bias[from + i] = picked_[i].bias;
  }
  hits_->counts[row] = static_cast<int32_t>(picked_.size());
  hits_->errors[row] = error;
}

}  // namespace kvasir
