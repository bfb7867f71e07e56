// Memory of the device that grows and is kept: where kernels of several launches leave what the next one reads.
#pragma once
#include <cstddef>

#include "runtime.h"

namespace kvasir {

class DeviceScratch {
 public:
  explicit DeviceScratch(Runtime& runtime_) : runtime(runtime_) {}
  ~DeviceScratch() { runtime.free(data_); }
  DeviceScratch(const DeviceScratch&) = delete;
  DeviceScratch& operator=(const DeviceScratch&) = delete;
  void* get(size_t bytes);  // contents undefined, valid until the next get; throws Error{KVASIR_MEMORY}
  template <class T> T* array(size_t count) { return static_cast<T*>(get(count * sizeof(T))); }

  Runtime& runtime;

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace kvasir
