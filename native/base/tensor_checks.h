// What kvasir_tensor_write, _copy and _read check, wherever memory lies. All throw Error.
#pragma once
#include <cstddef>
#include <cstdint>

#include "tensor.h"

namespace kvasir {

// Rows that `bytes` are.
int32_t check_write(const Tensor& t, const void* src, double bytes, int32_t row);
// Where and how much, in bytes.
struct TensorCopy {
  uint8_t* to;
  const uint8_t* from;
  size_t bytes;
};
TensorCopy check_copy(const Tensor& to, double at, const Tensor& src, double from, double count);
// Elements.
size_t check_read(const Tensor& t, const void* dst, double count);
// The first byte.
const uint8_t* check_read_rows(const Tensor& t, const void* dst, double bytes, int32_t row);
// Stored elements of a plain type to floats, or to int32.
void widen(int32_t dtype, const void* stored, size_t count, void* out);

}  // namespace kvasir
