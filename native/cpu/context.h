// What a context owns. Included by every api_*.cc.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "error.h"
#include "kvasir_backend.h"
#include "memory.h"
#include "pool.h"
#include "table.h"

namespace kvasir {

struct Isa;           // isa.h: kernel tables of one instruction set

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
  // Who has rounded which share of a product's rows: the product's number.
  struct alignas(64) QuantizeMark {
    std::atomic<uint64_t> taken{0}, done{0};
  };
  std::vector<QuantizeMark> quantized;  // one per pool worker
  uint64_t quantize_number = 0;

  // Throws Error{KVASIR_ARGUMENT} naming `what` when the id is stale, foreign or 0.
  kvasir::Tensor& tensor(kvasir_tensor id, const char* what) { return table->tensor(id, what); }

  kvasir_context();
  ~kvasir_context();
  std::unique_ptr<kvasir::TensorMemory> tensors;
  std::unique_ptr<kvasir::Table> table;
  struct Files;  // tensor_file.h
  std::unique_ptr<Files> files;
};
