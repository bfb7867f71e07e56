#include "partition_search.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "draw.h"
#include "select.h"

namespace kvasir {
namespace {

constexpr int32_t kBlock = 32;      // scans start at multiples of this
constexpr size_t kStretchBytes = size_t{2} << 20;  // of rows that heads score, before the next head has its turn
// What lists return is sampled by its scores, what they do not by what its cells expect: more lists for a sample.
constexpr int32_t kSampledProbes = 3;
constexpr int32_t kFewProbes = 4;   // found one after the other
constexpr float kCertain = 16;      // a rate from which a key is proposed with probability 1

// 2^x within 6 %, never 0 or infinite: rates may be anything positive, as long as the same one is used throughout.
inline float rough_exp2(float x) {
  const float y = std::min(std::max(x, -120.0f), 60.0f);
  const int32_t bits = static_cast<int32_t>((y + 126.94269504f) * 8388608.0f);
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

}  // namespace

void PartitionSearch::mark(int32_t id) {
  uint64_t& word = marks_[static_cast<size_t>(id) >> 6];
  const uint64_t bit = 1ull << (id & 63);
  if ((word & bit) != 0) return;
  word |= bit;
  ids_.push_back(id);
}

int32_t PartitionSearch::probes_of(int32_t g) const {
  const Partition& p = *s_.partition;
  const int32_t wanted = s_.probes > 0 ? s_.probes : p.head_probes.empty() ? p.probes : p.head_probes[static_cast<size_t>(g)];
  const bool samples = query_->goal.kind == Goal::kError || query_->goal.sample_tail;
  return std::min(samples ? wanted * kSampledProbes : wanted, p.lists());
}

// The lists nearest to each query, by inner product: lists_ and ends_.
void PartitionSearch::route(Report& report) {
  const int32_t lists = s_.partition->lists();
  const size_t width = (static_cast<size_t>(lists) + kBlock - 1) / kBlock * kBlock;
  route_.resize(width * static_cast<size_t>(group_));
  if (s_.partition->routed.count() > 0) {
    score_routers(width, report);
  } else {
    s_.partition->homes.centroids.dot(*s_.isa->panels, route_.data(), q_, group_);
    report.bytes_read += static_cast<double>(s_.partition->homes.centroids.bytes());
  }
  lists_.clear();
  ends_.clear();
  for (int32_t g = 0; g < group_; g++) {
    float* row = route_.data() + static_cast<size_t>(g) * width;
    for (int32_t i = lists; i < static_cast<int32_t>(width); i++) row[i] = -std::numeric_limits<float>::infinity();
    const int32_t wanted = probes_of(g);
    if (wanted < kFewProbes) {
      for (int32_t i = 0; i < wanted; i++) {
        float best;
        lists_.push_back(s_.isa->panels->argmax(&best, row, lists));
        row[lists_.back()] = -std::numeric_limits<float>::infinity();
      }
    } else {
      select_.resize(SelectWork::floats(lists));
      const SelectWork work(select_.data(), lists);
      const int32_t found = select_best(*s_.isa->select, row, lists, wanted, work);
      lists_.insert(lists_.end(), work.ids, work.ids + found);
    }
    ends_.push_back(static_cast<int32_t>(lists_.size()));
  }
}

// What routed lists promise, for all heads: route_ [group, width].
void PartitionSearch::score_routers(size_t width, Report& report) {
  const GraphCodes& routers = *s_.partition->routed.routers;
  while (static_cast<int32_t>(router_ids_.size()) < routers.nodes()) router_ids_.push_back(static_cast<int32_t>(router_ids_.size()));
  routers.prepare(sketched_, q_, group_);
  routers.score_heads(route_.data(), width, *s_.isa->graph, sketched_, router_ids_.data(), routers.nodes());
  report.bytes_read += static_cast<double>(routers.bytes());
}

// Keys of the lists of all heads.
void PartitionSearch::visit_lists(Report& report) {
  route(report);
  const Partition& p = *s_.partition;
  std::sort(lists_.begin(), lists_.end());
  lists_.erase(std::unique(lists_.begin(), lists_.end()), lists_.end());
  const auto read_from = [&](const auto& table) {
    for (int32_t list : lists_) {
      table.each(list, [this](int32_t id) { mark(id); });
      report.bytes_read += static_cast<double>(table.bytes_of(list));
    }
  };
  if (p.routed.count() > 0) read_from(p.routed);
  else read_from(p.homes);
}

// Marks the keys of the lists of one head: marks_ [group, words].
void PartitionSearch::mark_head(int32_t g, size_t words, Report& report) {
  const Partition& p = *s_.partition;
  uint64_t* marks = marks_.data() + static_cast<size_t>(g) * words;
  const auto read_from = [&](const auto& table) {
    for (int32_t i = g == 0 ? 0 : ends_[static_cast<size_t>(g - 1)]; i < ends_[static_cast<size_t>(g)]; i++) {
      const int32_t list = lists_[static_cast<size_t>(i)];
      table.each(list, [marks](int32_t id) { marks[static_cast<size_t>(id) >> 6] |= 1ull << (id & 63); });
      report.bytes_read += static_cast<double>(table.bytes_of(list));
    }
  };
  if (p.routed.count() > 0) read_from(p.routed);
  else read_from(p.homes);
}

// The best keys of each head's own lists and of those without a home. Heads take turns over stretches of positions that fit in the
// cache nearest to the core, since their lists have many keys in common.
void PartitionSearch::best_of_lists(Report& report) {
  const int32_t homeless = s_.keys - s_.partition->keys;
  const size_t group = static_cast<size_t>(group_), dim = static_cast<size_t>(s_.shape->head_dim);
  keys_ = std::make_unique<GraphKeys>(s_.isa->graph, *s_.rows, s_.head, s_.codes->begin(), s_.partition->keys);
  route(report);
  const size_t words = (static_cast<size_t>(s_.partition->keys) + 63) / 64;
  marks_.assign(group * words, 0);
  for (int32_t g = 0; g < group_; g++) mark_head(g, words, report);
  if (homeless > 0) {
    s_.codes->prepare(prepared_, s_.head, q_, group_, s_.shape->scale, 2, Codes::kUpper);
    scan_homeless(report);
  }
  size_t all = 0, most = 0;
  for (size_t g = 0; g < group; g++) {
    size_t own = 0;
    for (size_t w = g * words; w < (g + 1) * words; w++) own += static_cast<size_t>(__builtin_popcountll(marks_[w]));
    all += own, most = std::max(most, own);
  }
  const size_t stride = most + static_cast<size_t>(homeless) + 2 * kBlock;
  own_ids_.resize(std::max(own_ids_.size(), group * stride));
  scores_.resize(std::max(scores_.size(), group * stride));
  counts_.assign(group, 0);
  const size_t pieces = std::max<size_t>(1, all * keys_->row_bytes() / kStretchBytes);
  for (size_t piece = 0; piece < pieces; piece++) {
    for (size_t g = 0; g < group; g++) {
      int32_t* ids = own_ids_.data() + g * stride;
      const size_t from = counts_[g];
      size_t n = from;
      for (size_t w = words * piece / pieces; w < words * (piece + 1) / pieces; w++) {
        for (uint64_t word = marks_[g * words + w]; word != 0; word &= word - 1) {
          ids[n++] = static_cast<int32_t>(w * 64) + __builtin_ctzll(word);
        }
      }
      score_rows(scores_.data() + g * stride + from, q_ + g * dim, 1, ids + from, static_cast<int32_t>(n - from));
      counts_[g] = n;
    }
  }
  for (size_t g = 0; g < group; g++) {
    int32_t* ids = own_ids_.data() + g * stride;
    float* scores = scores_.data() + g * stride;
    for (int32_t i = 0; i < homeless; i++) ids[counts_[g] + static_cast<size_t>(i)] = s_.partition->keys + i;
    if (homeless > 0) {
      std::copy_n(scan_.begin() + static_cast<std::ptrdiff_t>(g * scan_stride_ + scan_skip_), homeless, scores + counts_[g]);
    }
    const size_t count = counts_[g] + static_cast<size_t>(homeless);
    softcap(scores, count);
    top(static_cast<int32_t>(g), ids, static_cast<int32_t>(count), scores, homeless == 0, report);
    report.keys_kept += static_cast<double>(picked_.size());
  }
  report.keys_scored += static_cast<double>(all) / group_;
  report.bytes_read += static_cast<double>(all) * static_cast<double>(keys_->row_bytes());
}

// out[i * group + g]: exact logits of ids by the rows of keys_, before softcap.
void PartitionSearch::score_rows(float* out, const float* q, int32_t group, const int32_t* ids, int32_t count) {
  constexpr int32_t kPiece = 16;  // rows on their way while as many are scored
  const size_t dim = static_cast<size_t>(s_.shape->head_dim);
  for (int32_t i = 0; i < std::min(count, kPiece); i++) keys_->prefetch(ids[i]);
  for (int32_t i = 0; i < count; i += kPiece) {
    const int32_t some = std::min(kPiece, count - i);
    for (int32_t j = i + kPiece; j < std::min(count, i + 2 * kPiece); j++) keys_->prefetch(ids[j]);
    float* scores = out + static_cast<size_t>(i) * static_cast<size_t>(group);
    keys_->score(scores, q, group, ids + i, some);
    float sum = 0;
    for (int32_t j = 0; j < some * group; j++) {
      scores[j] *= s_.shape->scale;
      sum += scores[j] * 0;  // NaN where one is not finite
    }
    for (int32_t j = 0; sum != 0 && j < some * group; j++) {
      if (std::isfinite(scores[j])) continue;
      scores[j] = s_.rows->logit(s_.head, s_.codes->begin() + ids[i + j / group], q + static_cast<size_t>(j % group) * dim, s_.shape->scale);
    }
  }
}

// Candidates for certain: what lists or graph lead to, then keys without a home.
void PartitionSearch::visit(Report& report) {
  ids_.clear();
  if (s_.partition != nullptr) {
    const Partition& p = *s_.partition;
    marks_.assign((static_cast<size_t>(p.keys) + 63) / 64, 0);
    if (p.graph != nullptr) visit_walked(report);
    else visit_lists(report);
  }
  const int32_t from = s_.partition == nullptr ? 0 : s_.partition->keys;
  certain_ = ids_.size();
  for (int32_t id = from; id < s_.keys; id++) ids_.push_back(id);
}

void PartitionSearch::softcap(float* scores, size_t count) const {
  const float cap = s_.shape->softcap;
  if (cap <= 0) return;
  for (size_t i = 0; i < count; i++) scores[i] = cap * std::tanh(scores[i] / cap);
}

void PartitionSearch::widen(size_t extra) {
  const size_t stride = ids_.size() + extra + 2 * kBlock;
  if (stride <= stride_) return;
  std::vector<float> wider(stride * static_cast<size_t>(group_));
  for (size_t g = 0; g < static_cast<size_t>(group_) && stride_ > 0; g++) {
    std::copy_n(scores_.begin() + static_cast<std::ptrdiff_t>(g * stride_), std::min(stride_, stride),
                wider.begin() + static_cast<std::ptrdiff_t>(g * stride));
  }
  scores_ = std::move(wider);
  stride_ = stride;
}

// Keys without a home by a scan, which starts at a block: scan_.
void PartitionSearch::scan_homeless(Report& report) {
  const int32_t from = s_.partition == nullptr ? 0 : s_.partition->keys, start = from / kBlock * kBlock;
  scan_stride_ = static_cast<size_t>(s_.keys - start + kBlock);
  scan_skip_ = static_cast<size_t>(from - start);
  scan_.resize(std::max(scan_.size(), static_cast<size_t>(group_) * scan_stride_));
  s_.codes->score_all(prepared_, *s_.rows, start, s_.keys, scan_.data(), scan_stride_);
  report.keys_scored += s_.keys - from;
  report.bytes_read += (s_.keys - from) * s_.codes->key_bytes();
}

// Exact logits of ids_[from, to) for all heads, into scores_.
void PartitionSearch::score_group(size_t from, size_t to, Report& report) {
  const size_t group = static_cast<size_t>(group_), count = to - from;
  dots_.resize(std::max(dots_.size(), count * group));
  score_rows(dots_.data(), q_, group_, ids_.data() + from, static_cast<int32_t>(count));
  for (size_t g = 0; g < group; g++) {
    float* scores = scores_.data() + g * stride_ + from;
    for (size_t i = 0; i < count; i++) scores[i] = dots_[i * group + g];
    softcap(scores, count);
  }
  report.keys_scored += static_cast<double>(count);
  report.bytes_read += static_cast<double>(count) * static_cast<double>(keys_->row_bytes());
}

// Scores the candidates of visit: those of lists by their rows, those of a walk as it did, the homeless ones by a scan.
void PartitionSearch::score(Codes::Scores kind, int planes, Report& report) {
  stride_ = 0;
  widen(ids_.size() / 2);
  const bool walked = s_.partition != nullptr && s_.partition->graph != nullptr;
  if (s_.partition != nullptr) {
    keys_ = std::make_unique<GraphKeys>(s_.isa->graph, *s_.rows, s_.head, s_.codes->begin(), s_.partition->keys);
  }
  if (walked) {
    // A sample is drawn by what the walk's codes say.
    const std::vector<float>& dots = walk_.scores();
    for (size_t g = 0; g < static_cast<size_t>(group_); g++) {
      float* to = scores_.data() + g * stride_;
      for (size_t i = 0; i < certain_; i++) {
        to[i] = s_.shape->scale * dots[i * static_cast<size_t>(group_) + g];
        if (!std::isfinite(to[i])) {
          to[i] = s_.rows->logit(s_.head, s_.codes->begin() + ids_[i], q_ + g * static_cast<size_t>(s_.shape->head_dim), s_.shape->scale);
        }
      }
      softcap(to, certain_);
    }
  } else if (certain_ > 0) {
    score_group(0, certain_, report);
  }
  const size_t homeless = ids_.size() - certain_;
  if (homeless > 0) {
    s_.codes->prepare(prepared_, s_.head, q_, group_, s_.shape->scale, planes, kind);
    scan_homeless(report);
    for (size_t g = 0; g < static_cast<size_t>(group_); g++) {
      float* to = scores_.data() + g * stride_ + certain_;
      std::copy_n(scan_.begin() + static_cast<std::ptrdiff_t>(g * scan_stride_ + scan_skip_), homeless, to);
      softcap(to, homeless);
    }
  }
  certain_ = ids_.size();
}

// Draws from the homes what no list returned. A cell gives each of its keys the rate r = max over the group of
// exp(mean + lift * deviation) / (tau Z); points of a Poisson process of that rate land on keys, so that a key is proposed with
// probability 1 - exp(-r), at the cost of a logarithm a proposal and an addition a cell. Proposals are scored by their rows.
// log_mass_ becomes the logarithm of what is attended exactly, visited, and estimated of the rest from the proposals: known before
// any key is kept, so that it biases nothing.
void PartitionSearch::propose(double tau, Report& report) {
  log_mass_.assign(static_cast<size_t>(group_), 0);
  proposed_.clear();
  const auto mass_of = [&](int32_t g, size_t from, size_t to, double max) {
    double sum = 0;
    for (size_t i = from; i < to; i++) sum += std::exp(static_cast<double>(scores_of(g)[i]) - max);
    return sum;
  };
  std::vector<double> max(static_cast<size_t>(group_)), sums(static_cast<size_t>(group_));
  for (int32_t g = 0; g < group_; g++) {
    const double exact = query_->exact[s_.head * group_ + g];
    double top = exact;
    for (size_t i = 0; i < certain_; i++) top = std::max(top, static_cast<double>(scores_of(g)[i]));
    max[static_cast<size_t>(g)] = top;
    if (std::isfinite(exact)) sums[static_cast<size_t>(g)] = std::exp(exact - top);
    if (std::isfinite(top)) sums[static_cast<size_t>(g)] += mass_of(g, 0, certain_, top);
  }
  const Partition* p = s_.partition;
  const size_t count = p == nullptr ? 0 : static_cast<size_t>(p->homes.count());
  if (p != nullptr && p->keys > 0) {
    const ListTable& homes = p->homes;
    const size_t width = homes.centroids.width(), dim = static_cast<size_t>(s_.shape->head_dim);
    cells_.resize(width * static_cast<size_t>(group_));
    homes.centroids.dot(*s_.isa->panels, cells_.data(), q_, group_);
    rates_.assign(count, -std::numeric_limits<float>::infinity());
    const double unvisited = 1 - static_cast<double>(certain_ - static_cast<size_t>(s_.keys - p->keys)) / p->keys;
    for (int32_t g = 0; g < group_; g++) {
      float* row = cells_.data() + static_cast<size_t>(g) * width;
      const float* q = q_ + static_cast<size_t>(g) * dim;
      double square = 0;
      for (size_t d = 0; d < dim; d++) square += static_cast<double>(q[d]) * static_cast<double>(q[d]);
      const float scale = s_.shape->scale, lift = static_cast<float>(s_.lift * std::sqrt(square)) * scale;
      for (size_t c = 0; c < count; c++) row[c] *= scale;
      // What the rest weighs at least (Jensen): the mean scores of its cells.
      double& top = max[static_cast<size_t>(g)];
      if (!std::isfinite(top)) top = *std::max_element(row, row + count);
      float rest = 0;
      const float base = static_cast<float>(top);
      for (size_t c = 0; c < count; c++) {
        rest += static_cast<float>(homes.size(static_cast<int32_t>(c))) * rough_exp2((row[c] - base) * 1.44269504f);
      }
      const double mass = sums[static_cast<size_t>(g)] + rest * unvisited;
      const float threshold = static_cast<float>(top + std::log(tau * mass));
      for (size_t c = 0; c < count; c++) {
        float expected = row[c] + lift * p->deviations[c];
        if (s_.shape->softcap > 0) expected = std::min(expected, s_.shape->softcap);
        rates_[c] = std::max(rates_[c], expected - threshold);
      }
    }
    for (size_t c = 0; c < count; c++) rates_[c] = rough_exp2(rates_[c] * 1.44269504f);
    report.bytes_read += static_cast<double>(homes.centroids.bytes() + 8 * count);

    const uint32_t key = lowbias32(draw_key(query_->goal.draw, s_.head) ^ 0x5bd1e995u);
    uint32_t drawn = 0;
    const auto gap = [&] { return -std::log((draw_bits(key, static_cast<int32_t>(drawn++)) + 0.5) * 0x1p-32); };
    const auto propose_one = [&](int32_t id, float probability) {
      if ((marks_[static_cast<size_t>(id) >> 6] >> (id & 63) & 1) != 0) return;
      ids_.push_back(id);
      proposed_.push_back(probability);
    };
    double left = gap();  // rate to go before the next point
    for (size_t c = 0; c < count; c++) {
      const int32_t cell = static_cast<int32_t>(c), size = homes.size(cell);
      const double rate = static_cast<double>(rates_[c]), total = rate * size;
      if (rate >= static_cast<double>(kCertain)) {
        for (int32_t i = 0; i < size; i++) propose_one(homes.id(cell, i), 1);
        continue;
      }
      if (left >= total) {
        left -= total;
        continue;
      }
      const float probability = static_cast<float>(-std::expm1(-rate));
      int32_t last = -1;
      double at = left;
      for (; at < total; at += gap()) {
        const int32_t i = std::min(size - 1, static_cast<int32_t>(at / rate));
        if (i != last) propose_one(homes.id(cell, i), probability);
        last = i;
      }
      left = at - total;
    }
    const size_t fresh = ids_.size() - certain_;
    if (fresh > 0) {
      widen(0);
      score_group(certain_, ids_.size(), report);
    }
    report.bytes_read += static_cast<double>(fresh) * 4;
  }
  for (int32_t g = 0; g < group_; g++) {
    double top = max[static_cast<size_t>(g)];
    for (size_t i = certain_; i < ids_.size(); i++) top = std::max(top, static_cast<double>(scores_of(g)[i]));
    double sum = sums[static_cast<size_t>(g)] * std::exp(max[static_cast<size_t>(g)] - top);
    for (size_t i = certain_; i < ids_.size(); i++) {
      sum += std::exp(static_cast<double>(scores_of(g)[i]) - top) / static_cast<double>(proposed_[i - certain_]);
    }
    log_mass_[static_cast<size_t>(g)] = top + std::log(sum);
  }
}

}  // namespace kvasir
