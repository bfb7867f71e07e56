// Files of tensors: writing them, mapping them.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "dtype.h"
#include "table.h"
#include "tensor_file.h"

using namespace kvasir;

namespace {

TensorFileWriter& writer_of(kvasir_context* ctx, kvasir_file id) {
  const auto found = ctx->files->writers.find(id);
  if (found == ctx->files->writers.end()) fail(KVASIR_ARGUMENT, "Cannot save context: file id %u is stale or foreign", id);
  return *found->second;
}

TensorFile& file_of(kvasir_context* ctx, kvasir_file id) {
  const auto found = ctx->files->files.find(id);
  if (found == ctx->files->files.end()) fail(KVASIR_ARGUMENT, "Cannot use context file: id %u is stale or foreign", id);
  return *found->second;
}

const char* expect_text(const char* text, const char* what) {
  if (text == nullptr || *text == 0) fail(KVASIR_ARGUMENT, "Cannot use context file: its %s is empty", what);
  return text;
}

uint64_t expect_count(double value, const char* what) {
  if (!(value >= 0) || value != std::floor(value) || value >= 0x1p50) {
    fail(KVASIR_ARGUMENT, "Cannot use context file: %s is %.17g", what, value);
  }
  return static_cast<uint64_t>(value);
}

// One tensor of [heads, capacity, ...]: the bytes of a row.
size_t row_bytes(const Tensor& t) {
  size_t elements = 1;
  for (int32_t i = 2; i < t.rank; i++) elements *= static_cast<size_t>(t.shape[i]);
  return elements * static_cast<size_t>(kDTypes[t.dtype].bytes);
}

}  // namespace

