// Saving indexes to files and opening them again.
#include <cmath>

#include "context.h"
#include "error.h"
#include "index_file.h"

using namespace kvasir;

extern "C" {

int32_t kvasir_index_save(kvasir_index_context* ctx, kvasir_index index, const char* path) {
  return guard([&] {
    if (path == nullptr || *path == 0) fail(KVASIR_ARGUMENT, "Cannot save index: the path is empty");
    save_index_file(path, ctx->index(index));
  });
}

int32_t kvasir_index_save_into(kvasir_index_context* ctx, kvasir_index index, double* bytes, const char* path, double offset) {
  return guard([&] {
    if (path == nullptr || *path == 0) fail(KVASIR_ARGUMENT, "Cannot save index: the path is empty");
    if (!(offset >= 0 && offset < 0x1p50) || std::fmod(offset, kIndexFilePage) != 0) {
      fail(KVASIR_ARGUMENT, "Cannot save index: offset %.17g is no multiple of %zu", offset, kIndexFilePage);
    }
    *bytes = static_cast<double>(save_index_file(path, ctx->index(index), static_cast<int64_t>(offset)));
  });
}

int32_t kvasir_index_map(kvasir_index_context* ctx, kvasir_index* out, const char* path, const char* spec,
                         const double* shape, const double* frequencies, const kvasir_segment* segments, int32_t count) {
  return kvasir_index_map_from(ctx, out, path, nullptr, spec, shape, frequencies, segments, count);
}

int32_t kvasir_index_map_from(kvasir_index_context* ctx, kvasir_index* out, const char* path, const double* range,
                              const char* spec, const double* shape, const double* frequencies, const kvasir_segment* segments, int32_t count) {
  return guard([&] {
    if (path == nullptr || *path == 0) fail(KVASIR_ARGUMENT, "Cannot open index: the path is empty");
    std::string name, given;
    split_spec(spec == nullptr ? "" : spec, &name, &given);
    const IndexType& type = find_index_type(name);
    const Params params(name, type.defaults, given);
    const LayerShape layer = parse_shape(shape, frequencies);
    const Rows rows = collect_rows(ctx, layer, segments, count);
    try {
      uint64_t place[2] = {0, 0};
      for (int i = 0; i < 2 && range != nullptr; i++) {
        if (!(range[i] >= 0 && range[i] < 0x1p50)) fail(KVASIR_ARGUMENT, "Cannot open index: byte %.17g is none", range[i]);
        place[i] = static_cast<uint64_t>(range[i]);
      }
      IndexFile file(path, place[0], range == nullptr ? UINT64_MAX : place[1]);
      file.check(canonical_spec(name, params), layer, rows);
      std::unique_ptr<Index> index = type.map(ctx->environment, layer, params, rows, file);
      if (index->begin() != file.header().begin || index->end() != file.header().end) {
        fail(KVASIR_ARGUMENT, "Cannot open index: header and contents name different positions");
      }
      index->set_spec(canonical_spec(name, params));
      *out = ctx->indexes.add(std::move(index));
    } catch (const Error& error) {
      // What is wrong is found where the path is not known.
      static const std::string kStart = "Cannot open index: ";
      if (error.message.compare(0, kStart.size(), kStart) != 0) throw;
      fail(error.status, "Cannot open index \"%.300s\": %s", path, error.message.c_str() + kStart.size());
    }
  });
}

}  // extern "C"
