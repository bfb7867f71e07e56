#include "weights.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#define KVASIR_HAS_MMAP 1
#endif

#include "context.h"

namespace kvasir {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMapped = 2 * kHugePage;  // from here on; others share huge pages

// Weights are zeros on pages that the repacking threads touch first (in parallel, on their own memory node), huge ones where
// the system grants them: decode reads them in one stream.
void allocate(PackedWeight& w, size_t bytes) {
  w.bytes = std::max<size_t>((bytes + 63) / 64 * 64, 64);
#if KVASIR_HAS_MMAP
  if (w.bytes >= kMapped) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), align = kHugePage;
    const size_t size = (w.bytes + page - 1) / page * page;
    // Over-ask by one huge page, then trim to its boundary.
    const size_t asked = size + align - page;
    void* raw = mmap(nullptr, asked, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) throw std::bad_alloc();
    uint8_t* begin = static_cast<uint8_t*>(raw);
    const size_t head = (align - reinterpret_cast<uintptr_t>(begin) % align) % align;
    if (head > 0) munmap(begin, head);
    if (asked - head > size) munmap(begin + head + size, asked - head - size);
    w.data = begin + head;
    w.bytes = size;
    w.mapped = true;
#ifdef MADV_HUGEPAGE
    madvise(w.data, size, MADV_HUGEPAGE);  // advice: refusal changes speed only
#endif
    return;
  }
#endif
  w.data = static_cast<uint8_t*>(aligned_zeroed(w.bytes));
  if (w.data == nullptr) throw std::bad_alloc();
}

}  // namespace

PackedWeight::~PackedWeight() {
#if KVASIR_HAS_MMAP
  if (mapped) {
    munmap(data, bytes);
    return;
  }
#endif
  aligned_free(data);
}

PanelLayout panel_layout(int32_t dtype) {
  switch (dtype) {
    case KVASIR_F32: return {1, 0, 64};
    case KVASIR_F16:
    case KVASIR_BF16: return {1, 0, 32};
    case KVASIR_Q4_0:
    case KVASIR_IQ4_NL: return {64, 64, 256};
    case KVASIR_Q4_1: return {32, 64, 256};
    case KVASIR_Q5_0: return {64, 64, 320};
    case KVASIR_Q5_1: return {32, 64, 320};
    case KVASIR_Q8_0: return {64, 64, 512};
    case KVASIR_Q3_K: return {256, 320, 192};
    case KVASIR_Q4_K: return {256, 320, 256};
    case KVASIR_Q5_K: return {256, 320, 320};
    case KVASIR_Q6_K: return {256, 320, 384};
    default: return {0, 0, 0};
  }
}

std::shared_ptr<PackedWeight> weight_create(int32_t dtype, int32_t rows, int32_t cols) {
  const QuantInfo* info = quant_info(dtype);
  if (!info) fail(KVASIR_ARGUMENT, "Cannot create weight: type %d is no weight type", dtype);
  if (rows < 0 || cols < 0) fail(KVASIR_ARGUMENT, "Cannot create weight: shape [%d, %d] is negative", rows, cols);
  if (cols % info->elements != 0) {
    fail(KVASIR_ARGUMENT, "Cannot create weight: %d columns are not whole blocks of %d (%s)", cols, info->elements,
         info->name);
  }
  auto w = std::make_shared<PackedWeight>();
  w->dtype = dtype;
  w->rows = rows;
  w->cols = cols;
  w->layout = panel_layout(dtype);
  w->data = nullptr;
  w->mapped = false;
  const size_t k = static_cast<size_t>(cols), unit = static_cast<size_t>(w->layout.unit_k);
  const size_t step = info->elements == 1 ? 1 : 32;
  // At most 2^31 columns × 64 bytes: no overflow. A last half unit keeps a whole header.
  w->panel_bytes = (k + unit - 1) / unit * static_cast<size_t>(w->layout.header_bytes) +
                   k / step * static_cast<size_t>(w->layout.block_bytes);
  w->panel_bytes = (w->panel_bytes + 63) / 64 * 64;
  size_t bytes = 0;
  if (__builtin_mul_overflow(w->panel_bytes, static_cast<size_t>(w->panels()), &bytes) || bytes > SIZE_MAX / 2) {
    throw std::bad_alloc();
  }
  allocate(*w, bytes);
  return w;
}

void weight_write(kvasir_context& ctx, PackedWeight& w, int32_t row, int32_t rows, const uint8_t* src) {
  if (row < 0 || rows < 0 || row > w.rows - rows) {
    fail(KVASIR_ARGUMENT, "Cannot write weight: rows %d to %lld of %d", row, static_cast<long long>(row) + rows,
         w.rows);
  }
  if (rows == 0 || w.cols == 0) return;
  const size_t row_bytes = quant_row_bytes(*quant_info(w.dtype), w.cols);
  const int first = row / kPanelRows, last = (row + rows - 1) / kPanelRows;
  // A task owns whole panels: neighbouring rows share bytes of the mask planes. About 256 KB a task.
  const int per_task = static_cast<int>(std::max<size_t>(1, (size_t{256} << 10) / w.panel_bytes));
  ctx.pool->run((last - first) / per_task + 1, [&](int task, int) {
    const int begin = first + task * per_task, end = std::min(begin + per_task, last + 1);
    for (int p = begin; p < end; ++p) {
      const int r0 = std::max(row, p * kPanelRows), r1 = std::min(row + rows, (p + 1) * kPanelRows);
      uint8_t* panel = w.data + static_cast<size_t>(p) * w.panel_bytes;
      for (int r = r0; r < r1; ++r) pack_row(w, panel, r % kPanelRows, src + static_cast<size_t>(r - row) * row_bytes);
    }
  });
}

size_t weight_bytes(const PackedWeight& w) { return w.bytes; }

void weight_read_row(const PackedWeight& w, int32_t row, float* out) {
  unpack_row(w, w.panel(row / kPanelRows), row % kPanelRows, out);
}

}  // namespace kvasir
