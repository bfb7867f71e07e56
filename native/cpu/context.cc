#include "context.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "dtype.h"
#include "table.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace kvasir {
namespace {

thread_local char last_error[512] = "";

}  // namespace

void fail(int32_t status, const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw Error{status, text};
}

int32_t report(int32_t status, const char* message) {
  std::snprintf(last_error, sizeof last_error, "%s", message);
  return status;
}

int32_t report_current_exception() {
  try {
    throw;
  } catch (const Error& e) {
    return report(e.status, e.message.c_str());
  } catch (const std::bad_alloc&) {
    return report(KVASIR_MEMORY, "Cannot allocate: out of memory");
  } catch (const std::exception& e) {
    char text[512];
    std::snprintf(text, sizeof text, "Cannot run native call: internal error, %s", e.what());
    return report(KVASIR_INTERNAL, text);
  } catch (...) {
    return report(KVASIR_INTERNAL, "Cannot run native call: internal error of unknown type");
  }
}

const char* last_error_text() { return last_error; }

size_t Tensor::elements() const {
  size_t count = 1;
  for (int i = 0; i < rank; i++) count *= static_cast<size_t>(shape[i]);
  return count;
}

void* aligned_allocate(size_t bytes) {
  constexpr size_t kHuge = size_t{2} << 20;
  // Huge pages pay where tables are large (random rows); on small ones they would only round memory up.
  const bool huge = bytes >= size_t{64} << 20;
  const size_t alignment = huge ? kHuge : 64;
  if (bytes > SIZE_MAX - alignment) return nullptr;
  const size_t size = bytes == 0 ? 64 : (bytes + 63) / 64 * 64;
  void* data = nullptr;
  if (posix_memalign(&data, alignment, size) != 0) return nullptr;
#ifdef MADV_HUGEPAGE
  if (huge) madvise(data, size / kHuge * kHuge, MADV_HUGEPAGE);
#endif
  return data;
}

Scratch::~Scratch() { std::free(data_); }

void* Scratch::get(size_t bytes) {
  if (bytes <= bytes_ && data_ != nullptr) return data_;
  // Grown by half at least, so that slowly rising sizes do not reallocate at each call.
  const size_t size = bytes > bytes_ + bytes_ / 2 ? bytes : bytes_ + bytes_ / 2;
  std::free(data_);
  bytes_ = 0;
  data_ = aligned_allocate(size);
  if (data_ == nullptr) fail(KVASIR_MEMORY, "Cannot allocate scratch: out of memory for %zu bytes", size);
  bytes_ = size;
  return data_;
}

void expect_dtype(const Tensor& t, int32_t dtype, const char* what) {
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

kvasir_context::kvasir_context() : table(new Table) {}
kvasir_context::~kvasir_context() = default;

kvasir::Tensor& kvasir_context::tensor(kvasir_tensor id, const char* what) { return table->find(id, what).tensor; }
