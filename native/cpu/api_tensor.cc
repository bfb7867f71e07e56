// Tensors: make, view, write, read.
#include <cmath>
#include <cstring>

#include "dtype.h"
#include "half.h"
#include "table.h"
#include "weights.h"

using namespace kvasir;

namespace {

// Rows are the last dimension; all others together count them.
size_t row_count(const Tensor& t) {
  size_t rows = 1;
  for (int32_t i = 0; i + 1 < t.rank; i++) rows *= static_cast<size_t>(t.shape[i]);
  return rows;
}

size_t row_bytes(const Tensor& t) {
  const DType& type = kDTypes[t.dtype];
  return static_cast<size_t>(t.last() / type.elements) * static_cast<size_t>(type.bytes);
}

}  // namespace

extern "C" {

int32_t kvasir_tensor_create(kvasir_context* ctx, kvasir_tensor* out, int32_t dtype, int32_t rank, const int32_t* shape,
                             int32_t lifetime) {
  return guard([&] { *out = ctx->table->create(*ctx, dtype, rank, shape, lifetime); });
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
    const size_t width = row_bytes(t), total = row_count(t);
    if (!(bytes >= 0) || bytes != std::floor(bytes) || bytes >= 0x1p50) {
      fail(KVASIR_ARGUMENT, "Cannot write tensor: %.17g is no count of bytes", bytes);
    }
    const size_t count = static_cast<size_t>(bytes);
    if (width == 0 ? count != 0 : count % width != 0) {
      fail(KVASIR_ARGUMENT, "Cannot write tensor: %zu bytes are not whole rows of %zu", count, width);
    }
    const size_t rows = width == 0 ? 0 : count / width;
    if (row < 0 || static_cast<size_t>(row) > total || rows > total - static_cast<size_t>(row)) {
      fail(KVASIR_ARGUMENT, "Cannot write tensor: %zu rows from row %d exceed the %zu it has", rows, row, total);
    }
    if (rows == 0) return;
    if (src == nullptr) fail(KVASIR_ARGUMENT, "Cannot write tensor: source is missing");
    if (t.packed != nullptr) {  // rank 2, so rows fit an int32
      weight_write(*ctx, *t.packed, row, static_cast<int32_t>(rows), static_cast<const uint8_t*>(src));
      const size_t now = weight_bytes(*t.packed);
      ctx->table->live[t.lifetime] += static_cast<double>(now) - static_cast<double>(t.bytes);
      t.bytes = now;
      return;
    }
    std::memcpy(t.data + static_cast<size_t>(row) * width, src, count);
  });
}

int32_t kvasir_tensor_copy(kvasir_context* ctx, kvasir_tensor dst, double at, kvasir_tensor src, double from,
                           double count) {
  return guard([&] {
    Tensor& to = ctx->tensor(dst, "tensor to copy to");
    const Tensor& s = ctx->tensor(src, "tensor to copy");
    if (to.packed != nullptr || s.packed != nullptr) fail(KVASIR_UNSUPPORTED, "Cannot copy tensor: weights are repacked");
    expect_dtype(to, s.dtype, "tensor to copy to");
    const auto within = [&](double first, const Tensor& t) {
      return first >= 0 && count >= 0 && first == std::floor(first) && count == std::floor(count) &&
             first + count <= static_cast<double>(t.elements());
    };
    if (!within(at, to) || !within(from, s)) {
      fail(KVASIR_ARGUMENT, "Cannot copy tensor: %.17g elements from %.17g of %zu to %.17g of %zu", count, from, s.elements(),
           at, to.elements());
    }
    const size_t size = static_cast<size_t>(kDTypes[s.dtype].bytes);
    std::memmove(to.data + static_cast<size_t>(at) * size, s.data + static_cast<size_t>(from) * size,
                 static_cast<size_t>(count) * size);
  });
}

int32_t kvasir_tensor_read_rows(kvasir_context* ctx, void* dst, kvasir_tensor src, double bytes, int32_t row) {
  return guard([&] {
    const Tensor& t = ctx->tensor(src, "tensor to read");
    if (t.packed != nullptr) fail(KVASIR_UNSUPPORTED, "Cannot read tensor: weights are repacked");
    const size_t width = static_cast<size_t>(t.last()), rows = width == 0 ? 0 : t.elements() / width;
    const size_t row_bytes = width * static_cast<size_t>(kDTypes[t.dtype].bytes);
    if (!(bytes >= 0) || row < 0 || static_cast<size_t>(row) > rows ||
        bytes > static_cast<double>((rows - static_cast<size_t>(row)) * row_bytes)) {
      fail(KVASIR_ARGUMENT, "Cannot read tensor: %.17g bytes from row %d on, it has %zu rows of %zu", bytes, row, rows, row_bytes);
    }
    if (bytes == 0) return;
    if (dst == nullptr) fail(KVASIR_ARGUMENT, "Cannot read tensor: destination is missing");
    std::memcpy(dst, t.data + static_cast<size_t>(row) * row_bytes, static_cast<size_t>(bytes));
  });
}

int32_t kvasir_tensor_read(kvasir_context* ctx, void* dst, kvasir_tensor src, double count) {
  return guard([&] {
    const Tensor& t = ctx->tensor(src, "tensor to read");
    if (t.packed != nullptr) fail(KVASIR_UNSUPPORTED, "Cannot read tensor: weights are repacked");
    const size_t n = t.elements();
    if (count != static_cast<double>(n)) {
      fail(KVASIR_ARGUMENT, "Cannot read tensor: room for %.17g elements, it has %zu", count, n);
    }
    if (n == 0) return;
    if (dst == nullptr) fail(KVASIR_ARGUMENT, "Cannot read tensor: destination is missing");
    float* floats = static_cast<float*>(dst);
    int32_t* ints = static_cast<int32_t*>(dst);
    switch (t.dtype) {
      case KVASIR_F32:
      case KVASIR_I32:
        std::memcpy(dst, t.data, n * 4);
        return;
      case KVASIR_F16:
        for (size_t i = 0; i < n; i++) floats[i] = half_to_float(t.as<uint16_t>()[i]);
        return;
      case KVASIR_BF16:
        for (size_t i = 0; i < n; i++) floats[i] = bfloat_to_float(t.as<uint16_t>()[i]);
        return;
      case KVASIR_I8:
        for (size_t i = 0; i < n; i++) ints[i] = t.as<int8_t>()[i];
        return;
      default:
        fail(KVASIR_INTERNAL, "Cannot read tensor: type %s in plain memory", dtype_name(t.dtype));
    }
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
