#include "graph_search.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace kvasir {

void GraphSearch::start(const GraphCodes& codes, const GraphKernels& kernels, const float* q, int32_t group, int32_t width) {
  codes_ = &codes;
  kernels_ = &kernels;
  codes.prepare(query_, q, group);
  group_ = group;
  width_ = std::max(1, width);
  num_expanded_ = 0;
  seen_.assign(static_cast<size_t>((codes.nodes() + 63) / 64), 0);
  expanded_.assign(seen_.size(), 0);
  queues_.resize(static_cast<size_t>(group) * static_cast<size_t>(width_ + kMostFresh));
  sizes_.assign(static_cast<size_t>(group), 0);
  next_.assign(static_cast<size_t>(group), 0);
  scored_.clear();
  scores_.clear();
  finalists_.clear();
  exact_.clear();
}

// Puts some entries [count], count <= kMostFresh, into a queue: sorted among themselves, so that what is behind moves once.
void GraphSearch::insert(int32_t g, Entry* fresh, int32_t count) {
  const auto worse = [](const Entry& a, const Entry& b) { return a.score != b.score ? a.score < b.score : a.node > b.node; };
  std::sort(fresh, fresh + count, worse);
  Entry* queue = queues_.data() + static_cast<size_t>(g) * static_cast<size_t>(width_ + kMostFresh);
  int32_t end = sizes_[static_cast<size_t>(g)];
  const int32_t total = end + count;
  for (int32_t i = 0; i < count; i++) {
    // The place behind all scores as large, by conditional moves: branches here could not be predicted.
    const Entry* at = queue;
    for (int32_t left = end; left > 0;) {
      const int32_t half = (left + 1) / 2;
      at += at[half - 1].score >= fresh[i].score ? half : 0;
      left -= half;
    }
    const int32_t place = static_cast<int32_t>(at - queue), shift = count - i;
    std::memmove(queue + place + shift, queue + place, sizeof(Entry) * static_cast<size_t>(end - place));
    queue[place + shift - 1] = fresh[i];
    end = place;
  }
  sizes_[static_cast<size_t>(g)] = std::min(width_, total);
  next_[static_cast<size_t>(g)] = std::min(next_[static_cast<size_t>(g)], end);
}

// Scores what scored_ holds from `first` on; their codes are on the way.
void GraphSearch::score_fresh(const GraphLinks* links, size_t first) {
  const size_t group = static_cast<size_t>(group_);
  scores_.resize(scored_.size() * group);
  Entry fresh[kMostFresh];
  for (; first < scored_.size(); first += kMostFresh) {
    const size_t count = std::min<size_t>(kMostFresh, scored_.size() - first);
    float* scores = scores_.data() + first * group;
    codes_->score(scores, *kernels_, query_, scored_.data() + first, static_cast<int32_t>(count));
    for (int32_t g = 0; g < group_; g++) {
      const Entry* queue = queues_.data() + static_cast<size_t>(g) * static_cast<size_t>(width_ + kMostFresh);
      const int32_t size = sizes_[static_cast<size_t>(g)];
      const float least = size == width_ ? queue[size - 1].score : -std::numeric_limits<float>::infinity();
      int32_t passed = 0;
      for (size_t i = 0; i < count; i++) {
        const float s = scores[i * group + static_cast<size_t>(g)];
        fresh[passed] = {s, scored_[first + i]};
        passed += s > least || (size < width_ && s == least) ? 1 : 0;
      }
      if (passed == 0) continue;
      if (links != nullptr) {
        for (int32_t i = 0; i < passed; i++) prefetch_line(links->of(fresh[i].node));
      }
      insert(g, fresh, passed);
    }
  }
}

void GraphSearch::offer(const int32_t* nodes, int32_t count) {
  const size_t first = scored_.size();
  for (int32_t i = 0; i < count; i++) {
    const int32_t node = nodes[i];
    uint64_t& bits = seen_[static_cast<size_t>(node >> 6)];
    const uint64_t bit = uint64_t{1} << (node & 63);
    if ((bits & bit) != 0) continue;
    bits |= bit;
    codes_->prefetch(node);
    scored_.push_back(node);
  }
  score_fresh(nullptr, first);
}

