// Matrix products beside the limits of the machine: decode against read bandwidth, prefill against the 16-bit
// dot-product peak.
//   c++ -O2 -std=c++17 -I native/include native/bench/matmul_bench.cc -Lbuild -lkvasir_cpu -Wl,-rpath,build -o
//   matmul_bench
//   ./matmul_bench [isa=avx512] [threads=2] [rows=512] [decode | prefill]
// Decode is a whole step of SmolLM2-135M's matrices (30 layers, output table Q8_0), each weight read once; prefill is
// one of its layers, per type.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kvasir_backend.h"
#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void check(int32_t status) {
  if (status == KVASIR_OK) return;
  char text[512];
  kvasir_last_error(text, sizeof text);
  std::printf("%s\n", text);
  std::exit(1);
}

struct Type {
  int32_t dtype;
  const char* name;
  int elements, bytes, half;  // half: where the first f16 scale is; -1 for plain types
};
const Type kTypes[] = {
    {KVASIR_Q4_0, "Q4_0", 32, 18, 0},     {KVASIR_Q4_1, "Q4_1", 32, 20, 0},   {KVASIR_Q5_0, "Q5_0", 32, 22, 0},
    {KVASIR_Q5_1, "Q5_1", 32, 24, 0},     {KVASIR_Q8_0, "Q8_0", 32, 34, 0},   {KVASIR_IQ4_NL, "IQ4_NL", 32, 18, 0},
    {KVASIR_Q3_K, "Q3_K", 256, 110, 108}, {KVASIR_Q4_K, "Q4_K", 256, 144, 0}, {KVASIR_Q5_K, "Q5_K", 256, 176, 0},
    {KVASIR_Q6_K, "Q6_K", 256, 210, 208}, {KVASIR_F16, "F16", 1, 2, -1},      {KVASIR_BF16, "BF16", 1, 2, -1},
    {KVASIR_F32, "F32", 1, 4, -1},
};

kvasir_tensor make(kvasir_context* c, int32_t dtype, int rows, int cols, int32_t life) {
  kvasir_tensor id = 0;
  const int32_t shape[2] = {rows, cols};
  check(kvasir_tensor_create(c, &id, dtype, 2, shape, life));
  return id;
}

struct Weight {
  kvasir_tensor id;
  double bytes;  // in the file
};

Weight make_weight(kvasir_context* c, const Type& t, int rows, int cols, double* write_s = nullptr) {
  static std::mt19937 random(1);
  const size_t size = static_cast<size_t>(rows) * static_cast<size_t>(cols / t.elements) * static_cast<size_t>(t.bytes);
  std::vector<uint8_t> bytes(size + 3);
  for (size_t i = 0; i < size; i += 4) {
    const uint32_t v = static_cast<uint32_t>(random());
    std::memcpy(&bytes[i], &v, 4);
  }
  // Finite numbers of usual size: exponents from 1/128 on.
  if (t.half >= 0) {
    for (size_t i = static_cast<size_t>(t.half); i < size; i += static_cast<size_t>(t.bytes)) bytes[i + 1] = 0x21;
  } else {
    const size_t width = static_cast<size_t>(t.bytes);
    for (size_t i = width - 1; i < size; i += width) bytes[i] = t.dtype == KVASIR_F16 ? 0x38 : 0x3e;
  }
  const Weight w = {make(c, t.dtype, rows, cols, KVASIR_MODEL), static_cast<double>(size)};
  const double start = now();
  check(kvasir_tensor_write(c, w.id, bytes.data(), w.bytes, 0));
  if (write_s) *write_s += now() - start;
  return w;
}

// Best of several runs within `seconds`.
template <class F>
double best(double seconds, F&& body) {
  double least = 1e9;
  for (const double stop = now() + seconds; now() < stop || least == 1e9;) {
    const double start = now();
    body();
    least = std::min(least, now() - start);
  }
  return least;
}

