// Where kernels of several launches leave what the next one reads: memory of the device that grows and is used again.
#pragma once
#include <cstddef>

#include "error.h"
#include "runtime.h"

namespace kvasir {

class Workspace {
 public:
  explicit Workspace(Runtime& runtime_) : runtime(runtime_) {}
  ~Workspace() { runtime.free(data_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  // Valid until the next call; contents are undefined. Throws Error{KVASIR_MEMORY}.
  void* get(size_t bytes) {
    if (bytes <= bytes_) return data_;
    const size_t wanted = bytes + bytes / 2;
    runtime.free(data_);
    bytes_ = 0;
    data_ = runtime.allocate(wanted);
    if (data_ == nullptr) fail(KVASIR_MEMORY, "Cannot attend: the device has no %zu bytes for partial results", wanted);
    bytes_ = wanted;
    return data_;
  }

  Runtime& runtime;

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace kvasir
