// Searches of methods: units are scored, then picked by goal. See method.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "draw.h"
#include "error.h"
#include "kvasir_index.h"
#include "method_found.h"
#include "select.h"

namespace kvasir {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

double log_add(double a, double b) {
  const double most = std::max(a, b);
  return std::isinf(most) ? most : most + std::log(std::exp(a - most) + std::exp(b - most));
}

// What overflows has an order, too; what is no number comes last.
void bound(float* scores, int32_t n) {
  constexpr float kMost = 1e30f;  // sums of those of all heads are finite
  for (int32_t i = 0; i < n; i++) scores[i] = scores[i] > -kMost ? std::min(scores[i], kMost) : -kMost;
}

void soften(float* scores, int32_t n, float cap) {
  bound(scores, n);
  if (cap <= 0) return;
  for (int32_t i = 0; i < n; i++) scores[i] = cap * std::tanh(scores[i] / cap);
}

}  // namespace

double log_sum_exp(const float* x, int32_t n) {
  const float most = n == 0 ? kNothing : *std::max_element(x, x + n);
  if (most == kNothing) return static_cast<double>(most);
  double sum = 0;
  for (int32_t i = 0; i < n; i++) sum += static_cast<double>(std::exp(x[i] - most));
  return static_cast<double>(most) + std::log(sum);
}

void share_scores(float* out, const float* scores, size_t stride, int32_t n, int32_t group, Sharing sharing) {
  std::fill(out, out + n, sharing == Sharing::kMax ? kNothing : 0.0f);
  for (int32_t g = 0; g < group; g++) {
    const float* s = scores + static_cast<size_t>(g) * stride;
    if (sharing == Sharing::kMean || sharing == Sharing::kLayer) {
      for (int32_t i = 0; i < n; i++) out[i] += s[i];
      continue;
    }
    // Softmax weights, as logarithms where their order suffices.
    const float total = static_cast<float>(log_sum_exp(s, n));
    if (sharing == Sharing::kMax) {
      for (int32_t i = 0; i < n; i++) out[i] = std::max(out[i], s[i] - total);
    } else {
      for (int32_t i = 0; i < n; i++) out[i] += std::exp(s[i] - total);
    }
  }
}

void MethodIndex::score(int32_t head, const float* q, Found& found) const {
  const HeadState& state = *heads_[static_cast<size_t>(head)];
  const int32_t group = shape_.group(), pending = committed_ - state.covered();
  found.units = state.units();
  found.entries = found.units + pending;
  found.stride = static_cast<size_t>(found.entries + 31) / 32 * 32;
  found.scores.resize(found.stride * static_cast<size_t>(group));
  const HeadKeys scope = keys(head, committed_);
  if (found.units > 0) state.score(found.scores.data(), found.stride, scope, q);
  scope.score(found.scores.data() + found.units, found.stride, q, group, state.covered(), committed_);
  for (int32_t g = 0; g < group; g++) {
    soften(found.scores.data() + static_cast<size_t>(g) * found.stride, found.entries, shape_.softcap);
  }
  found.work.keys_scored += state.keys_scored() + pending;
  found.work.bytes_read += state.score_bytes() + pending * static_cast<double>(rows_.segments().front()->row_bytes());
}

// Scores of all heads of the layer, summed: what each KV head shares.
void MethodIndex::share_layer() {
  for (Found& found : found_) {
    found.shared.resize(found.stride);
    share_scores(found.shared.data(), found.scores.data(), found.stride, found.entries, shape_.group(), Sharing::kLayer);
  }
  std::vector<float>& sum = found_.front().shared;
  for (size_t head = 1; head < found_.size(); head++) {
    for (int32_t i = 0; i < found_.front().entries; i++) sum[static_cast<size_t>(i)] += found_[head].shared[static_cast<size_t>(i)];
  }
  for (size_t head = 1; head < found_.size(); head++) std::copy(sum.begin(), sum.end(), found_[head].shared.begin());
}

