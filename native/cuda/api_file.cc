// Files of tensors: the host's library writes and maps them, from copies of rows (backends/device_files.ts).
#include "context.h"

using namespace kvasir;

namespace {

int32_t refuse() {
  return report(KVASIR_UNSUPPORTED, "Cannot save or map tensors: they lie in the memory of a device, copy their rows through the host");
}

}  // namespace

extern "C" {

int32_t kvasir_file_create(kvasir_context*, kvasir_file*, const char*) { return refuse(); }
int32_t kvasir_file_add(kvasir_context*, kvasir_file, const char*, const void*, double) { return refuse(); }
int32_t kvasir_file_add_rows(kvasir_context*, kvasir_file, const char*, const kvasir_tensor*, const int32_t*, int32_t) { return refuse(); }
int32_t kvasir_file_begin(kvasir_context*, kvasir_file, double*, char*, int32_t, const char*) { return refuse(); }
int32_t kvasir_file_end(kvasir_context*, kvasir_file, double) { return refuse(); }
int32_t kvasir_file_commit(kvasir_context*, kvasir_file) { return refuse(); }
int32_t kvasir_file_open(kvasir_context*, kvasir_file*, const char*) { return refuse(); }
int32_t kvasir_file_close(kvasir_context*, kvasir_file) { return refuse(); }
int32_t kvasir_file_find(kvasir_context*, kvasir_file, double*, const char*) { return refuse(); }
int32_t kvasir_file_verify(kvasir_context*, kvasir_file) { return refuse(); }
int32_t kvasir_file_read(kvasir_context*, kvasir_file, void*, double, const char*) { return refuse(); }
int32_t kvasir_tensor_map(kvasir_context*, kvasir_tensor*, kvasir_file, const char*, int32_t, int32_t, const int32_t*) { return refuse(); }

}  // extern "C"
