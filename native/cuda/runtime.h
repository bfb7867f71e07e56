// The seam between the library and the device: memory, copies and launches on one stream. runtime_cuda.cc is CUDA's,
// runtime_emulated.cc the host's twin; all else is the same source.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "launch_queue.h"
#include "tensor_map.h"

namespace kvasir {

struct DeviceFacts {
  std::string name;        // "NVIDIA H100 80GB HBM3", or "emulated"
  int capability = 0;      // 90 for 9.0
  int processors = 0;      // streaming multiprocessors
  size_t memory = 0;       // bytes of it
  size_t block_shared = 0; // most dynamic shared memory of a block
  size_t cache = 0;        // bytes of L2
  bool wgmma = false;      // kernels that are compiled for sm_90a run, and are wanted
  bool tma = false;        // and they may copy by tensor maps; until the driver refuses one
};

struct Options;

// A copy to the host that runs beside the device's other work. One at a time, any number after each other; ends before its runtime.
class HostCopy {
 public:
  virtual ~HostCopy() = default;
  // Of what lies at `from` once all that was asked for before is done, and which may change when this returns.
  virtual void begin(const void* from, size_t bytes) = 0;
  // Waits for it, and for nothing else. Valid until the next begin.
  virtual const void* wait() = 0;
};

// Every function throws Error: KVASIR_DEVICE with what failed, and once a kernel has failed (the device is lost then) with that.
class Runtime : protected Launcher {
 public:
  // Throws Error{KVASIR_DEVICE} in one sentence where there is no driver, an old one, no device, or one that is too old.
  static std::unique_ptr<Runtime> open(const Options& options);
  virtual ~Runtime() = default;

  const DeviceFacts& facts() const { return facts_; }
  void check_lost() const;  // throws Error{KVASIR_DEVICE} if the device is lost

  virtual void* allocate(size_t bytes) = 0;      // null when memory is out; aligned to 256 bytes
  virtual void free(void* data) noexcept = 0;    // after what was asked for before; null does nothing
  // from may change when it returns: it lies in pinned memory then, and lands on the stream, in its turn. Beside what the device does
  // (upload_ring.h), where it is larger than kMostDirect.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  // Waits.
  virtual void download(void* to, const void* from, size_t bytes) = 0;
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  // The same where either may be the host's memory; waits where one is.
  virtual void transfer(void* to, const void* from, size_t bytes) = 0;
  // Whether kernels can read what lies there: the device's memory, or pinned memory of the host.
  virtual bool reaches(const void* data) = 0;
  virtual void fill(void* to, uint8_t value, size_t bytes) = 0;
  virtual void wait() = 0;
  // Pinned memory that kernels can read and write where it lies; the same address on both sides. Null when out.
  virtual void* allocate_host(size_t bytes) = 0;
  virtual void free_host(void* data) noexcept = 0;
  virtual std::unique_ptr<HostCopy> make_host_copy() = 0;
  // Makes a tensor map where facts().tma; false, from then on with facts() that say so, where the driver refuses it.
  bool describe_rows(TensorMap& map, const TensorRows& of);
  // Milliseconds of the device between two calls of mark(), the first and the last; waits.
  virtual void mark() = 0;
  virtual double elapsed() = 0;

  // Copies a few bytes (at most kMostStaged) to where kernels launched from now on can read them, without waiting but for the
  // launches of some hundred stagings ago. Valid for the launches until the next but one staging fills its half: use it at once.
  static constexpr size_t kMostStaged = size_t{1} << 19;
  static constexpr size_t kMostDirect = size_t{64} << 10;
  template <class T>
  const T* stage(const T* values, size_t count) {
    return static_cast<const T*>(stage_bytes(values, count * sizeof(T)));
  }

  // Queues a kernel behind what was asked for before (launch.h is what kernels' files call). What it fails of may be said by a later call.
  void launch(const KernelLaunch& call) {
    check_lost();
    queue_.add(call);
  }
  const LaunchCounts& launches() const { return queue_.counts(); }

 protected:
  explicit Runtime(bool graphs) : queue_(*this, graphs) {}
  virtual const void* stage_bytes(const void* values, size_t bytes) = 0;
  [[noreturn]] void lose(const std::string& what);  // remembers, and throws
  DeviceFacts facts_;
  LaunchQueue queue_;
  std::string lost_;  // the sentence of a kernel's fault, empty while all is well
};

}  // namespace kvasir
