// Arrays of the device for tests: exactly as large as what they hold, so that the emulation's guard zones lie around them.
#pragma once
#include <memory>
#include <vector>

#include "runtime.h"

namespace kvasir {

template <class T>
class DeviceArray {
 public:
  DeviceArray(Runtime& runtime, const std::vector<T>& values) : DeviceArray(runtime, values.size()) { write(values); }
  DeviceArray(Runtime& runtime, size_t count)
      : runtime_(&runtime), count_(count), data_(static_cast<T*>(runtime.allocate(count * sizeof(T)))) {}
  DeviceArray(DeviceArray&& other) noexcept : runtime_(other.runtime_), count_(other.count_), data_(other.data_) { other.data_ = nullptr; }
  DeviceArray(const DeviceArray&) = delete;
  ~DeviceArray() { runtime_->free(data_); }

  T* data() const { return data_; }
  size_t size() const { return count_; }
  void write(const std::vector<T>& values) {
    if (!values.empty()) runtime_->upload(data_, values.data(), values.size() * sizeof(T));
  }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    if (count_ > 0) runtime_->download(values.data(), data_, count_ * sizeof(T));
    return values;
  }

 private:
  Runtime* runtime_;
  size_t count_;
  T* data_;
};

}  // namespace kvasir
