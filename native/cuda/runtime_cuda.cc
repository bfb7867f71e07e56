// The runtime over CUDA: one stream, beside it one for copies to the host and one for large ones from it, one memory pool, a ring of pinned
// memory for arguments. Linked with the static cudart, which looks for the driver when it is first called: the library itself loads anywhere.
#include <cuda_runtime_api.h>

#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "error.h"
#include "options.h"
#include "runtime.h"
#include "runtime_fail.h"
#include "upload_cuda.h"

namespace kvasir {
namespace {

constexpr size_t kHalf = Runtime::kMostStaged;  // of the ring

class CudaRuntime final : public Runtime {
 public:
  explicit CudaRuntime(const Options& options) : Runtime(options.graphs), device_(options.device) {
    int driver = 0, count = 0;
    // 35 without a driver, with one too old, and under some containers; 100 without a device.
    if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
    const cudaError_t counted = cudaGetDeviceCount(&count);
    if (driver < kDriverNeeded) fail_driver(driver);
    if (counted == cudaErrorNoDevice || (counted == cudaSuccess && count == 0)) fail_devices(device_, 0);
    open_check(counted);
    if (device_ >= count) fail_devices(device_, count);
    open_check(cudaSetDevice(device_));
    cudaDeviceProp p{};
    open_check(cudaGetDeviceProperties(&p, device_));
    facts_ = {p.name, p.major * 10 + p.minor, p.multiProcessorCount, p.totalGlobalMem, p.sharedMemPerBlockOptin,
              static_cast<size_t>(p.l2CacheSize)};
#ifdef KVASIR_SM90A
    facts_.wgmma = options.wgmma && facts_.capability == 90;
#endif
    if (facts_.capability < 75) {
      fail(KVASIR_DEVICE, "Cannot open cuda: %s has compute capability %d.%d, 7.5 or more is needed, use backend \"cpu\"", p.name,
           p.major, p.minor);
    }
    open_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    open_check(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking));
    cudaMemPoolProps pool{};
    pool.allocType = cudaMemAllocationTypePinned;
    pool.location.type = cudaMemLocationTypeDevice;
    pool.location.id = device_;
    open_check(cudaMemPoolCreate(&pool_, &pool));
    // What is freed stays with the pool until memory runs short: giving it back would wait for the device.
    uint64_t keep = ~uint64_t{0};
    open_check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep));
    open_check(cudaMallocHost(reinterpret_cast<void**>(&ring_host_), 2 * kHalf));
    open_check(cudaMallocFromPoolAsync(reinterpret_cast<void**>(&ring_), 2 * kHalf, pool_, stream_));
    TensorMap probe;
    facts_.tma = options.tma && facts_.wgmma;
    describe_rows(probe, {ring_, 1, 64, 64, kBoxColumns, 64});
    for (cudaEvent_t& e : ring_events_) open_check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    for (cudaEvent_t& e : marks_) open_check(cudaEventCreate(&e));
  }

  ~CudaRuntime() override { close(); }

  void* allocate(size_t bytes) override {
    choose();
    void* data = nullptr;
    cudaError_t e = cudaMallocFromPoolAsync(&data, bytes == 0 ? 1 : bytes, pool_, stream_);
    if (e == cudaErrorMemoryAllocation) {
      // The pool keeps what was freed in other sizes: give that back, and try once more.
      cudaGetLastError();
      check(cudaStreamSynchronize(stream_), "waiting for memory");
      check(cudaMemPoolTrimTo(pool_, 0), "trimming memory");
      e = cudaMallocFromPoolAsync(&data, bytes == 0 ? 1 : bytes, pool_, stream_);
      if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return nullptr;
      }
    }
    check(e, "allocating memory");
    return data;
  }
  void free(void* data) noexcept override {
    if (data == nullptr || !lost_.empty()) return;  // a lost device's memory goes with it
    try {
      enter();
    } catch (const Error&) {
      return;  // lost: the next call says so
    }
    if (cudaFreeAsync(data, stream_) != cudaSuccess) cudaGetLastError();  // said again by the next call
  }
  void upload(void* to, const void* from, size_t bytes) override {
    enter();
    if (bytes <= kMostDirect) {
      check(cudaMemcpyAsync(to, pin(from, bytes), bytes, cudaMemcpyHostToDevice, stream_), "a copy to the device");
      return;
    }
    if (upload_ring_ == nullptr) {
      uploads_ = std::make_unique<CudaUploads>(stream_, pool_, [this](cudaError_t e, const char* what) { check(e, what); });
      upload_ring_ = std::make_unique<UploadRing>(*uploads_);
    }
    if (upload_ring_->upload(to, from, bytes)) return;
    // From memory that is not pinned: returns when it has been read.
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "a copy to the device");
  }
  void download(void* to, const void* from, size_t bytes) override {
    enter();
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "a copy from the device");
    wait();
  }
  void copy(void* to, const void* from, size_t bytes) override {
    enter();
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "a copy on the device");
  }
  void transfer(void* to, const void* from, size_t bytes) override {
    enter();
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "a copy");
    if (!reaches(to) || !reaches(from)) wait();
  }
  bool reaches(const void* data) override {
    choose();
    cudaPointerAttributes a{};
    check(cudaPointerGetAttributes(&a, data), "asking where memory lies");
    return a.type != cudaMemoryTypeUnregistered;
  }
  void fill(void* to, uint8_t value, size_t bytes) override {
    enter();
    check(cudaMemsetAsync(to, value, bytes, stream_), "a fill");
  }
  void wait() override {
    enter();
    check(cudaStreamSynchronize(stream_), "running kernels");
  }
  void* allocate_host(size_t bytes) override {
    choose();
    void* data = nullptr;
    const cudaError_t e = cudaHostAlloc(&data, bytes == 0 ? 1 : bytes, cudaHostAllocMapped | cudaHostAllocPortable);
    if (e == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    check(e, "allocating pinned memory");
    return data;
  }
  void free_host(void* data) noexcept override {
    if (data == nullptr || !lost_.empty()) return;
    try {
      wait();
    } catch (const Error&) {
      return;
    }
    cudaFreeHost(data);
  }
  std::unique_ptr<HostCopy> make_host_copy() override {
    choose();
    return std::make_unique<PinnedCopy>(*this);
  }
  void mark() override {
    enter();
    check(cudaEventRecord(marks_[timing_ ? 1 : 0], stream_), "timing");
    timing_ = true;
  }
  double elapsed() override {
    enter();
    timing_ = false;
    float ms = 0;
    check(cudaEventSynchronize(marks_[1]), "timing");
    check(cudaEventElapsedTime(&ms, marks_[0], marks_[1]), "timing");
    return ms;
  }

 protected:
  void launch_now(const KernelLaunch& call) override {
    choose();
    allow_shared(call);
    check(cudaLaunchKernel(call.kernel, call.grid, call.block, call.args, call.shared, stream_), call.name);
  }
  std::unique_ptr<LaunchGraph> make_graph(const KeptLaunch* launches, size_t count) override {
    choose();
    auto made = std::make_unique<CudaGraph>(*this);
    cudaError_t e = cudaGraphCreate(&made->graph, 0);
    for (size_t i = 0; i < count && e == cudaSuccess; i++) {
      const KernelLaunch& call = launches[i].call();
      allow_shared(call);
      const cudaKernelNodeParams params = node_params(call);
      cudaGraphNode_t node = nullptr;
      e = cudaGraphAddKernelNode(&node, made->graph, i == 0 ? nullptr : &made->nodes.back(), i == 0 ? 0 : 1, &params);
      made->nodes.push_back(node);
    }
    if (e == cudaSuccess) e = cudaGraphInstantiate(&made->executable, made->graph, 0);
    if (e == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    check(e, "making a graph");
    return made;
  }
  const void* stage_bytes(const void* values, size_t bytes) override {
    choose();
    if (bytes > kMostStaged) fail(KVASIR_INTERNAL, "Cannot stage %zu bytes, at most %zu", bytes, kMostStaged);
    uint8_t* pinned = pin(values, bytes);
    uint8_t* to = ring_ + (pinned - ring_host_);
    check(cudaMemcpyAsync(to, pinned, bytes, cudaMemcpyHostToDevice, stream_), "a copy of arguments");
    return to;
  }

 private:
  // A copy in the ring of pinned memory, for what is queued at once.
  uint8_t* pin(const void* values, size_t bytes) {
    const size_t room = (bytes + 255) / 256 * 256;
    if (in_half_ + room > kHalf) {
      queue_.send();  // what was asked for with this half
      check(cudaEventRecord(ring_events_[half_], stream_), "a copy of arguments");
      half_ = 1 - half_;
      in_half_ = 0;
      // What was launched with this half before must have run; nothing has, the first time.
      check(cudaEventSynchronize(ring_events_[half_]), "running kernels");
    }
    const size_t at = half_ * kHalf + in_half_;
    in_half_ += room;
    std::memcpy(ring_host_ + at, values, bytes);
    return ring_host_ + at;
  }

  // A chain of kernel nodes. One that still runs when it ends is let go of by the driver once it is done.
  struct CudaGraph final : LaunchGraph {
    explicit CudaGraph(CudaRuntime& runtime_) : runtime(runtime_) {}
    ~CudaGraph() override {
      if (!runtime.lost_.empty()) return;
      if (executable != nullptr) cudaGraphExecDestroy(executable);
      if (graph != nullptr) cudaGraphDestroy(graph);
    }
    void set(size_t node, const KernelLaunch& call) override {
      runtime.allow_shared(call);
      const cudaKernelNodeParams params = node_params(call);
      runtime.check(cudaGraphExecKernelNodeSetParams(executable, nodes[node], &params), call.name);
    }
    void run() override {
      runtime.choose();
      runtime.check(cudaGraphLaunch(executable, runtime.stream_), "a graph");
    }

    CudaRuntime& runtime;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    std::vector<cudaGraphNode_t> nodes;
  };

  // By way of a copy on the device, so that what is copied may be written by the next kernel, into pinned memory on a stream of its own.
  class PinnedCopy final : public HostCopy {
   public:
    explicit PinnedCopy(CudaRuntime& runtime) : runtime_(runtime) {
      for (cudaEvent_t* e : {&made_, &landed_}) runtime.check(cudaEventCreateWithFlags(e, cudaEventDisableTiming), "a copy to the host");
    }
    ~PinnedCopy() override {
      if (!runtime_.lost_.empty()) return;
      if (under_way_) cudaEventSynchronize(landed_);
      for (cudaEvent_t e : {made_, landed_}) if (e != nullptr) cudaEventDestroy(e);
      runtime_.free_host(host_);
      runtime_.free(device_);
    }
    void begin(const void* from, size_t bytes) override {
      runtime_.enter();
      if (under_way_) wait();  // dropped
      reserve(bytes);
      const char* what = "a copy to the host";
      runtime_.check(cudaMemcpyAsync(device_, from, bytes, cudaMemcpyDeviceToDevice, runtime_.stream_), what);
      runtime_.check(cudaEventRecord(made_, runtime_.stream_), what);
      runtime_.check(cudaStreamWaitEvent(runtime_.copies_, made_, 0), what);
      runtime_.check(cudaMemcpyAsync(host_, device_, bytes, cudaMemcpyDeviceToHost, runtime_.copies_), what);
      runtime_.check(cudaEventRecord(landed_, runtime_.copies_), what);
      under_way_ = true;
    }
    const void* wait() override {
      runtime_.choose();
      runtime_.check(cudaEventSynchronize(landed_), "running kernels");
      under_way_ = false;
      return host_;
    }

   private:
    void reserve(size_t bytes) {
      if (bytes <= bytes_) return;
      bytes_ = 0;
      runtime_.free(std::exchange(device_, nullptr));
      runtime_.free_host(std::exchange(host_, nullptr));
      device_ = runtime_.allocate(bytes);
      host_ = runtime_.allocate_host(bytes);
      if (device_ == nullptr) fail(KVASIR_MEMORY, "Cannot copy to the host: out of memory for %zu bytes%s", bytes, kContextTooLarge);
      if (host_ == nullptr) fail(KVASIR_MEMORY, "Cannot copy to the host: out of pinned memory for %zu bytes, end what else uses it", bytes);
      bytes_ = bytes;
    }

    CudaRuntime& runtime_;
    cudaEvent_t made_ = nullptr, landed_ = nullptr;
    void *device_ = nullptr, *host_ = nullptr;
    size_t bytes_ = 0;
    bool under_way_ = false;
  };

  static cudaKernelNodeParams node_params(const KernelLaunch& call) {
    cudaKernelNodeParams params{};
    params.func = const_cast<void*>(call.kernel);
    params.gridDim = call.grid, params.blockDim = call.block;
    params.sharedMemBytes = static_cast<unsigned>(call.shared);
    params.kernelParams = call.args;
    return params;
  }
  void allow_shared(const KernelLaunch& call) {
    if (call.shared <= 48 * 1024 || !large_.insert(call.kernel).second) return;
    check(cudaFuncSetAttribute(call.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(facts_.block_shared)), call.name);
  }
  // Another library of the process may have chosen another device for this thread.
  void choose() {
    check_lost();
    check(cudaSetDevice(device_), "choosing the device");
  }
  // Launches that were asked for come first.
  void enter() {
    choose();
    queue_.send();
  }
  void open_check(cudaError_t e) {
    if (e == cudaSuccess) return;
    cudaGetLastError();
    close();
    if (e == cudaErrorMemoryAllocation) fail(KVASIR_MEMORY, "Cannot open cuda: the device's memory is out, end what else uses it");
    fail(KVASIR_DEVICE, "Cannot open cuda: %s (%d)", cudaGetErrorString(e), static_cast<int>(e));
  }
  void check(cudaError_t e, const char* what) {
    if (e == cudaSuccess) return;
    cudaGetLastError();
    if (e == cudaErrorMemoryAllocation) fail(KVASIR_MEMORY, "Cannot run cuda: out of memory in %s%s", what, kContextTooLarge);
    if (e == cudaErrorInvalidValue || e == cudaErrorInvalidConfiguration || e == cudaErrorLaunchOutOfResources ||
        e == cudaErrorNoKernelImageForDevice) {
      fail(KVASIR_INTERNAL, "Cannot run cuda: %s (%s)", cudaGetErrorString(e), what);  // refused, not begun
    }
    // All others are of kernels that ran before, and stay until the process drops the device.
    lose(std::string(cudaGetErrorString(e)) + " (seen in " + what + ")");
  }
  void close() noexcept {
    cudaSetDevice(device_);
    queue_.end();
    upload_ring_.reset();
    if (uploads_ != nullptr && !lost_.empty()) uploads_->abandon();
    uploads_.reset();
    if (!lost_.empty()) {
      cudaDeviceReset();  // nothing else brings its memory back; other contexts on the device are lost as well
      return;
    }
    for (cudaEvent_t e : marks_) if (e != nullptr) cudaEventDestroy(e);
    for (cudaEvent_t e : ring_events_) if (e != nullptr) cudaEventDestroy(e);
    if (copies_ != nullptr) {
      cudaStreamSynchronize(copies_);
      cudaStreamDestroy(copies_);
    }
    if (stream_ != nullptr) cudaStreamSynchronize(stream_);
    if (ring_host_ != nullptr) cudaFreeHost(ring_host_);
    if (ring_ != nullptr) cudaFreeAsync(ring_, stream_);
    if (stream_ != nullptr) {
      cudaStreamSynchronize(stream_);
      cudaStreamDestroy(stream_);
    }
    if (pool_ != nullptr) cudaMemPoolDestroy(pool_);
    marks_[0] = marks_[1] = ring_events_[0] = ring_events_[1] = nullptr;
    ring_host_ = ring_ = nullptr, stream_ = copies_ = nullptr, pool_ = nullptr;
  }

  const int device_;
  cudaStream_t stream_ = nullptr, copies_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
  uint8_t *ring_host_ = nullptr, *ring_ = nullptr;
  size_t half_ = 0, in_half_ = 0;
  cudaEvent_t ring_events_[2] = {}, marks_[2] = {};
  bool timing_ = false;
  std::unique_ptr<CudaUploads> uploads_;
  std::unique_ptr<UploadRing> upload_ring_;
  std::set<const void*> large_;  // kernels that may use more than 48 KB
};

}  // namespace

std::unique_ptr<Runtime> Runtime::open(const Options& options) { return std::make_unique<CudaRuntime>(options); }

}  // namespace kvasir