void MethodIndex::pick_best(int32_t head, const PickQuery& query, Found& found) const {
  const MethodSettings& settings = method_.settings;
  const HeadState& state = *heads_[static_cast<size_t>(head)];
  const int32_t group = shape_.group(), dim = shape_.head_dim;
  const bool apart = settings.sharing == Sharing::kHead;
  const int32_t k = static_cast<int32_t>(query.goal.value);
  if (!apart && settings.sharing != Sharing::kLayer) {
    found.shared.resize(found.stride);
    share_scores(found.shared.data(), found.scores.data(), found.stride, found.entries, group, settings.sharing);
  }
  const auto scores_of = [&](int32_t g) { return found.scores.data() + static_cast<size_t>(g) * found.stride; };
  int64_t wanted = 0;
  for (int32_t g = 0; g < group; g++) wanted += state.wanted(scores_of(g), found.entries, k);
  const int32_t budget = std::min(k, static_cast<int32_t>((wanted + group / 2) / group));
  found.rows.resize(static_cast<size_t>(group));
  for (int32_t g = 0; g < (apart ? group : 1); g++) {
    const float* scores = apart ? scores_of(g) : found.shared.data();
    fill(found.rows[static_cast<size_t>(g)], head, query.q + static_cast<size_t>(g) * static_cast<size_t>(dim), apart ? 1 : group,
         scores, budget, found);
  }
  for (int32_t g = 1; !apart && g < group; g++) found.rows[static_cast<size_t>(g)] = found.rows[0];
  if (!query.goal.surrogate_tail) return;
  found.work.rest.assign(static_cast<size_t>(group * (dim + 1)), 0);
  for (int32_t g = 0; g < group; g++) {
    const size_t at = static_cast<size_t>(g) * static_cast<size_t>(dim);
    state.rest(found.work.rest.data() + at, &found.work.rest[static_cast<size_t>(group * dim + g)], keys(head, committed_),
               query.q + at, scores_of(g), apart ? scores_of(g) : found.shared.data(), found.rows[static_cast<size_t>(g)].ids);
  }
}

// At most k keys by scores of units; q [queries, dim] decide between keys of the unit that does not fit.
void MethodIndex::fill(Picked& picked, int32_t head, const float* q, int32_t queries, const float* scores, int32_t k,
                       Found& found) const {
  const SelectKernels& kernels = *environment_.isa->select;
  const HeadState& state = *heads_[static_cast<size_t>(head)];
  picked.bias.clear();
  picked.ids.clear();
  const int32_t n = found.entries;
  const size_t stride = static_cast<size_t>(n + 31) / 32 * 32;
  float* const copy = found.room(stride + SelectWork::floats(n));
  std::copy(scores, scores + n, copy);
  std::fill(copy + n, copy + stride, kNothing);
  const SelectWork work(copy + stride, n);
  if (state.keyed()) {
    const int32_t newest = std::min(n, static_cast<int32_t>(method_.settings.recent_share * k));
    std::fill(copy + n - newest, copy + n, std::numeric_limits<float>::max());
    const int32_t got = k == 0 ? 0 : select_best(kernels, copy, n, std::min(k, n), work);
    picked.ids.assign(work.ids, work.ids + got);
    return;
  }
  // A unit has at least one key, so that k units are enough.
  const int32_t some = select_best(kernels, copy, n, std::min(k, n), work);
  std::vector<int32_t> order(work.ids, work.ids + some), unit;
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  for (int32_t entry : order) {
    const int32_t room = k - static_cast<int32_t>(picked.ids.size());
    if (room == 0) break;
    unit.clear();
    if (entry < found.units) state.members(unit, entry);
    else unit.push_back(state.covered() + entry - found.units);
    if (static_cast<int32_t>(unit.size()) > room && state.whole()) break;
    if (static_cast<int32_t>(unit.size()) > room) {
      const int32_t size = static_cast<int32_t>(unit.size());
      const HeadKeys scope = keys(head, committed_);
      std::vector<float> own(static_cast<size_t>(queries * size)), shared(static_cast<size_t>(size));
      for (int32_t g = 0; g < queries; g++) {
        float* s = own.data() + static_cast<size_t>(g * size);
        scope.score_ids(s, q + static_cast<size_t>(g) * static_cast<size_t>(shape_.head_dim), unit.data(), size);
        soften(s, size, shape_.softcap);
      }
      const Sharing sharing = queries == 1 ? Sharing::kMean : method_.settings.sharing;
      share_scores(shared.data(), own.data(), static_cast<size_t>(size), size, queries, sharing);
      std::vector<int32_t> best(static_cast<size_t>(size));
      std::iota(best.begin(), best.end(), 0);
      std::stable_sort(best.begin(), best.end(),
                       [&](int32_t a, int32_t b) { return shared[static_cast<size_t>(a)] > shared[static_cast<size_t>(b)]; });
      for (int32_t i = 0; i < room; i++) picked.ids.push_back(unit[static_cast<size_t>(best[static_cast<size_t>(i)])]);
      found.work.keys_scored += size;
      found.work.bytes_read += size * static_cast<double>(rows_.segments().front()->row_bytes());
    } else {
      picked.ids.insert(picked.ids.end(), unit.begin(), unit.end());
    }
  }
  std::sort(picked.ids.begin(), picked.ids.end());
}

