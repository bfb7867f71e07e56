// Large writes to the device beside what it computes. The host copies a piece to pinned memory and goes on; a stream of their own brings it
// to memory of the device that nothing else uses, however long kernels still take; the kernels' stream takes it from there in its turn, so
// that the order of calls is the order of what they do, and memory that is written may be in use until then.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

// What is asked of the device: two streams, and events by number. runtime_cuda.cc has CUDA's, runtime_emulated.cc the host's twin.
class UploadStreams {
 public:
  enum class Lane { kKernels, kUploads };
  virtual ~UploadStreams() = default;
  // Memory of so many bytes that is pinned, and on the device; false where either is out. Ends with this.
  virtual bool allocate(size_t bytes, uint8_t** pinned, uint8_t** staging) = 0;
  virtual void copy(Lane lane, void* to, const void* from, size_t bytes) = 0;
  virtual void record(Lane lane, int event) = 0;  // it has happened when the lane has come here
  virtual void wait(Lane lane, int event) = 0;    // the lane goes on when the event was last recorded has happened, or was never
  virtual void wait(int event) = 0;               // the host does
};

class UploadRing {
 public:
  static constexpr size_t kPlace = size_t{512} << 10;
  static constexpr int kPlaces = 16, kEvents = 2 * kPlaces;

  explicit UploadRing(UploadStreams& streams) : streams_(streams) {}
  // from may change when it returns. Waits for the device only when all places are on their way. False where there is no memory for the
  // ring: nothing was done.
  bool upload(void* to, const void* from, size_t bytes);

 private:
  static int landed(int place) { return place; }
  static int taken(int place) { return kPlaces + place; }

  UploadStreams& streams_;
  uint8_t *pinned_ = nullptr, *staging_ = nullptr;
  int turn_ = 0;
  bool is_used_[kPlaces] = {}, is_refused_ = false;
};

}  // namespace kvasir
