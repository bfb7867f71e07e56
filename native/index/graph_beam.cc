#include "graph_beam.h"

#include <algorithm>
#include <limits>

namespace kvasir {
namespace {

constexpr int32_t kMostRound = 512, kTask = 16;

}  // namespace

float GraphBeam::similarity(const float* key, float key_extra, int32_t node) {
  float s;
  keys_.score(&s, key, 1, &node, 1);
  return extra_ == nullptr ? s : s + key_extra * extra_[node];
}

void GraphBeam::search(std::vector<Seen>& out, const GraphLinks& links, const float* key, float key_extra, int32_t entry,
                       int32_t width) {
  out.clear();
  met_.resize(static_cast<size_t>(keys_.nodes()), 0);
  round_++;
  std::vector<std::pair<Seen, bool>> queue = {{{similarity(key, key_extra, entry), entry}, false}};
  met_[static_cast<size_t>(entry)] = round_;
  for (size_t at = 0; at < queue.size();) {
    if (queue[at].second) {
      at++;
      continue;
    }
    queue[at].second = true;
    out.push_back(queue[at].first);
    const int32_t* list = links.of(queue[at].first.second);
    fresh_.clear();
    for (int32_t i = 0; i < links.slots() - 1 && list[i] != GraphLinks::kNone; i++) {
      if (met_[static_cast<size_t>(list[i])] == round_) continue;
      met_[static_cast<size_t>(list[i])] = round_;
      fresh_.push_back(list[i]);
    }
    scores_.resize(fresh_.size());
    keys_.score(scores_.data(), key, 1, fresh_.data(), static_cast<int32_t>(fresh_.size()));
    for (size_t i = 0; i < fresh_.size(); i++) {
      const Seen one = {extra_ == nullptr ? scores_[i] : scores_[i] + key_extra * extra_[fresh_[i]], fresh_[i]};
      if (static_cast<int32_t>(queue.size()) == width && !is_better(one, queue.back().first)) continue;
      const auto place = std::lower_bound(queue.begin(), queue.end(), one,
                                          [](const std::pair<Seen, bool>& a, const Seen& b) { return is_better(a.first, b); });
      at = std::min(at, static_cast<size_t>(place - queue.begin()));
      queue.insert(place, {one, false});
      if (static_cast<int32_t>(queue.size()) > width) queue.pop_back();
    }
  }
  std::sort(out.begin(), out.end(), is_better);
}

void GraphBeam::prune(std::vector<int32_t>& out, int32_t node, const std::vector<Seen>& candidates, int32_t limit, float alpha,
                      float top, bool fill) {
  const size_t dim = static_cast<size_t>(keys_.dim());
  out.clear();
  std::vector<int32_t> skipped;
  rows_.clear();
  std::vector<float> row(dim);
  for (const Seen& c : candidates) {
    if (static_cast<int32_t>(out.size()) == limit) break;
    if (c.second == node || std::find(out.begin(), out.end(), c.second) != out.end()) continue;
    keys_.read(row.data(), c.second);
    bool hidden = false;
    for (size_t r = 0; r < out.size() && !hidden; r++) {
      const void* at = rows_.data() + r * dim;
      float s;
      keys_.kernels().score(&s, row.data(), &at, 1, KVASIR_F32, 1, keys_.dim());
      if (extra_ != nullptr) s += extra_[c.second] * extra_[out[r]];
      hidden = alpha * (top - s) < top - c.first;
    }
    if (hidden) {
      skipped.push_back(c.second);
      continue;
    }
    out.push_back(c.second);
    rows_.insert(rows_.end(), row.begin(), row.end());
  }
  for (size_t i = 0; fill && i < skipped.size() && static_cast<int32_t>(out.size()) < limit; i++) {
    if (std::find(out.begin(), out.end(), skipped[i]) == out.end()) out.push_back(skipped[i]);
  }
}

void link_in_rounds(GraphLinks& links, const GraphMaterial& m, const float* extra, float alpha, float top,
                    const std::function<void(GraphBeam&, int32_t, std::vector<int32_t>&)>& plan) {
  const int32_t n = links.nodes(), room = links.slots() - 1;
  std::vector<std::vector<int32_t>> lists;
  for (int32_t from = 0, size = 1; from < n; from += size, size = std::min(kMostRound, 2 * size)) {
    size = std::min(size, n - from);
    lists.assign(static_cast<size_t>(size), {});
    m.run((size + kTask - 1) / kTask, [&](int32_t task) {
      GraphBeam beam(m.keys, extra);
      for (int32_t i = task * kTask; i < std::min(size, (task + 1) * kTask); i++) plan(beam, from + i, lists[static_cast<size_t>(i)]);
    });
    std::vector<std::pair<int32_t, int32_t>> wishes;  // who, whom
    for (int32_t i = 0; i < size; i++) {
      const auto& list = lists[static_cast<size_t>(i)];
      links.set(from + i, list.data(), std::min(room, static_cast<int32_t>(list.size())));
      for (int32_t to : list) wishes.push_back({to, from + i});
    }
    std::sort(wishes.begin(), wishes.end());
    std::vector<size_t> starts;
    for (size_t i = 0; i < wishes.size(); i++) {
      if (i == 0 || wishes[i].first != wishes[i - 1].first) starts.push_back(i);
    }
    starts.push_back(wishes.size());
    const int32_t hosts = static_cast<int32_t>(starts.size()) - 1;
    std::vector<std::vector<int32_t>> kept(static_cast<size_t>(hosts));
    m.run((hosts + kTask - 1) / kTask, [&](int32_t task) {
      GraphBeam beam(m.keys, extra);
      std::vector<float> row(static_cast<size_t>(m.keys.dim()));
      std::vector<Seen> candidates;
      for (int32_t h = task * kTask; h < std::min(hosts, (task + 1) * kTask); h++) {
        const int32_t node = wishes[starts[static_cast<size_t>(h)]].first;
        auto& list = kept[static_cast<size_t>(h)];
        list.assign(links.of(node), links.of(node) + links.count(node));
        for (size_t i = starts[static_cast<size_t>(h)]; i < starts[static_cast<size_t>(h) + 1]; i++) {
          if (std::find(list.begin(), list.end(), wishes[i].second) == list.end()) list.push_back(wishes[i].second);
        }
        if (static_cast<int32_t>(list.size()) <= room) continue;
        m.keys.read(row.data(), node);
        candidates.clear();
        for (int32_t c : list) candidates.push_back({beam.similarity(row.data(), extra == nullptr ? 0 : extra[node], c), c});
        std::sort(candidates.begin(), candidates.end(), is_better);
        beam.prune(list, node, candidates, room, alpha, top, false);
      }
    });
    for (int32_t h = 0; h < hosts; h++) {
      const auto& list = kept[static_cast<size_t>(h)];
      links.set(wishes[starts[static_cast<size_t>(h)]].first, list.data(), static_cast<int32_t>(list.size()));
    }
  }
}

int32_t central_node(const GraphKeys& keys) {
  const size_t dim = static_cast<size_t>(keys.dim());
  std::vector<double> mean(dim, 0);
  std::vector<float> row(dim);
  for (int32_t i = 0; i < keys.nodes(); i++) {
    keys.read(row.data(), i);
    for (size_t d = 0; d < dim; d++) mean[d] += static_cast<double>(row[d]) / keys.nodes();
  }
  std::pair<double, int32_t> best = {std::numeric_limits<double>::infinity(), 0};
  for (int32_t i = 0; i < keys.nodes(); i++) {
    keys.read(row.data(), i);
    double square = 0;
    for (size_t d = 0; d < dim; d++) square += (static_cast<double>(row[d]) - mean[d]) * (static_cast<double>(row[d]) - mean[d]);
    best = std::min(best, {square, i});
  }
  return best.second;
}

}  // namespace kvasir
