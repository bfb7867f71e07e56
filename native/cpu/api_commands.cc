// kvasir_commands_run: reads commands and calls their kernels.
#include <cstring>
#include <string>
#include <vector>

#include "context.h"
#include "kv.h"

using namespace kvasir;

namespace {

// One command's arguments. Reading past them fails.
class Arguments {
 public:
  Arguments(const int32_t* at, int32_t count, int32_t code) : at_(at), end_(at + count), code_(code) {}

  int32_t number() { return *take(1); }
  kvasir_tensor id() { return static_cast<kvasir_tensor>(number()); }
  float real() {
    float value;
    std::memcpy(&value, take(1), sizeof value);
    return value;
  }
  const int32_t* numbers(int64_t count) { return take(count); }
  const kvasir_tensor* ids(int64_t count) { return reinterpret_cast<const kvasir_tensor*>(take(count)); }
  const double* reals(int64_t count) {
    const int32_t* from = take(2 * count);
    doubles_.resize(static_cast<size_t>(count));
    if (count > 0) std::memcpy(doubles_.data(), from, static_cast<size_t>(count) * sizeof(double));
    return doubles_.data();
  }
  void finish() const {
    if (at_ != end_) fail(KVASIR_ARGUMENT, "Cannot run command %d: %td arguments too many", code_, end_ - at_);
  }

 private:
  const int32_t* take(int64_t count) {
    if (count < 0 || count > end_ - at_) {
      fail(KVASIR_ARGUMENT, "Cannot run command %d: it needs %lld more arguments, %td are left", code_,
           static_cast<long long>(count), end_ - at_);
    }
    const int32_t* taken = at_;
    at_ += count;
    return taken;
  }

  const int32_t* at_;
  const int32_t* end_;
  int32_t code_;
  std::vector<double> doubles_;
};

int32_t run_products(kvasir_context* ctx, Arguments& a) {
  const kvasir_tensor x = a.id();
  const int32_t count = a.number();
  const kvasir_tensor *outs = a.ids(count), *ws = a.ids(count);
  return kvasir_matmul(ctx, outs, x, ws, count);
}

int32_t run_rope_table(kvasir_context* ctx, Arguments& a) {
  const kvasir_tensor out = a.id(), positions = a.id();
  const int32_t dims = a.number();
  const float magnitude = a.real();
  return kvasir_rope_table(ctx, out, positions, a.reals(dims / 2), dims, magnitude);
}

int32_t run_rope(kvasir_context* ctx, Arguments& a) {
  const kvasir_tensor table = a.id();
  const int32_t pairing = a.number(), count = a.number();
  return kvasir_rope(ctx, a.ids(count), count, table, pairing);
}

int32_t run_append_each(kvasir_context* ctx, Arguments& a) {
  const kvasir_tensor k = a.id(), v = a.id();
  const int32_t count = a.number();
  const int32_t *rows = a.numbers(count), *segments = a.numbers(int64_t{count} * KVASIR_SEGMENT_FIELDS);
  return kvasir_append_each(ctx, segments, rows, count, k, v);
}

int32_t run_attend_each(kvasir_context* ctx, Arguments& a) {
  const kvasir_tensor out = a.id(), q = a.id();
  const float scale = a.real(), softcap = a.real();
  const int32_t window = a.number(), count = a.number();
  const int32_t* counts = a.numbers(count);
  int64_t segments = 0;
  for (int32_t i = 0; i < count; i++) {
    if (counts[i] < 0) fail(KVASIR_ARGUMENT, "Cannot attend: cache %d has %d segments", i, counts[i]);
    segments += counts[i];
  }
  return kvasir_attend_each(ctx, out, q, a.numbers(segments * KVASIR_SEGMENT_FIELDS), counts, count, scale, softcap, window);
}

// In order of the arguments: those of a call itself may be evaluated in any.
int32_t run_command(kvasir_context* ctx, int32_t code, Arguments& a) {
  kvasir_tensor t[4];
  const auto ids = [&](int count) {
    for (int i = 0; i < count; i++) t[i] = a.id();
  };
  switch (code) {
    case KVASIR_RUN_EMBED:
      ids(3);
      return kvasir_embed(ctx, t[0], t[1], t[2], a.real());
    case KVASIR_RUN_RMS_NORM:
      ids(3);
      return kvasir_rms_norm(ctx, t[0], t[1], t[2], a.real());
    case KVASIR_RUN_ADD_RMS_NORM:
      ids(4);
      return kvasir_add_rms_norm(ctx, t[0], t[1], t[2], t[3], a.real());
    case KVASIR_RUN_MATMUL:
      return run_products(ctx, a);
    case KVASIR_RUN_MATMUL_GLU:
      ids(4);
      return kvasir_matmul_glu(ctx, t[0], t[1], t[2], t[3], a.number());
    case KVASIR_RUN_ADD:
      ids(3);
      return kvasir_add(ctx, t[0], t[1], t[2]);
    case KVASIR_RUN_GLU:
      ids(3);
      return kvasir_glu(ctx, t[0], t[1], t[2], a.number());
    case KVASIR_RUN_ROPE_TABLE:
      return run_rope_table(ctx, a);
    case KVASIR_RUN_ROPE:
      return run_rope(ctx, a);
    case KVASIR_RUN_APPEND_EACH:
      return run_append_each(ctx, a);
    case KVASIR_RUN_ATTEND_EACH:
      return run_attend_each(ctx, a);
    default:
      fail(KVASIR_ARGUMENT, "Cannot run command %d: there is none", code);
  }
}

// The next attention of a layer looks up slots that nothing has looked at since the last step: they are asked for before the products
// ahead of it, so many commands ahead at most. Commands are checked when they are run; here only that all of it lies inside.
constexpr int kAhead = 4;

void fetch_ahead(const kvasir_context& ctx, const int32_t* commands, int32_t at, int32_t size) {
  for (int i = 0; i < kAhead && size - at >= 2; i++) {
    const int32_t count = commands[at + 1], *arguments = commands + at + 2;
    if (count < 0 || count > size - at - 2) return;
    if (commands[at] == KVASIR_RUN_ATTEND_EACH) {
      constexpr int32_t kFixed = 6;
      const int32_t caches = count < kFixed ? -1 : arguments[kFixed - 1];
      if (caches < 0 || caches > count - kFixed) return;
      const int32_t rest = count - kFixed - caches;
      return fetch_segments(*ctx.table, arguments + kFixed + caches, rest / KVASIR_SEGMENT_FIELDS);
    }
    at += 2 + count;
  }
}

}  // namespace

extern "C" {

int32_t kvasir_commands_run(kvasir_context* ctx, const int32_t* commands, int32_t size) {
  return guard([&] {
    if (size < 0 || (size > 0 && commands == nullptr)) fail(KVASIR_ARGUMENT, "Cannot run commands: %d numbers", size);
    for (int32_t at = 0; at < size;) {
      const int32_t count = at + 1 < size ? commands[at + 1] : -1;
      if (count < 0 || count > size - at - 2) fail(KVASIR_ARGUMENT, "Cannot run commands: the one at %d is cut off", at);
      if (commands[at] == KVASIR_RUN_MATMUL) fetch_ahead(*ctx, commands, at + 2 + count, size);
      Arguments arguments(commands + at + 2, count, commands[at]);
      const int32_t status = run_command(ctx, commands[at], arguments);
      if (status != KVASIR_OK) throw Error{status, last_error_text()};
      arguments.finish();
      at += 2 + count;
    }
  });
}

}  // extern "C"
