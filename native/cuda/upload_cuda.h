// The streams of upload_ring.h over CUDA. For runtime_cuda.cc, whose stream and pool they are.
#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <utility>

#include "upload_ring.h"

namespace kvasir {

class CudaUploads final : public UploadStreams {
 public:
  // check(status, what) throws for what is none of success.
  using Check = std::function<void(cudaError_t, const char*)>;

  CudaUploads(cudaStream_t kernels, cudaMemPool_t pool, Check check) : kernels_(kernels), pool_(pool), check_(std::move(check)) {}
  ~CudaUploads() override { release(); }
  // The device is lost, and all of this with it.
  void abandon() noexcept { is_abandoned_ = true; }

  bool allocate(size_t bytes, uint8_t** pinned, uint8_t** staging) override {
    bool made = cudaStreamCreateWithFlags(&uploads_, cudaStreamNonBlocking) == cudaSuccess;
    for (cudaEvent_t& e : events_) made = made && cudaEventCreateWithFlags(&e, cudaEventDisableTiming) == cudaSuccess;
    made = made && cudaMallocHost(reinterpret_cast<void**>(&pinned_), bytes) == cudaSuccess &&
           cudaMallocFromPoolAsync(reinterpret_cast<void**>(&staging_), bytes, pool_, kernels_) == cudaSuccess;
    if (!made) {
      cudaGetLastError();
      release();
      return false;
    }
    // Memory of a pool is there for other streams once its own has come to where it was asked for.
    record(Lane::kKernels, 0);
    wait(Lane::kUploads, 0);
    *pinned = pinned_, *staging = staging_;
    return true;
  }
  void copy(Lane lane, void* to, const void* from, size_t bytes) override {
    check_(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream(lane)), kWhat);
  }
  void record(Lane lane, int event) override { check_(cudaEventRecord(events_[event], stream(lane)), kWhat); }
  void wait(Lane lane, int event) override { check_(cudaStreamWaitEvent(stream(lane), events_[event], 0), kWhat); }
  void wait(int event) override { check_(cudaEventSynchronize(events_[event]), "running kernels"); }

 private:
  static constexpr const char* kWhat = "a copy to the device";
  void release() noexcept {
    if (is_abandoned_) return;
    if (uploads_ != nullptr) cudaStreamSynchronize(uploads_);
    if (staging_ != nullptr) cudaFreeAsync(staging_, kernels_);
    if (pinned_ != nullptr) cudaFreeHost(pinned_);
    for (cudaEvent_t& e : events_) if (e != nullptr) cudaEventDestroy(std::exchange(e, nullptr));
    if (uploads_ != nullptr) cudaStreamDestroy(uploads_);
    uploads_ = nullptr, pinned_ = staging_ = nullptr;
  }
  cudaStream_t stream(Lane lane) const { return lane == Lane::kKernels ? kernels_ : uploads_; }

  const cudaStream_t kernels_;
  const cudaMemPool_t pool_;
  const Check check_;
  cudaStream_t uploads_ = nullptr;
  cudaEvent_t events_[UploadRing::kEvents] = {};
  uint8_t *pinned_ = nullptr, *staging_ = nullptr;
  bool is_abandoned_ = false;
};

}  // namespace kvasir
