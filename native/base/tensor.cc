#include "tensor.h"

#include "dtype.h"
#include "error.h"

namespace kvasir {

size_t Tensor::elements() const {
  size_t count = 1;
  for (int i = 0; i < rank; i++) count *= static_cast<size_t>(shape[i]);
  return count;
}

size_t Tensor::rows() const {
  size_t count = 1;
  for (int32_t i = 0; i + 1 < rank; i++) count *= static_cast<size_t>(shape[i]);
  return count;
}

size_t Tensor::row_bytes() const {
  const DType& type = kDTypes[dtype];
  return static_cast<size_t>(last() / type.elements) * static_cast<size_t>(type.bytes);
}

void expect_dtype(const Tensor& t, int32_t dtype, const char* what) {
  if (t.packed != nullptr) fail(KVASIR_ARGUMENT, "Cannot use %s: it is a matrix of weights, which were repacked", what);
  if (t.dtype != dtype) {
    fail(KVASIR_ARGUMENT, "Cannot use %s: type %s, expected %s", what, dtype_name(t.dtype), dtype_name(dtype));
  }
}

void expect_shape(const Tensor& t, std::initializer_list<int32_t> shape, const char* what) {
  bool same = t.rank == static_cast<int32_t>(shape.size());
  int i = 0;
  for (int32_t d : shape) {
    if (same && t.shape[i] != d) same = false;
    i++;
  }
  if (same) return;
  const std::string got = shape_text(t.shape, t.rank);
  const std::string want = shape_text(shape.begin(), static_cast<int32_t>(shape.size()));
  fail(KVASIR_ARGUMENT, "Cannot use %s: shape %s, expected %s", what, got.c_str(), want.c_str());
}

}  // namespace kvasir
