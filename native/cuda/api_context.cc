// Version, errors, and a context's life.
#include <cstdio>
#include <cstring>

#include "context.h"
#include "options.h"

using namespace kvasir;

extern "C" {

int32_t kvasir_abi_version(void) { return KVASIR_ABI_VERSION; }

int32_t kvasir_last_error(char* buf, int32_t cap) {
  copy_text(buf, cap, last_error_text());
  return KVASIR_OK;
}

kvasir_context* kvasir_context_create(const char* text) {
  kvasir_context* made = nullptr;
  guard([&] { made = new kvasir_context(Runtime::open(parse_options(text))); });
  return made;
}

int32_t kvasir_context_destroy(kvasir_context* ctx) {
  return guard([&] { delete ctx; });
}

int32_t kvasir_context_describe(kvasir_context* ctx, char* buf, int32_t cap) {
  return guard([&] {
    const DeviceFacts& facts = ctx->runtime->facts();
    std::string name;
    for (char c : facts.name) name += c == ',' || c == '=' || c == ':' || c == ' ' ? '_' : c;
    const std::string text = "device=" + name + ",sm=" + std::to_string(facts.capability) +
                             ",prompts=" + (!facts.wgmma ? "mma" : !facts.tma ? "wgmma" : "wgmma+tma");
    if (buf == nullptr || cap <= static_cast<int32_t>(text.size())) {
      fail(KVASIR_ARGUMENT, "Cannot describe context: buffer of %d bytes, needs %zu", cap, text.size() + 1);
    }
    copy_text(buf, cap, text.c_str());
  });
}

const kvasir_executor* kvasir_context_executor(kvasir_context* ctx) { return &ctx->executor; }

int32_t kvasir_context_bytes(kvasir_context* ctx, double* out) {
  return guard([&] {
    for (int i = 0; i < 3; i++) out[i] = ctx->table->live[i];
  });
}

// Caches lie on the device, whose memory its driver keeps.
int32_t kvasir_context_keep(kvasir_context*, double bytes) {
  return guard([&] {
    if (!(bytes >= 0 && bytes <= 0x1p52)) fail(KVASIR_ARGUMENT, "Cannot keep memory: %g bytes", bytes);
  });
}

// Of a copy on the device, both directions counted: what kernels bound by memory are judged by.
int32_t kvasir_context_bandwidth(kvasir_context* ctx, double* out, int32_t megabytes) {
  return guard([&] {
    if (megabytes < 1 || megabytes > 65536) {
      fail(KVASIR_ARGUMENT, "Cannot measure bandwidth: %d megabytes, expected 1 to 65536", megabytes);
    }
    const size_t bytes = static_cast<size_t>(megabytes) << 20;
    DeviceScratch from(*ctx->runtime), to(*ctx->runtime);
    void *a = from.get(bytes), *b = to.get(bytes);
    double best = 0;
    for (int pass = 0; pass < 6; pass++) {
      ctx->runtime->mark();
      ctx->runtime->copy(b, a, bytes);
      ctx->runtime->mark();
      const double rate = 2.0 * static_cast<double>(bytes) / (ctx->runtime->elapsed() * 1e6);
      if (rate > best) best = rate;
    }
    *out = best;
  });
}

}  // extern "C"
