// Version, errors, and a context's life.
#include <chrono>
#include <cstdio>
#include <cstring>

#include "context.h"
#include "cpus.h"
#include "huge_heap.h"
#include "isa.h"
#include "options.h"

using namespace kvasir;

namespace {

// Sums 64-bit words so that the reads cannot be left out; memory is slower than SSE2 everywhere.
uint64_t read_words(const uint64_t* words, size_t count) {
  uint64_t a = 0, b = 0, c = 0, d = 0;
  for (size_t i = 0; i + 8 <= count; i += 8) {
    a += words[i] ^ words[i + 1];
    b += words[i + 2] ^ words[i + 3];
    c += words[i + 4] ^ words[i + 5];
    d += words[i + 6] ^ words[i + 7];
  }
  return a + b + c + d;
}

}  // namespace

extern "C" {

int32_t kvasir_abi_version(void) { return KVASIR_ABI_VERSION; }

int32_t kvasir_last_error(char* buf, int32_t cap) {
  copy_text(buf, cap, last_error_text());
  return KVASIR_OK;
}

kvasir_context* kvasir_context_create(const char* text) {
  kvasir_context* made = nullptr;
  guard([&] {
    const Options options = parse_options(text);
    auto context = std::make_unique<kvasir_context>();
    context->isa = &find_isa(options.isa.c_str());
    context->precision = options.precision;
    const int threads = options.threads == 0 ? default_threads() : options.threads;
    context->pool = std::make_unique<Pool>(threads);
    context->executor = context->pool->lend();
    context->workers = std::vector<Scratch>(static_cast<size_t>(threads));
    context->quantized = std::vector<kvasir_context::QuantizeMark>(static_cast<size_t>(threads));
    made = context.release();
  });
  return made;
}

int32_t kvasir_context_destroy(kvasir_context* ctx) {
  return guard([&] { delete ctx; });
}

int32_t kvasir_context_describe(kvasir_context* ctx, char* buf, int32_t cap) {
  return guard([&] {
    char text[100];
    std::snprintf(text, sizeof text, "isa=%s,precision=%s,threads=%d", ctx->isa->name,
                  ctx->precision == Precision::kExact ? "exact" : "fast", ctx->pool->threads());
    if (buf == nullptr || cap <= static_cast<int32_t>(std::strlen(text))) {
      fail(KVASIR_ARGUMENT, "Cannot describe context: buffer of %d bytes, needs %zu", cap, std::strlen(text) + 1);
    }
    copy_text(buf, cap, text);
  });
}

const kvasir_executor* kvasir_context_executor(kvasir_context* ctx) { return &ctx->executor; }

int32_t kvasir_context_bytes(kvasir_context* ctx, double* out) {
  return guard([&] {
    for (int i = 0; i < 3; i++) out[i] = ctx->table->live[i];
  });
}

int32_t kvasir_context_keep(kvasir_context*, double bytes) {
  return guard([&] {
    if (!(bytes >= 0 && bytes <= 0x1p52)) fail(KVASIR_ARGUMENT, "Cannot keep memory: %g bytes", bytes);
    HugeHeap::shared().keep(static_cast<size_t>(bytes));
  });
}

int32_t kvasir_context_bandwidth(kvasir_context* ctx, double* out, int32_t megabytes) {
  return guard([&] {
    if (megabytes < 1 || megabytes > 65536) {
      fail(KVASIR_ARGUMENT, "Cannot measure bandwidth: %d megabytes, expected 1 to 65536", megabytes);
    }
    constexpr size_t kPart = size_t{1} << 18;
    const size_t bytes = static_cast<size_t>(megabytes) << 20;
    Scratch scratch;
    uint8_t* data = static_cast<uint8_t*>(scratch.get(bytes));
    const int tasks = static_cast<int>(bytes / kPart);
    ctx->pool->run(tasks, [&](int task, int) { std::memset(data + task * kPart, task & 127, kPart); });
    double best = 0;
    std::vector<uint64_t> sums(static_cast<size_t>(tasks));
    const auto begin = std::chrono::steady_clock::now();
    // Best of the passes of 0.3 s, three at least: another process can only make a pass slower.
    for (int pass = 0; pass < 3 || std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(300); pass++) {
      const auto start = std::chrono::steady_clock::now();
      ctx->pool->run(tasks, [&](int task, int) {
        sums[task] += read_words(reinterpret_cast<const uint64_t*>(data + task * kPart), kPart / 8);
      });
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      const double rate = static_cast<double>(bytes) / took.count() / 1e9;
      if (rate > best) best = rate;
    }
    volatile uint64_t keep = 0;
    for (uint64_t s : sums) keep = keep + s;
    *out = best;
  });
}

}  // extern "C"
