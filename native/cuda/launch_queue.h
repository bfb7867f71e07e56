// Launches on their way to the device. What kernels are asked to do changes little from one decode step to the next: the same kernels in
// the same order, of which a few have other arguments (where rows are appended, how many keys there are). So launches are collected, and
// a run of them whose kernels were seen before is a graph: the arguments and grids that differ from its last run are set, and the graph
// is launched as one. Whatever else touches memory, or waits, sends what was collected ahead of itself, so that the order on the stream
// is the order of the calls, and the device works on one run while the host collects the next.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "dim3.h"

namespace kvasir {

// kernel<<<grid, block, shared>>>(args...).
struct KernelLaunch {
  const char* name;
  const void* kernel;
  dim3 grid, block;
  size_t shared;
  void** args;
  const uint32_t* sizes;  // of each argument in bytes; lasts
  int32_t count;
#ifdef KVASIR_EMULATION
  void (*run)(const void* kernel, void** args);
#endif
};

// A launch with arguments of its own.
class KeptLaunch {
 public:
  void keep(const KernelLaunch& launch);
  bool equals(const KeptLaunch& other) const;  // of the same kernel
  const KernelLaunch& call() const { return call_; }

 private:
  // As aligned as any argument is (tensor maps).
  struct alignas(128) Line {
    uint8_t bytes[128];
  };
  KernelLaunch call_{};
  std::vector<Line> lines_;
  std::vector<void*> args_;
};

// A chain of launches that the device has.
class LaunchGraph {
 public:
  virtual ~LaunchGraph() = default;
  virtual void set(size_t node, const KernelLaunch& launch) = 0;  // of the node's kernel; for runs from now on
  virtual void run() = 0;
};

class Launcher {
 public:
  virtual void launch_now(const KernelLaunch& launch) = 0;
  // Null where there is no memory for it. launches[0, count)
  virtual std::unique_ptr<LaunchGraph> make_graph(const KeptLaunch* launches, size_t count) = 0;

 protected:
  ~Launcher() = default;
};

// What became of launches.
struct LaunchCounts {
  int64_t launches = 0, replayed = 0, set = 0, graphs = 0;  // set: of the replayed, those with other arguments; graphs: made
};

class LaunchQueue {
 public:
  // `graphs` false: every launch is sent at once.
  LaunchQueue(Launcher& to, bool graphs) : to_(to), graphs_(graphs) {}

  void add(const KernelLaunch& launch);
  void send();
  void drop() noexcept { count_ = 0; }  // the device is lost
  // Before what made the graphs ends.
  void end() noexcept {
    drop();
    known_.clear();
  }
  const LaunchCounts& counts() const { return counts_; }

 private:
  // A run that is this long is sent: the device is not to wait for the whole step.
  static constexpr size_t kMost = 64;
  // A shorter one is not worth a graph.
  static constexpr size_t kLeast = 4;
  static constexpr size_t kMostKnown = 64;

  struct Run {
    std::unique_ptr<LaunchGraph> graph;  // from the second time on
    std::vector<KeptLaunch> nodes;       // as the graph has them
  };
  void send_graph(Run& run, size_t count);

  Launcher& to_;
  const bool graphs_;
  KeptLaunch pending_[kMost];
  size_t count_ = 0;
  std::map<std::vector<const void*>, Run> known_;  // by their kernels
  std::vector<const void*> key_;
  LaunchCounts counts_;
};

}  // namespace kvasir