// Products a second of one thread, 16-bit dot products of the widest kind.
#ifdef __x86_64__
__attribute__((target("avx512f,avx512vnni"))) double peak_avx512() {
  constexpr int kRounds = 20000;
  const double seconds = best(0.1, [] {
    for (int i = 0; i < kRounds; ++i) {
      asm volatile(
          "vpdpwssd %%zmm0,%%zmm1,%%zmm2\n vpdpwssd %%zmm0,%%zmm1,%%zmm3\n vpdpwssd %%zmm0,%%zmm1,%%zmm4\n"
          "vpdpwssd %%zmm0,%%zmm1,%%zmm5\n vpdpwssd %%zmm0,%%zmm1,%%zmm6\n vpdpwssd %%zmm0,%%zmm1,%%zmm7\n"
          "vpdpwssd %%zmm0,%%zmm1,%%zmm8\n vpdpwssd %%zmm0,%%zmm1,%%zmm9\n vpdpwssd %%zmm0,%%zmm1,%%zmm10\n"
          "vpdpwssd %%zmm0,%%zmm1,%%zmm11\n vpdpwssd %%zmm0,%%zmm1,%%zmm12\n vpdpwssd %%zmm0,%%zmm1,%%zmm13\n" ::
              : "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13");
    }
  });
  return kRounds * 12.0 * 32 / seconds;
}
#endif

double peak() {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512vnni")) return peak_avx512();
#endif
  return 0;
}

struct Layer {
  Weight q, k, v, o, gate, up, down;
  double bytes() const { return q.bytes + k.bytes + v.bytes + o.bytes + gate.bytes + up.bytes + down.bytes; }
};
constexpr int kWidth = 576, kKv = 192, kMlp = 1536, kVocab = 49152, kLayers = 30;

// K types need multiples of 256: the same matrices, a little wider.
Layer make_layer(kvasir_context* c, const Type& t, double* write_s = nullptr) {
  const int width = t.elements == 256 ? 768 : kWidth;
  Layer l;
  l.q = make_weight(c, t, width, width, write_s);
  l.k = make_weight(c, t, kKv, width, write_s);
  l.v = make_weight(c, t, kKv, width, write_s);
  l.o = make_weight(c, t, width, width, write_s);
  l.gate = make_weight(c, t, kMlp, width, write_s);
  l.up = make_weight(c, t, kMlp, width, write_s);
  l.down = make_weight(c, t, width, kMlp, write_s);
  return l;
}
double layer_products(const Type& t) {
  const double width = t.elements == 256 ? 768 : kWidth;
  return width * (2 * width + 2 * kKv + 3 * kMlp);
}

struct Buffers {
  kvasir_tensor x, q, k, v, o, gate, up, h, down;
};
Buffers make_buffers(kvasir_context* c, int n, int width) {
  Buffers b = {make(c, KVASIR_F32, n, width, KVASIR_STEP), make(c, KVASIR_F32, n, width, KVASIR_STEP),
               make(c, KVASIR_F32, n, kKv, KVASIR_STEP),   make(c, KVASIR_F32, n, kKv, KVASIR_STEP),
               make(c, KVASIR_F32, n, width, KVASIR_STEP), make(c, KVASIR_F32, n, kMlp, KVASIR_STEP),
               make(c, KVASIR_F32, n, kMlp, KVASIR_STEP),  make(c, KVASIR_F32, n, kMlp, KVASIR_STEP),
               make(c, KVASIR_F32, n, width, KVASIR_STEP)};
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (const auto& [id, cols] : {std::pair{b.x, width}, std::pair{b.o, width}, std::pair{b.h, kMlp}}) {
    std::vector<float> values(static_cast<size_t>(n) * static_cast<size_t>(cols));
    for (float& f : values) f = normal(random);
    check(kvasir_tensor_write(c, id, values.data(), static_cast<double>(values.size() * 4), 0));
  }
  return b;
}
void run_layer(kvasir_context* c, const Layer& l, const Buffers& b) {
  const kvasir_tensor qkv_out[] = {b.q, b.k, b.v}, qkv[] = {l.q.id, l.k.id, l.v.id};
  check(kvasir_matmul(c, qkv_out, b.x, qkv, 3));
  check(kvasir_matmul(c, &b.q, b.o, &l.o.id, 1));
  const kvasir_tensor mlp_out[] = {b.gate, b.up}, mlp[] = {l.gate.id, l.up.id};
  check(kvasir_matmul(c, mlp_out, b.x, mlp, 2));
  check(kvasir_matmul(c, &b.down, b.h, &l.down.id, 1));
}
void destroy_all(kvasir_context* c, const std::vector<kvasir_tensor>& ids) {
  for (const kvasir_tensor id : ids) check(kvasir_tensor_destroy(c, id));
}
void destroy(kvasir_context* c, const Layer& l) {
  destroy_all(c, {l.q.id, l.k.id, l.v.id, l.o.id, l.gate.id, l.up.id, l.down.id});
}
void destroy(kvasir_context* c, const Buffers& b) {
  destroy_all(c, {b.x, b.q, b.k, b.v, b.o, b.gate, b.up, b.h, b.down});
}

