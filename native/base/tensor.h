// A tensor as a context's table keeps it, and the checks of every kernel entry.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>

#include "kvasir_abi.h"

namespace kvasir {

struct PackedWeight;  // each backend's own: a rank-2 "model" tensor in its kernels' layout

struct Tensor {
  int32_t dtype = 0;     // KVASIR_F32 ...
  int32_t rank = 0;
  int32_t shape[4] = {1, 1, 1, 1};
  int32_t lifetime = 0;  // KVASIR_MODEL ...
  uint8_t* data = nullptr;  // at least 64-byte aligned for owners; element-aligned for views; null for packed weights
  size_t bytes = 0;
  std::shared_ptr<PackedWeight> packed;  // rank-2 model tensors only (weights), any dtype; shared with nobody

  size_t elements() const;  // product of shape
  int32_t last() const { return shape[rank - 1]; }
  // Rows are the last dimension; all others together count them.
  size_t rows() const;
  size_t row_bytes() const;
  template <class T> T* as() const { return reinterpret_cast<T*>(data); }
};

// They throw Error{KVASIR_ARGUMENT}.
void expect_dtype(const Tensor& t, int32_t dtype, const char* what);
void expect_shape(const Tensor& t, std::initializer_list<int32_t> shape, const char* what);

}  // namespace kvasir
