// What a context owns, and the guard that turns C++ errors into statuses. Included by every api_*.cc.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "kvasir_backend.h"
#include "pool.h"

namespace kvasir {

struct Isa;           // isa.h: kernel tables of one instruction set
struct PackedWeight;  // weights.h: a rank-2 "model" tensor in the kernels' panel layout

// Thrown inside the library only; guard() turns it into its status.
struct Error {
  int32_t status;
  std::string message;
};
[[noreturn]] void fail(int32_t status, const char* format, ...) __attribute__((format(printf, 2, 3)));

struct Tensor {
  int32_t dtype = 0;     // KVASIR_F32 ...
  int32_t rank = 0;
  int32_t shape[4] = {1, 1, 1, 1};
  int32_t lifetime = 0;  // KVASIR_MODEL ...
  uint8_t* data = nullptr;         // 64-byte aligned for owners; element-aligned for views; null for packed weights
  size_t bytes = 0;
  std::unique_ptr<PackedWeight> packed;  // rank-2 model tensors only (weights), any dtype

  size_t elements() const;  // product of shape
  int32_t last() const { return shape[rank - 1]; }
  template <class T> T* as() const { return reinterpret_cast<T*>(data); }
};

// Scratch that grows and is kept: one per worker plus one shared. 64-byte aligned.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* get(size_t bytes);  // contents undefined; valid until the next get; throws Error{KVASIR_MEMORY}
  size_t bytes() const { return bytes_; }
 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

enum class Precision { kExact, kFast };  // activations in matmul: 16-bit planes, or one int8 plane as llama.cpp

}  // namespace kvasir

struct kvasir_context {
  std::unique_ptr<kvasir::Pool> pool;
  const kvasir::Isa* isa = nullptr;
  kvasir::Precision precision = kvasir::Precision::kExact;
  kvasir::Scratch shared;                // used by the calling thread, between pool runs
  std::vector<kvasir::Scratch> workers;  // one per pool worker

  // Throws Error{KVASIR_ARGUMENT} naming `what` when the id is stale, foreign or 0.
  kvasir::Tensor& tensor(kvasir_tensor id, const char* what);

  kvasir_context();
  ~kvasir_context();
  struct Table;  // slots with generations
  std::unique_ptr<Table> table;
};

namespace kvasir {

int32_t report(int32_t status, const char* message);  // remembers the sentence for kvasir_last_error
int32_t report_current_exception();

// Runs body; exceptions (Error, bad_alloc, anything) become a status and a sentence. Nothing escapes.
template <class F>
int32_t guard(F&& body) noexcept {
  try {
    body();
    return KVASIR_OK;
  } catch (...) {
    return report_current_exception();
  }
}

// Checks used by every kernel entry; they throw Error{KVASIR_ARGUMENT}.
void expect_dtype(const Tensor& t, int32_t dtype, const char* what);
void expect_shape(const Tensor& t, std::initializer_list<int32_t> shape, const char* what);

}  // namespace kvasir