void MethodIndex::sample(int32_t head, const PickQuery& query, Found& found) const {
  const HeadState& state = *heads_[static_cast<size_t>(head)];
  const int32_t n = committed_, group = shape_.group();
  const size_t stride = static_cast<size_t>(n + 31) / 32 * 32;
  std::vector<float> expanded;
  const float* scores = found.scores.data();
  if (!state.keyed()) {  // a key's proposal is its unit's
    expanded.resize(stride * static_cast<size_t>(group));
    std::vector<int32_t> unit;
    for (int32_t entry = 0; entry < found.entries; entry++) {
      unit.clear();
      if (entry < found.units) state.members(unit, entry);
      else unit.push_back(state.covered() + entry - found.units);
      for (int32_t g = 0; g < group; g++) {
        for (int32_t i : unit) {
          expanded[static_cast<size_t>(g) * stride + static_cast<size_t>(i)] =
              scores[static_cast<size_t>(g) * found.stride + static_cast<size_t>(entry)];
        }
      }
    }
    scores = expanded.data();
  }
  const uint32_t key = draw_key(query.goal.draw, head);
  if (query.goal.kind == Goal::kError) {
    Picked& row = found.rows.front();
    row.ids.clear();
    row.bias.clear();
    std::vector<double> limit(static_cast<size_t>(group));  // ln(tau Z)
    for (int32_t g = 0; g < group; g++) {
      const double own = log_sum_exp(scores + static_cast<size_t>(g) * stride, n);
      limit[static_cast<size_t>(g)] = 2 * std::log(query.goal.value) + log_add(own, static_cast<double>(query.exact[g]));
    }
    for (int32_t i = 0; i < n; i++) {
      double log_p = -std::numeric_limits<double>::infinity();
      for (int32_t g = 0; g < group; g++) {
        log_p = std::max(log_p, scores[static_cast<size_t>(g) * stride + static_cast<size_t>(i)] - limit[static_cast<size_t>(g)]);
      }
      const double p = log_p >= 0 ? 1 : std::exp(log_p);
      if (p < 1 && draw_bits(key, begin_ + i) >= p * 4294967296.0) continue;
      row.ids.push_back(i);
      row.bias.push_back(static_cast<float>(-std::min(0.0, log_p)));
    }
    return;
  }
  const SelectKernels& kernels = *environment_.isa->select;
  const int32_t k = static_cast<int32_t>(query.goal.value);
  float* const noise = found.room(2 * stride + SelectWork::floats(n));
  float* const priorities = noise + stride;
  const SelectWork work(priorities + stride, n);
  kernels.draw_noise(noise, key, begin_, static_cast<int32_t>(stride));
  for (int32_t g = 0; g < group; g++) {
    const float* s = scores + static_cast<size_t>(g) * stride;
    for (int32_t i = 0; i < n; i++) priorities[i] = s[i] + noise[i];
    std::fill(priorities + n, priorities + stride, kNothing);
    const int32_t found_count = select_best(kernels, priorities, n, k + 1, work);
    int32_t next = 0;  // the k + 1st
    for (int32_t i = 1; i < found_count; i++) {
      if (priorities[work.ids[i]] <= priorities[work.ids[next]]) next = i;
    }
    Picked& row = found.rows[static_cast<size_t>(g)];
    row.ids.clear();
    row.bias.clear();
    for (int32_t i = 0; i < found_count; i++) {
      if (i == next) continue;
      row.ids.push_back(work.ids[i]);
      row.bias.push_back(std::max(0.0f, priorities[work.ids[next]] - s[work.ids[i]]));
    }
  }
}

