// kvasir_index.h on the device: type "flat". Pointers that a search is given lie where the backend's tensors do. What the device
// does not do is KVASIR_UNSUPPORTED with a reason: files, surrogates, costs.
#include <cstring>
#include <memory>

#include "arguments.h"
#include "context.h"
#include "index_flat.h"
#include "kvasir_index.h"
#include "params.h"
#include "slots.h"

using namespace kvasir;

namespace {

constexpr const char* kName = "flat";
constexpr const char* kDefaults = "codes=int8";
constexpr const char* kSummary = "scores every key on the device: exact, or sampled without bias";

struct DeviceIndex {
  LayerShape shape;
  std::string spec;
  std::unique_ptr<DeviceFlat> flat;
};

FlatGoal goal_of(const DeviceIndex& index, const double* goal) {
  const Goal g = parse_goal(goal);
  if (g.surrogate_tail) fail(KVASIR_UNSUPPORTED, "Cannot search index \"%.200s\": it has no surrogates, use tail=sample", index.spec.c_str());
  return {g.kind == Goal::kError, g.value, g.sample_tail, g.draw};
}

void fill_report(double* report, const FlatReport& done) {
  const double all[KVASIR_REPORT] = {static_cast<double>(done.certificate), done.keys_scored, done.keys_kept, done.bytes_read,
                                     __builtin_nan("")};
  std::memcpy(report, all, sizeof all);
}

[[noreturn]] void refuse(const char* what) {
  fail(KVASIR_UNSUPPORTED, "Cannot %s: indexes on the device live in its memory alone, they are built anew from the cache", what);
}

}  // namespace

struct kvasir_index_context {
  explicit kvasir_index_context(const kvasir_executor* executor)
      : backend(context_of(executor)), search(*backend.runtime) {}

  DeviceIndex& index(kvasir_index id) { return indexes.find(id, "index"); }
  Rows collect(const LayerShape& shape, const kvasir_segment* ids, int32_t count) {
    if (count < 0 || (count > 0 && ids == nullptr)) fail(KVASIR_ARGUMENT, "Cannot open index: %d segments", count);
    Rows rows;
    for (int32_t i = 0; i < count; i++) append_segment(shape, rows, segments.find(ids[i], "segment"));
    return rows;
  }

  kvasir_context& backend;
  DeviceScratch search;
  Slots<std::shared_ptr<const Segment>> segments;
  Slots<DeviceIndex> indexes;  // end before what they use
};

extern "C" {

int32_t kvasir_index_abi_version(void) { return KVASIR_INDEX_ABI_VERSION; }

int32_t kvasir_index_last_error(char* buf, int32_t cap) {
  copy_text(buf, cap, last_error_text());
  return KVASIR_OK;
}

int32_t kvasir_index_types(char* buf, int32_t cap) {
  return guard([&] { copy_whole(buf, cap, std::string(kName) + "\t" + kDefaults + "\t" + kSummary + "\n", "index types"); });
}

int32_t kvasir_index_costs(char*, int32_t, const char*) {
  return report(KVASIR_UNSUPPORTED, "Cannot measure costs: the device has one index type, nothing is planned");
}

kvasir_index_context* kvasir_index_context_create(const char*, const kvasir_executor* executor) {
  kvasir_index_context* made = nullptr;
  guard([&] { made = new kvasir_index_context(executor); });
  return made;
}

int32_t kvasir_index_context_destroy(kvasir_index_context* ctx) {
  return guard([&] { delete ctx; });
}

int32_t kvasir_index_context_describe(kvasir_index_context*, char* buf, int32_t cap) {
  return guard([&] { copy_whole(buf, cap, "isa=cuda,threads=1,builders=0", "options"); });
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
    if (name != kName) {
      fail(KVASIR_UNSUPPORTED, "Cannot create index \"%.60s\" on the device: it has %s, use that or backend hybrid", name.c_str(), kName);
    }
    const Params params(name, kDefaults, given);
    DeviceIndex index;
    index.shape = parse_shape(shape, frequencies), index.spec = canonical_spec(name, params);
    const DeviceFlat::Kind kinds[] = {DeviceFlat::kInt8, DeviceFlat::kInt4, DeviceFlat::kNone};
    const LayerShape& s = index.shape;
    index.flat = std::make_unique<DeviceFlat>(ctx->search, *ctx->backend.attention,
                                              IndexShape{s.heads, s.kv_heads, s.group(), s.head_dim, s.scale, s.softcap},
                                              kinds[params.choice("codes", {"int8", "int4", "f16"})]);
    *out = ctx->indexes.add(std::move(index));
  });
}

int32_t kvasir_index_destroy(kvasir_index_context* ctx, kvasir_index index) {
  return guard([&] { ctx->indexes.remove(index, "index"); });
}

int32_t kvasir_index_append_segment(kvasir_index_context* ctx, kvasir_index index, kvasir_segment segment) {
  return guard([&] {
    DeviceIndex& i = ctx->index(index);
    append_segment(i.shape, i.flat->rows(), ctx->segments.find(segment, "segment"));
  });
}

