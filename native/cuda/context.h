// What a context owns. Included by every api_*.cc and by the files with kernels.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "device_scratch.h"
#include "error.h"
#include "kvasir_backend.h"
#include "runtime.h"
#include "table.h"

namespace kvasir {

// What the host wrote to small tensors of integers, so that ids are checked without waiting for the device.
class HostInts {
 public:
  void written(const uint8_t* data, const int32_t* values, size_t first, size_t count, size_t total);
  void forget(const uint8_t* data, size_t bytes);  // a kernel writes there, or the memory ends
  const int32_t* find(const uint8_t* data, size_t count) const;  // null: unknown

 private:
  static constexpr size_t kMostValues = 1 << 16;
  std::map<const uint8_t*, std::vector<int32_t>> known_;
};

// The context that an executor is of; throws Error{KVASIR_UNSUPPORTED} where it is another library's.
kvasir_context& context_of(const kvasir_executor* executor);

}  // namespace kvasir

struct kvasir_context {
  std::shared_ptr<kvasir::Runtime> runtime;  // memory lent to an index holds it too
  kvasir::HostInts ints;
  std::unique_ptr<kvasir::TensorMemory> tensors;
  std::unique_ptr<kvasir::Table> table;
  std::unique_ptr<kvasir::DeviceScratch> scratch, operand;  // operand: a product only its own call sees, while matmul uses scratch
  std::unique_ptr<kvasir::DeviceScratch> attention;         // partial results of splits

  // Copies that were begun; one that was taken serves the next.
  struct Fetch {
    std::unique_ptr<kvasir::HostCopy> copy;
    size_t count = 0;
    bool used = false;
  };
  std::vector<Fetch> fetches;

  kvasir_executor executor;  // one thread: by it an index library knows whose device it works on

  explicit kvasir_context(std::unique_ptr<kvasir::Runtime> device);
  ~kvasir_context();

  uint32_t* problem;  // pinned: where kernels note what they find wrong in data (problem.h)

  // Throws Error{KVASIR_ARGUMENT} naming `what` when the id is stale, foreign or 0.
  kvasir::Tensor& tensor(kvasir_tensor id, const char* what) { return table->tensor(id, what); }
  // Fails with what kernels noted, once. For after the device was waited for.
  void check_problem();
  // The contents of a tensor of integers, on the host; waits for the device only if a kernel made them. Valid until the next call.
  const int32_t* host_ints(const kvasir::Tensor& t);

 private:
  std::vector<int32_t> fetched_;
};
