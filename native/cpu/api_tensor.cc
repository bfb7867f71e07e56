// Tensors: make, view, write, read.
#include <cstring>

#include "context.h"
#include "tensor_checks.h"
#include "weights.h"

using namespace kvasir;

extern "C" {

int32_t kvasir_tensor_create(kvasir_context* ctx, kvasir_tensor* out, int32_t dtype, int32_t rank, const int32_t* shape,
                             int32_t lifetime) {
  return guard([&] { *out = ctx->table->create(dtype, rank, shape, lifetime); });
}

int32_t kvasir_tensor_view(kvasir_context* ctx, kvasir_tensor* out, kvasir_tensor parent, int32_t rank,
                           const int32_t* shape, double offset) {
  return guard([&] { *out = ctx->table->view(parent, rank, shape, offset); });
}

int32_t kvasir_tensor_destroy(kvasir_context* ctx, kvasir_tensor tensor) {
  return guard([&] { ctx->table->destroy(tensor); });
}

int32_t kvasir_tensor_write(kvasir_context* ctx, kvasir_tensor dst, const void* src, double bytes, int32_t row) {
  return guard([&] {
    Tensor& t = ctx->tensor(dst, "tensor to write");
    const int32_t rows = check_write(t, src, bytes, row);
    if (rows == 0) return;
    if (t.packed != nullptr) {
      weight_write(*ctx, *t.packed, row, rows, static_cast<const uint8_t*>(src));
      const size_t now = weight_bytes(*t.packed);
      ctx->table->live[t.lifetime] += static_cast<double>(now) - static_cast<double>(t.bytes);
      t.bytes = now;
      return;
    }
    std::memcpy(t.data + static_cast<size_t>(row) * t.row_bytes(), src, static_cast<size_t>(bytes));
  });
}

int32_t kvasir_tensor_copy(kvasir_context* ctx, kvasir_tensor dst, double at, kvasir_tensor src, double from,
                           double count) {
  return guard([&] {
    const Tensor &to = ctx->tensor(dst, "tensor to copy to"), &s = ctx->tensor(src, "tensor to copy");
    const TensorCopy copy = check_copy(to, at, s, from, count);
    if (copy.bytes > 0) std::memmove(copy.to, copy.from, copy.bytes);
  });
}

int32_t kvasir_tensor_read_rows(kvasir_context* ctx, void* dst, kvasir_tensor src, double bytes, int32_t row) {
  return guard([&] {
    const Tensor& t = ctx->tensor(src, "tensor to read");
    const uint8_t* from = check_read_rows(t, dst, bytes, row);
    if (bytes > 0) std::memcpy(dst, from, static_cast<size_t>(bytes));
  });
}

int32_t kvasir_tensor_read(kvasir_context* ctx, void* dst, kvasir_tensor src, double count) {
  return guard([&] {
    const Tensor& t = ctx->tensor(src, "tensor to read");
    const size_t n = check_read(t, dst, count);
    if (n > 0) widen(t.dtype, t.data, n, dst);
  });
}

void* kvasir_tensor_address(kvasir_context* ctx, kvasir_tensor tensor) {
  void* address = nullptr;
  guard([&] {
    const Tensor& t = ctx->tensor(tensor, "tensor to lend");
    if (t.packed != nullptr) fail(KVASIR_UNSUPPORTED, "Cannot lend tensor: weights are repacked");
    address = t.data;
  });
  return address;
}

kvasir_memory* kvasir_tensor_memory(kvasir_context* ctx, kvasir_tensor tensor) {
  kvasir_memory* memory = nullptr;
  guard([&] { memory = ctx->table->memory(tensor); });
  return memory;
}

}  // extern "C"