extern "C" {

int32_t kvasir_file_create(kvasir_context* ctx, kvasir_file* out, const char* path) {
  return guard([&] {
    auto writer = std::make_unique<TensorFileWriter>(expect_text(path, "path"));
    *out = ++ctx->files->last;
    ctx->files->writers.emplace(*out, std::move(writer));
  });
}

int32_t kvasir_file_add(kvasir_context* ctx, kvasir_file file, const char* name, const void* data, double bytes) {
  return guard([&] {
    TensorFileWriter& writer = writer_of(ctx, file);
    const uint64_t count = expect_count(bytes, "size of a section");
    if (data == nullptr && count > 0) fail(KVASIR_ARGUMENT, "Cannot save context: section \"%.40s\" is missing", name);
    writer.begin(expect_text(name, "section name"));
    writer.write(data, static_cast<size_t>(count));
    writer.end();
  });
}

int32_t kvasir_file_add_rows(kvasir_context* ctx, kvasir_file file, const char* name, const kvasir_tensor* tensors,
                             const int32_t* rows, int32_t count) {
  return guard([&] {
    TensorFileWriter& writer = writer_of(ctx, file);
    if (count < 0 || (count > 0 && (tensors == nullptr || rows == nullptr))) {
      fail(KVASIR_ARGUMENT, "Cannot save context: %d tensors without a list", count);
    }
    std::vector<const Tensor*> parts;
    for (int32_t i = 0; i < count; i++) {
      const Tensor& t = ctx->tensor(tensors[i], "tensor to save");
      if (t.packed != nullptr || t.rank < 2) fail(KVASIR_ARGUMENT, "Cannot save tensor: expected [heads, capacity, ...]");
      if (rows[i] < 0 || rows[i] > t.shape[1] || t.shape[0] != ctx->tensor(tensors[0], "tensor to save").shape[0] ||
          row_bytes(t) != row_bytes(*(parts.empty() ? &t : parts[0]))) {
        fail(KVASIR_ARGUMENT, "Cannot save tensor %d: %d rows of %s do not follow the one before", i, rows[i],
             shape_text(t.shape, t.rank).c_str());
      }
      parts.push_back(&t);
    }
    writer.begin(expect_text(name, "section name"));
    for (int32_t head = 0; head < (parts.empty() ? 0 : parts[0]->shape[0]); head++) {
      for (size_t i = 0; i < parts.size(); i++) {
        const size_t width = row_bytes(*parts[i]);
        writer.write(parts[i]->data + static_cast<size_t>(head) * static_cast<size_t>(parts[i]->shape[1]) * width,
                     static_cast<size_t>(rows[i]) * width);
      }
    }
    writer.end();
  });
}

int32_t kvasir_file_begin(kvasir_context* ctx, kvasir_file file, double* offset, char* path, int32_t cap, const char* name) {
  return guard([&] {
    TensorFileWriter& writer = writer_of(ctx, file);
    if (cap <= static_cast<int32_t>(writer.part_path().size())) fail(KVASIR_CAPACITY, "Cannot save context: the path is longer");
    writer.begin(expect_text(name, "section name"));
    copy_text(path, cap, writer.part_path().c_str());
    *offset = static_cast<double>(writer.offset());
  });
}

int32_t kvasir_file_end(kvasir_context* ctx, kvasir_file file, double bytes) {
  return guard([&] { writer_of(ctx, file).end_foreign(expect_count(bytes, "size of a section")); });
}

int32_t kvasir_file_commit(kvasir_context* ctx, kvasir_file file) {
  return guard([&] { writer_of(ctx, file).commit(); });
}

int32_t kvasir_file_open(kvasir_context* ctx, kvasir_file* out, const char* path) {
  return guard([&] {
    auto opened = std::make_shared<TensorFile>(expect_text(path, "path"));
    *out = ++ctx->files->last;
    ctx->files->files.emplace(*out, std::move(opened));
  });
}

int32_t kvasir_file_close(kvasir_context* ctx, kvasir_file file) {
  return guard([&] {
    if (ctx->files->writers.erase(file) + ctx->files->files.erase(file) == 0) {
      fail(KVASIR_ARGUMENT, "Cannot close context file: id %u is stale or foreign", file);
    }
  });
}

int32_t kvasir_file_find(kvasir_context* ctx, kvasir_file file, double* place, const char* name) {
  return guard([&] {
    const TensorFile& f = file_of(ctx, file);
    const TensorFileSection& s = f.section(f.find(expect_text(name, "section name")));
    place[0] = static_cast<double>(s.offset);
    place[1] = static_cast<double>(s.bytes);
  });
}

int32_t kvasir_file_verify(kvasir_context* ctx, kvasir_file file) {
  return guard([&] {
    TensorFile& f = file_of(ctx, file);
    // The largest first, or one thread would be left with it.
    std::vector<uint32_t> order(f.sections());
    for (uint32_t i = 0; i < f.sections(); i++) order[i] = i;
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return f.section(a).bytes > f.section(b).bytes; });
    ctx->pool->run(static_cast<int>(order.size()), [&](int task, int) { f.verify(order[static_cast<size_t>(task)]); });
    for (uint32_t i = 0; i < f.sections(); i++) f.expect_valid(i);
  });
}

int32_t kvasir_file_read(kvasir_context* ctx, kvasir_file file, void* dst, double bytes, const char* name) {
  return guard([&] {
    TensorFile& f = file_of(ctx, file);
    const uint32_t i = f.find(expect_text(name, "section name"));
    f.expect_valid(i);
    if (expect_count(bytes, "size of a section") != f.section(i).bytes) {
      fail(KVASIR_ARGUMENT, "Cannot read section \"%.40s\": it has %llu bytes, room is for %.17g", name,
           static_cast<unsigned long long>(f.section(i).bytes), bytes);
    }
    std::memcpy(dst, f.data(i), static_cast<size_t>(f.section(i).bytes));
  });
}

int32_t kvasir_tensor_map(kvasir_context* ctx, kvasir_tensor* out, kvasir_file file, const char* name, int32_t dtype,
                          int32_t rank, const int32_t* shape) {
  return guard([&] {
    TensorFile& f = file_of(ctx, file);
    const uint32_t i = f.find(expect_text(name, "section name"));
    f.expect_valid(i);
    *out = ctx->table->map(dtype, rank, shape, f.data(i), static_cast<size_t>(f.section(i).bytes), f.holder());
  });
}

}  // extern "C"
