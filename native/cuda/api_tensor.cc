// Tensors: make, view, write, read.
#include <algorithm>
#include <cstring>
#include <vector>

#include "context.h"
#include "half.h"
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
      weight_write(*t.packed, row, rows, static_cast<const uint8_t*>(src));
      return;
    }
    const size_t at = static_cast<size_t>(row) * t.row_bytes();
    ctx->runtime->upload(t.data + at, src, static_cast<size_t>(bytes));
    if (t.dtype == KVASIR_I32) {
      std::vector<int32_t> values(static_cast<size_t>(bytes) / 4);
      std::memcpy(values.data(), src, values.size() * 4);
      ctx->ints.written(t.data, values.data(), at / 4, values.size(), t.elements());
    }
  });
}

int32_t kvasir_tensor_copy(kvasir_context* ctx, kvasir_tensor dst, double at, kvasir_tensor src, double from,
                           double count) {
  return guard([&] {
    const Tensor &to = ctx->tensor(dst, "tensor to copy to"), &s = ctx->tensor(src, "tensor to copy");
    const TensorCopy copy = check_copy(to, at, s, from, count);
    if (to.dtype == KVASIR_I32) ctx->ints.forget(to.data, to.bytes);
    if (copy.bytes > 0) ctx->runtime->copy(copy.to, copy.from, copy.bytes);
  });
}

int32_t kvasir_tensor_read_rows(kvasir_context* ctx, void* dst, kvasir_tensor src, double bytes, int32_t row) {
  return guard([&] {
    const Tensor& t = ctx->tensor(src, "tensor to read");
    const uint8_t* from = check_read_rows(t, dst, bytes, row);
    if (bytes == 0) return;
    ctx->runtime->download(dst, from, static_cast<size_t>(bytes));
    ctx->check_problem();
  });
}

int32_t kvasir_tensor_read(kvasir_context* ctx, void* dst, kvasir_tensor src, double count) {
  return guard([&] {
    const Tensor& t = ctx->tensor(src, "tensor to read");
    const size_t n = check_read(t, dst, count);
    if (n == 0) return;
    if (t.dtype == KVASIR_F32 || t.dtype == KVASIR_I32) {
      ctx->runtime->download(dst, t.data, n * 4);
      ctx->check_problem();
      return;
    }
    std::vector<uint8_t> stored(t.bytes);
    ctx->runtime->download(stored.data(), t.data, t.bytes);
    ctx->check_problem();
    widen(t.dtype, stored.data(), n, dst);
  });
}

int32_t kvasir_tensor_fetch(kvasir_context* ctx, int32_t* out, kvasir_tensor src) {
  return guard([&] {
    const Tensor& t = ctx->tensor(src, "tensor to fetch");
    if (t.dtype != KVASIR_F32 && t.dtype != KVASIR_I32) {
      fail(KVASIR_ARGUMENT, "Cannot fetch tensor: it is %s, expected f32 or i32", dtype_name(t.dtype));
    }
    auto free = std::find_if(ctx->fetches.begin(), ctx->fetches.end(), [](const auto& fetch) { return !fetch.used; });
    if (free == ctx->fetches.end()) free = ctx->fetches.insert(free, {ctx->runtime->make_host_copy(), 0, false});
    free->count = t.elements();
    if (free->count > 0) free->copy->begin(t.data, free->count * 4);
    free->used = true;
    *out = static_cast<int32_t>(free - ctx->fetches.begin()) + 1;
  });
}

int32_t kvasir_tensor_fetched(kvasir_context* ctx, void* dst, int32_t fetch, double count) {
  return guard([&] {
    if (fetch < 1 || static_cast<size_t>(fetch) > ctx->fetches.size() || !ctx->fetches[static_cast<size_t>(fetch) - 1].used) {
      fail(KVASIR_ARGUMENT, "Cannot take fetched tensor: %d is none that was begun", fetch);
    }
    kvasir_context::Fetch& f = ctx->fetches[static_cast<size_t>(fetch) - 1];
    if (dst != nullptr && count != static_cast<double>(f.count)) {
      fail(KVASIR_ARGUMENT, "Cannot take fetched tensor: room for %g elements, it has %zu", count, f.count);
    }
    f.used = false;
    if (dst != nullptr && f.count > 0) std::memcpy(dst, f.copy->wait(), f.count * 4);
  });
}

void* kvasir_tensor_address(kvasir_context* ctx, kvasir_tensor tensor) {
  void* address = nullptr;
  guard([&] {
    const Tensor& t = ctx->tensor(tensor, "tensor to lend");
    if (t.packed != nullptr) fail(KVASIR_UNSUPPORTED, "Cannot lend tensor: weights are repacked");
    // Whoever was lent it may write to it.
    if (t.dtype == KVASIR_I32) ctx->ints.forget(t.data, t.bytes);
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
