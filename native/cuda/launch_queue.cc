#include "launch_queue.h"

#include <cstring>
#include <utility>

#include "mutants.h"

namespace kvasir {

void KeptLaunch::keep(const KernelLaunch& launch) {
  call_ = launch;
  size_t lines = 0;
  for (int32_t i = 0; i < launch.count; i++) lines += (launch.sizes[i] + sizeof(Line) - 1) / sizeof(Line);
  lines_.resize(lines);
  args_.resize(static_cast<size_t>(launch.count));
  size_t at = 0;
  for (int32_t i = 0; i < launch.count; i++) {
    std::memcpy(lines_.data() + at, launch.args[i], launch.sizes[i]);
    args_[static_cast<size_t>(i)] = lines_.data() + at;
    at += (launch.sizes[i] + sizeof(Line) - 1) / sizeof(Line);
  }
  call_.args = args_.data();
}

bool KeptLaunch::equals(const KeptLaunch& other) const {
  const auto same = [](dim3 a, dim3 b) { return a.x == b.x && a.y == b.y && a.z == b.z; };
  if (!same(call_.grid, other.call_.grid) || !same(call_.block, other.call_.block) || call_.shared != other.call_.shared) return false;
  // Bytes between the members of a structure may differ where its members do not: then a node is set in vain.
  for (int32_t i = 0; i < call_.count; i++) {
    if (std::memcmp(call_.args[i], other.call_.args[i], call_.sizes[i]) != 0) return false;
  }
  return true;
}

void LaunchQueue::add(const KernelLaunch& launch) {
  counts_.launches++;
  if (!graphs_) {
    to_.launch_now(launch);
    return;
  }
  pending_[count_++].keep(launch);
  if (count_ == kMost) send();
}

void LaunchQueue::send() {
  // What fails is not tried again.
  const size_t count = std::exchange(count_, size_t{0});
  if (count >= kLeast) {
    key_.clear();
    for (size_t i = 0; i < count; i++) key_.push_back(pending_[i].call().kernel);
    const auto known = known_.find(key_);
    if (known != known_.end()) {
      send_graph(known->second, count);
      return;
    }
    // A prompt's chunks have runs of their own, which do not come again: a graph is made of what does.
    if (known_.size() == kMostKnown) known_.clear();
    known_.emplace(key_, Run());
  }
  for (size_t i = 0; i < count; i++) to_.launch_now(pending_[i].call());
}

void LaunchQueue::send_graph(Run& run, size_t count) {
  if (run.graph == nullptr) {
    run.graph = to_.make_graph(pending_, count);
    if (run.graph == nullptr) {
      for (size_t i = 0; i < count; i++) to_.launch_now(pending_[i].call());
      return;
    }
    counts_.graphs++;
    run.nodes = std::vector<KeptLaunch>(count);
    for (size_t i = 0; i < count; i++) std::swap(run.nodes[i], pending_[i]);
  } else {
    for (size_t i = 0; i < count; i++) {
      if (run.nodes[i].equals(pending_[i])) continue;
      counts_.set++;
      if (!is_seeded(Mutant::kGraphStale)) run.graph->set(i, pending_[i].call());
      std::swap(run.nodes[i], pending_[i]);
    }
  }
  counts_.replayed += static_cast<int64_t>(count);
  run.graph->run();
}

}  // namespace kvasir
