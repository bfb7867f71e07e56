#include "tensor_checks.h"

#include <cmath>
#include <cstring>

#include "dtype.h"
#include "error.h"
#include "half.h"

namespace kvasir {

int32_t check_write(const Tensor& t, const void* src, double bytes, int32_t row) {
  const size_t width = t.row_bytes(), total = t.rows();
  if (!(bytes >= 0) || bytes != std::floor(bytes) || bytes >= 0x1p50) {
    fail(KVASIR_ARGUMENT, "Cannot write tensor: %.17g is no count of bytes", bytes);
  }
  const size_t count = static_cast<size_t>(bytes);
  if (width == 0 ? count != 0 : count % width != 0) {
    fail(KVASIR_ARGUMENT, "Cannot write tensor: %zu bytes are not whole rows of %zu", count, width);
  }
  const size_t rows = width == 0 ? 0 : count / width;
  if (row < 0 || static_cast<size_t>(row) > total || rows > total - static_cast<size_t>(row) || rows > INT32_MAX) {
    fail(KVASIR_ARGUMENT, "Cannot write tensor: %zu rows from row %d exceed the %zu it has", rows, row, total);
  }
  if (rows > 0 && src == nullptr) fail(KVASIR_ARGUMENT, "Cannot write tensor: source is missing");
  return static_cast<int32_t>(rows);
}

TensorCopy check_copy(const Tensor& to, double at, const Tensor& src, double from, double count) {
  if (to.packed != nullptr || src.packed != nullptr) fail(KVASIR_UNSUPPORTED, "Cannot copy tensor: weights are repacked");
  expect_dtype(to, src.dtype, "tensor to copy to");
  const auto within = [&](double first, const Tensor& t) {
    return first >= 0 && count >= 0 && first == std::floor(first) && count == std::floor(count) &&
           first + count <= static_cast<double>(t.elements());
  };
  if (!within(at, to) || !within(from, src)) {
    fail(KVASIR_ARGUMENT, "Cannot copy tensor: %.17g elements from %.17g of %zu to %.17g of %zu", count, from, src.elements(), at,
         to.elements());
  }
  const size_t size = static_cast<size_t>(kDTypes[src.dtype].bytes);
  return {to.data + static_cast<size_t>(at) * size, src.data + static_cast<size_t>(from) * size, static_cast<size_t>(count) * size};
}

size_t check_read(const Tensor& t, const void* dst, double count) {
  if (t.packed != nullptr) fail(KVASIR_UNSUPPORTED, "Cannot read tensor: weights are repacked");
  const size_t n = t.elements();
  if (count != static_cast<double>(n)) {
    fail(KVASIR_ARGUMENT, "Cannot read tensor: room for %.17g elements, it has %zu", count, n);
  }
  if (n > 0 && dst == nullptr) fail(KVASIR_ARGUMENT, "Cannot read tensor: destination is missing");
  return n;
}

const uint8_t* check_read_rows(const Tensor& t, const void* dst, double bytes, int32_t row) {
  if (t.packed != nullptr) fail(KVASIR_UNSUPPORTED, "Cannot read tensor: weights are repacked");
  const size_t width = static_cast<size_t>(t.last()), rows = width == 0 ? 0 : t.elements() / width;
  const size_t row_bytes = width * static_cast<size_t>(kDTypes[t.dtype].bytes);
  if (!(bytes >= 0) || row < 0 || static_cast<size_t>(row) > rows ||
      bytes > static_cast<double>((rows - static_cast<size_t>(row)) * row_bytes)) {
    fail(KVASIR_ARGUMENT, "Cannot read tensor: %.17g bytes from row %d on, it has %zu rows of %zu", bytes, row, rows, row_bytes);
  }
  if (bytes > 0 && dst == nullptr) fail(KVASIR_ARGUMENT, "Cannot read tensor: destination is missing");
  return t.data + static_cast<size_t>(row) * row_bytes;
}

void widen(int32_t dtype, const void* stored, size_t count, void* out) {
  const uint16_t* shorts = static_cast<const uint16_t*>(stored);
  float* floats = static_cast<float*>(out);
  switch (dtype) {
    case KVASIR_F32:
    case KVASIR_I32:
      std::memcpy(out, stored, count * 4);
      return;
    case KVASIR_F16:
      for (size_t i = 0; i < count; i++) floats[i] = half_to_float(shorts[i]);
      return;
    case KVASIR_BF16:
      for (size_t i = 0; i < count; i++) floats[i] = bfloat_to_float(shorts[i]);
      return;
    case KVASIR_I8:
      for (size_t i = 0; i < count; i++) static_cast<int32_t*>(out)[i] = static_cast<const int8_t*>(stored)[i];
      return;
    default:
      fail(KVASIR_INTERNAL, "Cannot read tensor: type %s in plain memory", dtype_name(dtype));
  }
}

}  // namespace kvasir