int32_t kvasir_index_add(kvasir_index_context* ctx, kvasir_index index, int32_t start, int32_t count) {
  return guard([&] {
    DeviceFlat& i = *ctx->index(index).flat;
    if (count == 0) return;
    const Rows& rows = i.rows();
    if (start < 0 || count < 0 || start < rows.begin() || count > rows.end() - start) {
      fail(KVASIR_ARGUMENT, "Cannot add tokens: %d from position %d, segments hold %d to %d", count, start, rows.begin(),
           rows.end());
    }
    if (i.begin() != i.end() && start != i.end()) {
      fail(KVASIR_ARGUMENT, "Cannot add tokens: they start at %d, expected %d", start, i.end());
    }
    i.add(start, count);
  });
}

int32_t kvasir_index_observes(kvasir_index_context* ctx, kvasir_index index, int32_t* out) {
  return guard([&] {
    ctx->index(index);
    *out = 0;
  });
}

int32_t kvasir_index_observe(kvasir_index_context* ctx, kvasir_index index, int32_t, int32_t, const float*) {
  return guard([&] { ctx->index(index); });
}

int32_t kvasir_index_commit(kvasir_index_context* ctx, kvasir_index index) {
  return guard([&] { ctx->index(index).flat->commit(); });
}

int32_t kvasir_index_settle(kvasir_index_context* ctx, kvasir_index index) {
  return guard([&] { ctx->index(index); });
}

int32_t kvasir_index_attend(kvasir_index_context* ctx, kvasir_index index, float* o, float* lse, double* report, const double* goal,
                            const float* q, const float* exact) {
  return guard([&] {
    DeviceIndex& i = ctx->index(index);
    if (o == nullptr || lse == nullptr || report == nullptr || q == nullptr || exact == nullptr) {
      fail(KVASIR_ARGUMENT, "Cannot attend: an argument is missing");
    }
    const FlatGoal g = goal_of(i, goal);
    FlatReport done;
    i.flat->attend({o, lse}, g, q, exact, &done);
    fill_report(report, done);
  });
}

int32_t kvasir_index_search(kvasir_index_context* ctx, kvasir_index index, int32_t* tokens, float* bias, int32_t* counts,
                            float* errors, double* report, int32_t capacity, const double* goal, const float* q,
                            const float* exact, float*, float*) {
  bool fits = true;
  const int32_t status = guard([&] {
    DeviceIndex& i = ctx->index(index);
    if (capacity < 0 || counts == nullptr || errors == nullptr || report == nullptr || q == nullptr || exact == nullptr ||
        (capacity > 0 && (tokens == nullptr || bias == nullptr))) {
      fail(KVASIR_ARGUMENT, "Cannot search: an argument is missing");
    }
    const FlatGoal g = goal_of(i, goal);
    FlatReport done;
    fits = i.flat->search({tokens, bias, counts, errors, capacity}, g, q, exact, done);
    fill_report(report, done);
  });
  if (status != KVASIR_OK || fits) return status;
  return kvasir::report(KVASIR_CAPACITY, "Cannot search: the output has too little room, see counts");
}

int32_t kvasir_index_fork(kvasir_index_context* ctx, kvasir_index* out, kvasir_index index,
                          const kvasir_segment* segments, int32_t count) {
  return guard([&] {
    const DeviceIndex& from = ctx->index(index);
    Rows rows = ctx->collect(from.shape, segments, count);
    const DeviceFlat& flat = *from.flat;
    if (flat.end() > flat.begin() && (flat.begin() < rows.begin() || flat.end() > rows.end())) {
      fail(KVASIR_ARGUMENT, "Cannot fork index: it holds positions %d to %d, segments hold %d to %d", flat.begin(), flat.end(),
           rows.begin(), rows.end());
    }
    DeviceIndex fork;
    fork.shape = from.shape, fork.spec = from.spec;
    fork.flat = flat.fork(std::move(rows));
    *out = ctx->indexes.add(std::move(fork));
  });
}

int32_t kvasir_index_save(kvasir_index_context*, kvasir_index, const char*) {
  return guard([] { refuse("save index"); });
}
int32_t kvasir_index_save_into(kvasir_index_context*, kvasir_index, double*, const char*, double) {
  return guard([] { refuse("save index"); });
}
int32_t kvasir_index_map(kvasir_index_context*, kvasir_index*, const char*, const char*, const double*, const double*,
                         const kvasir_segment*, int32_t) {
  return guard([] { refuse("open index"); });
}
int32_t kvasir_index_map_from(kvasir_index_context*, kvasir_index*, const char*, const double*, const char*, const double*,
                              const double*, const kvasir_segment*, int32_t) {
  return guard([] { refuse("open index"); });
}

int32_t kvasir_index_stats(kvasir_index_context* ctx, kvasir_index index, double* numbers, char* decisions, int32_t cap) {
  return guard([&] {
    const DeviceFlat& i = *ctx->index(index).flat;
    const double tokens = i.end() - i.begin();
    const double all[KVASIR_STATS] = {tokens, i.bytes(), tokens - i.searchable(), 0, 0};
    std::memcpy(numbers, all, sizeof all);
    copy_whole(decisions, cap, "", "decisions");
  });
}

}  // extern "C"