void decode(kvasir_context* c) {
  double gb = 0;
  check(kvasir_context_bandwidth(c, &gb, 512));
  std::printf("read bandwidth %.1f GB/s over 512 MB\n", gb);
  for (const Type& t : kTypes) {
    if (t.dtype == KVASIR_F32) continue;
    std::vector<Layer> layers;
    double bytes = 0, write_s = 0;
    for (int i = 0; i < kLayers; ++i) layers.push_back(make_layer(c, t, &write_s));
    for (const Layer& l : layers) bytes += l.bytes();
    const int width = t.elements == 256 ? 768 : kWidth;
    const double wrote = bytes;
    const Weight head = make_weight(c, kTypes[4], kVocab, width);
    const kvasir_tensor logits = make(c, KVASIR_F32, 1, kVocab, KVASIR_STEP);
    const Buffers b = make_buffers(c, 1, width);
    const double body = best(0.5, [&] {
      for (const Layer& l : layers) run_layer(c, l, b);
      check(kvasir_matmul(c, &logits, b.x, &head.id, 1));
    });
    bytes += head.bytes;
    std::printf("%-7s decode %6.2f ms, %6.1f MB: %5.1f GB/s   (written at %.1f GB/s)\n", t.name, body * 1e3,
                bytes * 1e-6, bytes / body * 1e-9, wrote / write_s * 1e-9);
    for (const Layer& l : layers) destroy(c, l);
    destroy_all(c, {head.id, logits});
    destroy(c, b);
  }
  check(kvasir_context_bandwidth(c, &gb, 512));
  std::printf("read bandwidth %.1f GB/s over 512 MB\n", gb);
}

void prefill(kvasir_context* c, int rows, int threads) {
  const double limit = peak() * threads;
  std::printf("16-bit dot products, AVX-512 peak %.0f G/s with %d threads\n", limit * 1e-9, threads);
  for (const Type& t : kTypes) {
    const Layer l = make_layer(c, t);
    const Buffers b = make_buffers(c, rows, t.elements == 256 ? 768 : kWidth);
    const double seconds = best(0.4, [&] { run_layer(c, l, b); });
    const double rate = layer_products(t) * rows / seconds;
    std::printf("%-7s prefill of %d: %7.2f ms a layer, %6.1f G/s, %3.0f %% of the peak\n", t.name, rows, seconds * 1e3,
                rate * 1e-9, limit > 0 ? rate / limit * 100 : 0);
    destroy(c, l);
    destroy(c, b);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string isa = "auto", what;
  int threads = 2, rows = 512;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    if (a.rfind("isa=", 0) == 0)
      isa = a.substr(4);
    else if (a.rfind("threads=", 0) == 0)
      threads = std::atoi(a.c_str() + 8);
    else if (a.rfind("rows=", 0) == 0)
      rows = std::atoi(a.c_str() + 5);
    else
      what = a;
  }
  kvasir_context* c = kvasir_context_create(("isa=" + isa + ",threads=" + std::to_string(threads)).c_str());
  if (!c) check(KVASIR_INTERNAL);
  if (what != "prefill") decode(c);
  if (what != "decode") prefill(c, rows, threads);
  check(kvasir_context_destroy(c));
}
