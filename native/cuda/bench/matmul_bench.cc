// What products cost on a device: the matrices of an 8B model's layer, as decode reads them (against the bandwidth of a copy) and
// as prompts do. Through the door only. A JSON line a row; `--tiny` runs all of it over small matrices, to prove that it runs.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kvasir_backend.h"

namespace {

void check(int32_t status) {
  if (status == KVASIR_OK) return;
  char text[512];
  kvasir_last_error(text, sizeof text);
  std::fprintf(stderr, "%s\n", text);
  std::exit(1);
}

kvasir_tensor make(kvasir_context* ctx, int32_t dtype, int32_t rows, int32_t cols, int32_t lifetime) {
  kvasir_tensor id = 0;
  const int32_t shape[] = {rows, cols};
  check(kvasir_tensor_create(ctx, &id, dtype, 2, shape, lifetime));
  return id;
}

// Milliseconds of one product, the best of five rounds of `times`.
double time_product(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, const std::vector<kvasir_tensor>& weights, int times) {
  double best = 1e300;
  float last[8];
  kvasir_tensor probe = 0;
  const int32_t shape[] = {8};
  check(kvasir_tensor_view(ctx, &probe, out, 1, shape, 0));
  for (int round = 0; round < 5; round++) {
    const auto start = std::chrono::steady_clock::now();
    // Weights in turn: together they are larger than the cache.
    for (int i = 0; i < times; i++) check(kvasir_matmul(ctx, &out, x, &weights[static_cast<size_t>(i) % weights.size()], 1));
    check(kvasir_tensor_read(ctx, last, probe, 8));
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    if (took.count() / times < best) best = took.count() / times;
  }
  check(kvasir_tensor_destroy(ctx, probe));
  return best;
}

// As many small launches as a decode step of a 32-layer model makes: what a launch costs by itself, and in a graph.
void time_launches(bool tiny) {
  constexpr int32_t kLaunches = 384, kWidth = 4096;
  for (const char* options : {"graphs=false", "graphs=true"}) {
    kvasir_context* ctx = kvasir_context_create(options);
    if (ctx == nullptr) check(KVASIR_DEVICE);
    const kvasir_tensor x = make(ctx, KVASIR_F32, 1, kWidth, KVASIR_STEP), y = make(ctx, KVASIR_F32, 1, kWidth, KVASIR_STEP);
    const std::vector<float> values(kWidth, 0.5f);
    for (const kvasir_tensor t : {x, y}) check(kvasir_tensor_write(ctx, t, values.data(), kWidth * 4.0, 0));
    std::vector<float> out(kWidth);
    double best = 1e300;
    for (int round = 0; round < (tiny ? 3 : 50); round++) {
      const auto start = std::chrono::steady_clock::now();
      for (int32_t i = 0; i < (tiny ? 8 : kLaunches); i++) check(kvasir_add(ctx, x, x, y));
      check(kvasir_tensor_read(ctx, out.data(), x, kWidth));
      const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
      if (took.count() < best) best = took.count();
    }
    std::printf("{\"row\": \"%d launches, %s\", \"ms\": %.4f}\n", kLaunches, options, best);
    check(kvasir_context_destroy(ctx));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool tiny = argc > 1 && std::strcmp(argv[1], "--tiny") == 0;
  kvasir_context* ctx = kvasir_context_create("");
  if (ctx == nullptr) check(KVASIR_DEVICE);
  double bandwidth = 0;
  check(kvasir_context_bandwidth(ctx, &bandwidth, tiny ? 1 : 1024));
  std::printf("{\"row\": \"copy bandwidth\", \"gbps\": %.1f}\n", bandwidth);
  time_launches(tiny);
  struct Shape {
    int32_t rows, cols;
  };
  const std::vector<Shape> shapes = tiny ? std::vector<Shape>{{64, 256}} : std::vector<Shape>{{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}};
  const struct {
    const char* name;
    int32_t dtype, elements, bytes;
  } types[] = {{"q4_0", KVASIR_Q4_0, 32, 18}, {"q4_k", KVASIR_Q4_K, 256, 144}, {"q6_k", KVASIR_Q6_K, 256, 210}, {"q8_0", KVASIR_Q8_0, 32, 34},
               {"f16", KVASIR_F16, 1, 2}};
  for (const auto& type : types) {
    for (const Shape& s : shapes) {
      const double bytes = static_cast<double>(s.rows) * s.cols / type.elements * type.bytes;
      const std::vector<uint8_t> rows(static_cast<size_t>(bytes), 0x11);
      std::vector<kvasir_tensor> weights(tiny ? 1 : static_cast<size_t>(400e6 / bytes) + 2);
      for (kvasir_tensor& w : weights) {
        w = make(ctx, type.dtype, s.rows, s.cols, KVASIR_MODEL);
        check(kvasir_tensor_write(ctx, w, rows.data(), bytes, 0));
      }
      for (int32_t n : {1, 4, 512}) {
        if (tiny && n == 512) n = 40;
        const kvasir_tensor x = make(ctx, KVASIR_F32, n, s.cols, KVASIR_STEP), out = make(ctx, KVASIR_F32, n, s.rows, KVASIR_STEP);
        const std::vector<float> values(static_cast<size_t>(n) * s.cols, 0.5f);
        check(kvasir_tensor_write(ctx, x, values.data(), static_cast<double>(values.size() * 4), 0));
        const double ms = time_product(ctx, out, x, weights, tiny ? 1 : n > 8 ? 20 : 200);
        std::printf("{\"row\": \"matmul\", \"type\": \"%s\", \"rows\": %d, \"cols\": %d, \"tokens\": %d, \"ms\": %.5f, \"gbps\": %.1f, "
                    "\"of_copy\": %.3f, \"tflops\": %.2f}\n",
                    type.name, s.rows, s.cols, n, ms, bytes / ms / 1e6, bytes / ms / 1e6 / bandwidth,
                    2.0 * n * s.rows * s.cols / ms / 1e9);
        check(kvasir_tensor_destroy(ctx, x));
        check(kvasir_tensor_destroy(ctx, out));
      }
      for (kvasir_tensor w : weights) check(kvasir_tensor_destroy(ctx, w));
    }
  }
  check(kvasir_context_destroy(ctx));
  return 0;
}
