#include "context.h"

#include "dtype.h"
#include "table.h"
#include "tensor_file.h"

namespace kvasir {

size_t Tensor::elements() const {
  size_t count = 1;
  for (int i = 0; i < rank; i++) count *= static_cast<size_t>(shape[i]);
  return count;
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

kvasir_context::kvasir_context() : table(new Table), files(new Files) {}
kvasir_context::~kvasir_context() = default;

kvasir::Tensor& kvasir_context::tensor(kvasir_tensor id, const char* what) { return table->find(id, what).tensor; }
