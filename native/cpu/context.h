// What a context owns. Included by every api_*.cc.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "error.h"
#include "kvasir_backend.h"
#include "memory.h"
#include "pool.h"

namespace kvasir {

struct Isa;           // isa.h: kernel tables of one instruction set
struct PackedWeight;  // weights.h: a rank-2 "model" tensor in the kernels' panel layout

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

enum class Precision { kExact, kFast };  // activations in matmul: 16-bit planes, or one int8 plane as llama.cpp

}  // namespace kvasir

struct kvasir_context {
  std::unique_ptr<kvasir::Pool> pool;
  const kvasir::Isa* isa = nullptr;
  kvasir::Precision precision = kvasir::Precision::kExact;
  kvasir_executor executor{};            // the pool, lent
  kvasir::Scratch shared;                // used by the calling thread, between pool runs
  kvasir::Scratch operand;               // a product that only its own call sees: shared serves matmul itself
  std::vector<kvasir::Scratch> workers;  // one per pool worker

  // Throws Error{KVASIR_ARGUMENT} naming `what` when the id is stale, foreign or 0.
  kvasir::Tensor& tensor(kvasir_tensor id, const char* what);

  kvasir_context();
  ~kvasir_context();
  struct Table;  // slots with generations
  std::unique_ptr<Table> table;
  struct Files;  // tensor_file.h
  std::unique_ptr<Files> files;
};

namespace kvasir {

// Checks used by every kernel entry; they throw Error{KVASIR_ARGUMENT}.
void expect_dtype(const Tensor& t, int32_t dtype, const char* what);
void expect_shape(const Tensor& t, std::initializer_list<int32_t> shape, const char* what);

}  // namespace kvasir
