// Version, errors, contexts, segments, and an index's life. Searching is in api_search.cc, files in api_file.cc.
#include <cstring>

#include "context.h"
#include "error.h"

using namespace kvasir;

namespace kvasir {

Rows collect_rows(kvasir_index_context* ctx, const LayerShape& shape, const kvasir_segment* segments, int32_t count) {
  if (count < 0 || (count > 0 && segments == nullptr)) fail(KVASIR_ARGUMENT, "Cannot open index: %d segments", count);
  Rows rows;
  for (int32_t i = 0; i < count; i++) append_segment(shape, rows, ctx->segments.find(segments[i], "segment"));
  return rows;
}

}  // namespace kvasir

extern "C" {

int32_t kvasir_index_abi_version(void) { return KVASIR_INDEX_ABI_VERSION; }

int32_t kvasir_index_last_error(char* buf, int32_t cap) {
  copy_text(buf, cap, last_error_text());
  return KVASIR_OK;
}

int32_t kvasir_index_types(char* buf, int32_t cap) {
  return guard([&] {
    std::string text;
    for (const IndexType* t : index_types()) text += std::string(t->name) + "\t" + t->defaults + "\t" + t->summary + "\n";
    copy_whole(buf, cap, text, "index types");
  });
}

int32_t kvasir_index_costs(char* buf, int32_t cap, const char* isa) {
  return guard([&] { copy_whole(buf, cap, measure_costs(find_index_isa(isa == nullptr ? "auto" : isa)).text(), "costs"); });
}

kvasir_index_context* kvasir_index_context_create(const char* options, const kvasir_executor* executor) {
  kvasir_index_context* made = nullptr;
  guard([&] { made = std::make_unique<kvasir_index_context>(options, executor).release(); });
  return made;
}

int32_t kvasir_index_context_destroy(kvasir_index_context* ctx) {
  return guard([&] { delete ctx; });
}

int32_t kvasir_index_context_describe(kvasir_index_context* ctx, char* buf, int32_t cap) {
  return guard([&] {
    const std::string text = "isa=" + std::string(ctx->environment.isa->name) + ",threads=" +
                             std::to_string(ctx->pool->threads()) + ",builders=" + std::to_string(ctx->builders.threads()) +
                             (ctx->given_costs.empty() ? "" : ",costs=(" + ctx->costs.text() + ")");
    copy_whole(buf, cap, text, "options");
  });
}

int32_t kvasir_segment_create(kvasir_index_context* ctx, kvasir_segment* out, const int32_t* desc, kvasir_memory* keys,
                              kvasir_memory* values, kvasir_memory* key_scales, kvasir_memory* value_scales) {
  return guard([&] {
    if (desc == nullptr) fail(KVASIR_ARGUMENT, "Cannot register segment: description is missing");
    *out = ctx->segments.add(std::make_shared<const Segment>(desc, keys, values, key_scales, value_scales));
  });
}

int32_t kvasir_segment_destroy(kvasir_index_context* ctx, kvasir_segment segment) {
  return guard([&] { ctx->segments.remove(segment, "segment"); });
}

int32_t kvasir_index_create(kvasir_index_context* ctx, kvasir_index* out, const char* spec, const double* shape,
                            const double* frequencies) {
  return guard([&] {
    std::string name, given;
    split_spec(spec == nullptr ? "" : spec, &name, &given);
    const IndexType& type = find_index_type(name);
    const Params params(name, type.defaults, given);
    std::unique_ptr<Index> index = type.create(ctx->environment, parse_shape(shape, frequencies), params, Rows());
    index->set_spec(canonical_spec(name, params));
    *out = ctx->indexes.add(std::move(index));
  });
}

int32_t kvasir_index_destroy(kvasir_index_context* ctx, kvasir_index index) {
  return guard([&] { ctx->indexes.remove(index, "index"); });
}

int32_t kvasir_index_append_segment(kvasir_index_context* ctx, kvasir_index index, kvasir_segment segment) {
  return guard([&] {
    Index& i = ctx->index(index);
    append_segment(i.shape(), i.rows(), ctx->segments.find(segment, "segment"));
  });
}

int32_t kvasir_index_commit(kvasir_index_context* ctx, kvasir_index index) {
  return guard([&] { ctx->index(index).commit(); });
}

int32_t kvasir_index_settle(kvasir_index_context* ctx, kvasir_index index) {
  return guard([&] { ctx->index(index).settle(); });
}

int32_t kvasir_index_fork(kvasir_index_context* ctx, kvasir_index* out, kvasir_index index,
                          const kvasir_segment* segments, int32_t count) {
  return guard([&] {
    Index& from = ctx->index(index);
    const Rows rows = collect_rows(ctx, from.shape(), segments, count);
    if (from.end() > from.begin() && (from.begin() < rows.begin() || from.end() > rows.end())) {
      fail(KVASIR_ARGUMENT, "Cannot fork index: it holds positions %d to %d, segments hold %d to %d", from.begin(),
           from.end(), rows.begin(), rows.end());
    }
    std::unique_ptr<Index> fork = from.fork(rows);
    fork->set_spec(from.spec());
    *out = ctx->indexes.add(std::move(fork));
  });
}

int32_t kvasir_index_stats(kvasir_index_context* ctx, kvasir_index index, double* numbers, char* decisions, int32_t cap) {
  return guard([&] {
    const IndexStats stats = ctx->index(index).stats();
    const double all[KVASIR_STATS] = {stats.tokens, stats.bytes, stats.pending, stats.build_seconds, stats.inserted};
    std::memcpy(numbers, all, sizeof all);
    std::string text;
    for (const std::string& decision : stats.decisions) text += decision + "\n";
    copy_whole(decisions, cap, text, "decisions");
  });
}

}  // extern "C"