void GraphSearch::run(const GraphLinks& links) {
  // Nearly all that a queue ever holds near its end is expanded, so several are at once: their rows come together. A narrow queue
  // looks first.
  constexpr int32_t kMostAtOnce = 8;
  const int32_t slots = links.slots(), at_once = std::max(1, std::min(kMostAtOnce, width_ / 32));
  for (int32_t idle = 0, g = 0; idle < group_; g = g + 1 == group_ ? 0 : g + 1) {
    Entry* queue = queues_.data() + static_cast<size_t>(g) * static_cast<size_t>(width_ + kMostFresh);
    int32_t& next = next_[static_cast<size_t>(g)];
    const int32_t size = sizes_[static_cast<size_t>(g)];
    int32_t chosen[kMostAtOnce], count = 0;
    for (; next < size && count < at_once; next++) {
      Entry& entry = queue[next];
      if ((entry.node & kExpanded) != 0) continue;  // told by the entry alone: walks over many
      const int32_t node = entry.node;
      entry.node |= kExpanded;
      uint64_t& bits = expanded_[static_cast<size_t>(node >> 6)];
      const uint64_t bit = uint64_t{1} << (node & 63);
      if ((bits & bit) != 0) continue;  // for another head
      bits |= bit;
      chosen[count++] = node;
    }
    if (count == 0) {
      idle++;
      continue;
    }
    idle = 0;
    num_expanded_ += count;
    const size_t first = scored_.size();
    // Whether a neighbour was met before cannot be predicted: it is written in any case and counted if not.
    scored_.resize(first + static_cast<size_t>(count) * static_cast<size_t>(slots));
    int32_t* fresh = scored_.data() + first;
    for (int32_t c = 0; c < count; c++) {
      const int32_t* list = links.of(chosen[c]);
      for (int32_t i = 0; i < slots; i++) {
        int32_t neighbour = list[i];
        if (neighbour == GraphLinks::kNone) {
          neighbour = list[slots - 1];  // behind the last the thread
          if (neighbour == GraphLinks::kNone) break;
          i = slots;
        }
        uint64_t& bits = seen_[static_cast<size_t>(neighbour >> 6)];
        const uint64_t bit = uint64_t{1} << (neighbour & 63);
        *fresh = neighbour;
        fresh += (bits & bit) == 0 ? 1 : 0;
        bits |= bit;
      }
    }
    scored_.resize(static_cast<size_t>(fresh - scored_.data()));
    for (size_t i = first; i < scored_.size(); i++) codes_->prefetch(scored_[i]);
    score_fresh(&links, first);
  }
}

void GraphSearch::collect() {
  // What is in a queue was expanded: the bit tells whether it was collected.
  for (int32_t g = 0; g < group_; g++) {
    for (int32_t i = 0; i < queued(g); i++) {
      const int32_t node = node_of(queue(g)[i]);
      uint64_t& bits = expanded_[static_cast<size_t>(node >> 6)];
      const uint64_t bit = uint64_t{1} << (node & 63);
      if ((bits & bit) == 0) continue;
      bits &= ~bit;
      finalists_.push_back(node);
    }
  }
}

void GraphSearch::finish(const GraphKeys& keys, const float* q) {
  collect();
  const int32_t count = static_cast<int32_t>(finalists_.size());
  exact_.resize(static_cast<size_t>(count) * static_cast<size_t>(group_));
  constexpr int32_t kPiece = 32;
  for (int32_t i = 0; i < std::min(kPiece, count); i++) keys.prefetch(finalists_[static_cast<size_t>(i)]);
  for (int32_t done = 0; done < count; done += kPiece) {
    const int32_t next = std::min(count, done + kPiece), after = std::min(count, next + kPiece);
    for (int32_t i = next; i < after; i++) keys.prefetch(finalists_[static_cast<size_t>(i)]);
    keys.score(exact_.data() + static_cast<size_t>(done) * static_cast<size_t>(group_), q, group_, finalists_.data() + done, next - done);
  }
}

void GraphSearch::best(std::vector<int32_t>& nodes, int32_t g, int32_t k) const {
  std::vector<std::pair<float, int32_t>> order;  // minus score, node
  for (size_t i = 0; i < finalists_.size(); i++) {
    order.push_back({-exact_[i * static_cast<size_t>(group_) + static_cast<size_t>(g)], finalists_[i]});
  }
  const size_t some = std::min(order.size(), static_cast<size_t>(k));
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(some), order.end());
  nodes.clear();
  for (size_t i = 0; i < some; i++) nodes.push_back(order[i].second);
}

}  // namespace kvasir
