// The runtime's twin on the host: allocations with guard zones, launches by emulation.cc. Everything happens at once, in order.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <vector>

#include "error.h"
#include "memory.h"
#include "options.h"
#include "runtime.h"
#include "runtime_fail.h"
#include "upload_ring.h"

namespace kvasir {
namespace {

constexpr size_t kGuard = 256;
constexpr int kStagings = 32;

class EmulatedRuntime final : public Runtime {
 public:
  explicit EmulatedRuntime(const Options& options) : Runtime(options.graphs), options_(options) {
    facts_ = {"emulated", 90, 4, options.memory == 0 ? size_t{1} << 40 : options.memory, 232448 - 1024, size_t{1} << 20, options.wgmma,
              options.wgmma && options.tma && options.maps};
  }
  ~EmulatedRuntime() override {
    queue_.end();
    for (auto& [data, bytes] : blocks_) aligned_free(data - kGuard);
  }

  void* allocate(size_t bytes) override {
    check_lost();
    if (options_.memory > 0 && bytes > options_.memory - used_) return nullptr;
    auto* raw = static_cast<uint8_t*>(aligned_allocate(bytes + 2 * kGuard));
    if (raw == nullptr) return nullptr;
    std::memset(raw, 0xff, bytes + 2 * kGuard);  // NaN: what is read before it is written shows
    blocks_[raw + kGuard] = bytes;
    used_ += bytes;
    return raw + kGuard;
  }
  void free(void* data) noexcept override {
    const auto found = blocks_.find(static_cast<uint8_t*>(data));
    if (found == blocks_.end()) return;
    settle();
    used_ -= found->second;
    aligned_free(found->first - kGuard);
    blocks_.erase(found);
  }
  void upload(void* to, const void* from, size_t bytes) override {
    enter();
    if (bytes <= kMostDirect) std::memmove(to, from, bytes);
    else upload_ring_.upload(to, from, bytes);
  }
  void download(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  void copy(void* to, const void* from, size_t bytes) override {
    enter();
    std::memmove(to, from, bytes);
  }
  void transfer(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  bool reaches(const void* data) override {
    const auto* at = static_cast<const uint8_t*>(data);
    for (const auto& [block, bytes] : blocks_) {
      if (at >= block && at < block + bytes) return true;
    }
    return false;
  }
  void fill(void* to, uint8_t value, size_t bytes) override {
    enter();
    std::memset(to, value, bytes);
  }
  void wait() override { enter(); }
  void* allocate_host(size_t bytes) override { return allocate(bytes); }
  void free_host(void* data) noexcept override { free(data); }
  std::unique_ptr<HostCopy> make_host_copy() override { return std::make_unique<LateCopy>(*this); }
  void mark() override {
    enter();
    const auto now = std::chrono::steady_clock::now();
    if (!timing_) first_ = now;
    last_ = now, timing_ = true;
  }
  double elapsed() override {
    timing_ = false;
    return std::chrono::duration<double, std::milli>(last_ - first_).count();
  }

 protected:
  void launch_now(const KernelLaunch& call) override {
    check_lost();
    const std::string name = call.name;
    launches_++;
    if (launches_ == options_.fault) lose("kernel " + name + " failed: an illegal memory access was encountered");
    const char* sentence = emulation::run({call.name, call.grid, call.block, call.shared, options_.seed + static_cast<uint64_t>(launches_)},
                                          [&] { call.run(call.kernel, call.args); });
    if (sentence != nullptr) lose(sentence);
    for (const auto& [data, bytes] : blocks_) {
      if (!clean(data - kGuard)) lose("kernel " + name + " wrote below an allocation of " + std::to_string(bytes) + " bytes");
      if (!clean(data + bytes)) lose("kernel " + name + " wrote beyond an allocation of " + std::to_string(bytes) + " bytes");
    }
  }
  std::unique_ptr<LaunchGraph> make_graph(const KeptLaunch* launches, size_t count) override {
    return std::make_unique<EmulatedGraph>(*this, launches, count);
  }
  const void* stage_bytes(const void* values, size_t bytes) override {
    check_lost();
    if (bytes > kMostStaged) fail(KVASIR_INTERNAL, "Cannot stage %zu bytes, at most %zu", bytes, kMostStaged);
    // Each staging is its own allocation, so that its guard zones are; the last ones live, as in the ring of a device.
    free(staged_[turn_]);
    staged_[turn_] = allocate(bytes);
    if (staged_[turn_] == nullptr) fail(KVASIR_MEMORY, "Cannot stage arguments: out of memory for %zu bytes%s", bytes, kContextTooLarge);
    if (bytes > 0) std::memcpy(staged_[turn_], values, bytes);
    const void* at = staged_[turn_];
    turn_ = (turn_ + 1) % kStagings;
    return at;
  }

 private:
  // Lands when it is waited for: whoever looks before sees what the last one left, or NaN.
  class LateCopy final : public HostCopy {
   public:
    explicit LateCopy(EmulatedRuntime& runtime) : runtime_(runtime) {}
    void begin(const void* from, size_t bytes) override {
      runtime_.enter();
      const auto* first = static_cast<const uint8_t*>(from);
      under_way_.assign(first, first + bytes);
      landed_.resize(bytes, 0xff);
    }
    const void* wait() override {
      runtime_.check_lost();
      landed_ = under_way_;
      return landed_.data();
    }

   private:
    EmulatedRuntime& runtime_;
    std::vector<uint8_t> under_way_, landed_;
  };

  // Kernels' stream does what it is asked at once, the other when somebody waits for it.
  class LateUploads final : public UploadStreams {
   public:
    bool allocate(size_t bytes, uint8_t** pinned, uint8_t** staging) override {
      memory_.assign(2 * bytes, 0xff);
      *pinned = memory_.data(), *staging = memory_.data() + bytes;
      return true;
    }
    void copy(Lane lane, void* to, const void* from, size_t bytes) override {
      if (lane == Lane::kKernels) std::memcpy(to, from, bytes);
      else under_way_.push_back({to, from, bytes, -1});
    }
    void record(Lane lane, int event) override {
      if (lane == Lane::kUploads) under_way_.push_back({nullptr, nullptr, 0, event});
    }
    void wait(Lane lane, int event) override {
      if (lane == Lane::kKernels) wait(event);
    }
    void wait(int event) override {
      const auto is_it = [&](const Step& s) { return s.event == event; };
      if (std::none_of(under_way_.begin(), under_way_.end(), is_it)) return;
      for (bool found = false; !found; under_way_.pop_front()) {
        const Step& s = under_way_.front();
        found = is_it(s);
        if (s.bytes > 0) std::memcpy(s.to, s.from, s.bytes);
      }
    }

   private:
    struct Step {
      void* to;
      const void* from;
      size_t bytes;
      int event;  // that has happened then, or -1
    };
    std::vector<uint8_t> memory_;
    std::deque<Step> under_way_;
  };

  // As on a device: arguments and grids are what the graph has until they are set.
  class EmulatedGraph final : public LaunchGraph {
   public:
    EmulatedGraph(EmulatedRuntime& runtime, const KeptLaunch* launches, size_t count) : runtime_(runtime), nodes_(count) {
      for (size_t i = 0; i < count; i++) nodes_[i].keep(launches[i].call());
    }
    void set(size_t node, const KernelLaunch& launch) override { nodes_[node].keep(launch); }
    void run() override {
      for (const KeptLaunch& node : nodes_) runtime_.launch_now(node.call());
    }

   private:
    EmulatedRuntime& runtime_;
    std::vector<KeptLaunch> nodes_;
  };

  // Launches that were asked for come first.
  void enter() {
    check_lost();
    queue_.send();
  }
  void settle() noexcept {
    try {
      if (lost_.empty()) queue_.send();
    } catch (const Error&) {
      // Lost: the next call says so.
    }
  }
  static bool clean(const uint8_t* zone) {
    uint64_t words[kGuard / 8];
    std::memcpy(words, zone, kGuard);
    for (uint64_t w : words) {
      if (w != ~uint64_t{0}) return false;
    }
    return true;
  }
  const Options options_;
  LateUploads uploads_;
  UploadRing upload_ring_{uploads_};
  std::map<uint8_t*, size_t> blocks_;
  size_t used_ = 0;
  int launches_ = 0;
  void* staged_[kStagings] = {};
  int turn_ = 0;
  bool timing_ = false;
  std::chrono::steady_clock::time_point first_, last_;
};

}  // namespace

std::unique_ptr<Runtime> Runtime::open(const Options& options) {
  if (options.driver < kDriverNeeded) fail_driver(options.driver);
  if (options.device >= options.devices) fail_devices(options.device, options.devices);
  return std::make_unique<EmulatedRuntime>(options);
}

}  // namespace kvasir
