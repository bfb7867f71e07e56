#include "device_scratch.h"

#include "error.h"
#include "runtime_fail.h"

namespace kvasir {

void* DeviceScratch::get(size_t bytes) {
  if (bytes <= bytes_) return data_;
  runtime.free(data_);
  data_ = nullptr, bytes_ = 0;
  // By an eighth more, so that lengths that creep up do not allocate each time.
  const size_t wanted = (bytes + bytes / 8 + 255) / 256 * 256;
  data_ = runtime.allocate(wanted);
  if (data_ == nullptr) fail(KVASIR_MEMORY, "Cannot run kernel: out of memory for %zu bytes%s", wanted, kContextTooLarge);
  bytes_ = wanted;
  return data_;
}

}  // namespace kvasir