void MethodIndex::search(const Query& query, const Hits& hits, Report& report) {
  const MethodSettings& settings = method_.settings;
  const int32_t group = shape_.group(), dim = shape_.head_dim, n = committed_;
  const Goal& goal = query.goal;
  const bool by_error = goal.kind == Goal::kError, sampled = by_error || goal.sample_tail;
  const bool selective = sampled ? settings.draws : settings.selective;
  const bool everything = n == 0 || (by_error ? goal.value == 0 : goal.value >= n && !selective);
  found_.resize(static_cast<size_t>(shape_.kv_heads));
  std::vector<char> done(found_.size());
  const auto query_of = [&](int32_t head) {
    const size_t first = static_cast<size_t>(head * group);
    return PickQuery{query.q + first * static_cast<size_t>(dim), query.exact + first, goal};
  };
  environment_.pool->run(shape_.kv_heads, [&](int32_t head, int) {
    Found& found = found_[static_cast<size_t>(head)];
    found.work = PickWork();
    found.rows.resize(static_cast<size_t>(by_error ? 1 : group));
    if (everything) {
      for (Picked& row : found.rows) {
        row.bias.clear();
        row.ids.resize(static_cast<size_t>(n));
        std::iota(row.ids.begin(), row.ids.end(), 0);
      }
      done[static_cast<size_t>(head)] = 1;
      return;
    }
    const PickQuery own = query_of(head);
    done[static_cast<size_t>(head)] = heads_[static_cast<size_t>(head)]->pick(keys(head, n), own, found.rows.data(), found.work);
    if (done[static_cast<size_t>(head)] == 0) score(head, own.q, found);
  });
  if (!everything && settings.sharing == Sharing::kLayer && done.front() == 0 && !sampled) share_layer();
  environment_.pool->run(shape_.kv_heads, [&](int32_t head, int) {
    if (done[static_cast<size_t>(head)] != 0) return;
    Found& found = found_[static_cast<size_t>(head)];
    if (sampled) sample(head, query_of(head), found);
    else pick_best(head, query_of(head), found);
  });
  for (int32_t head = 0; head < shape_.kv_heads; head++) {
    const Found& found = found_[static_cast<size_t>(head)];
    for (size_t g = 0; g < found.rows.size(); g++) {
      give(head * static_cast<int32_t>(found.rows.size()) + static_cast<int32_t>(g), found.rows[g], hits, report);
    }
    report.keys_scored += found.work.keys_scored;
    report.bytes_read += found.work.bytes_read;
    if (!goal.surrogate_tail) continue;
    const size_t width = static_cast<size_t>(group * dim);
    float* const lse = hits.rest_lse + head * group;
    if (found.work.rest.empty()) {
      std::fill(hits.rest + static_cast<size_t>(head) * width, hits.rest + static_cast<size_t>(head + 1) * width, 0.0f);
      std::fill(lse, lse + group, kNothing);
    } else {
      std::copy_n(found.work.rest.data(), width, hits.rest + static_cast<size_t>(head) * width);
      std::copy_n(found.work.rest.data() + width, group, lse);
    }
  }
  report.certificate = everything && n > 0          ? KVASIR_CERTIFICATE_EXACT
                       : sampled && settings.bounds ? KVASIR_CERTIFICATE_UNBIASED
                                                    : KVASIR_CERTIFICATE_NONE;
}

void MethodIndex::give(int32_t row, const Picked& picked, const Hits& hits, Report& report) const {
  const int32_t count = static_cast<int32_t>(picked.ids.size()), room = std::min(count, hits.capacity);
  const size_t at = static_cast<size_t>(row) * static_cast<size_t>(hits.capacity);
  for (int32_t i = 0; i < room; i++) {
    hits.tokens[at + static_cast<size_t>(i)] = begin_ + picked.ids[static_cast<size_t>(i)];
    hits.bias[at + static_cast<size_t>(i)] = picked.bias.empty() ? 0 : picked.bias[static_cast<size_t>(i)];
  }
  hits.counts[row] = count;
  hits.errors[row] = std::numeric_limits<float>::quiet_NaN();
  report.keys_kept += count;
}

}  // namespace kvasir
