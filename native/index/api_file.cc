// Saving indexes to files and opening them again.
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

int32_t kvasir_index_map(kvasir_index_context* ctx, kvasir_index* out, const char* path, const char* spec,
                         const double* shape, const double* frequencies, const kvasir_segment* segments, int32_t count) {
  return guard([&] {
    if (path == nullptr || *path == 0) fail(KVASIR_ARGUMENT, "Cannot open index: the path is empty");
    std::string name, given;
    split_spec(spec == nullptr ? "" : spec, &name, &given);
    const IndexType& type = find_index_type(name);
    const Params params(name, type.defaults, given);
    const LayerShape layer = parse_shape(shape, frequencies);
    const Rows rows = collect_rows(ctx, layer, segments, count);
    try {
      IndexFile file(path);
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
