// A context, and tensors made, filled and read in one line each, through the public door only.
#pragma once
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "error.h"
#include "harness.h"
#include "kvasir_backend.h"

namespace kvasir_test {

inline std::string last_error() {
  char text[512];
  kvasir_last_error(text, sizeof text);
  return text;
}

// Instruction sets this machine runs; portable is always one.
inline std::vector<std::string> isas() {
  std::vector<std::string> found;
  for (const char* name : {"portable", "avx2", "avx512"}) {
    kvasir_context* c = kvasir_context_create(("threads=1,isa=" + std::string(name)).c_str());
    if (c != nullptr) found.push_back(name);
    if (c != nullptr) kvasir_context_destroy(c);
  }
  return found;
}

struct Context {
  kvasir_context* raw;
  explicit Context(const std::string& options) : raw(kvasir_context_create(options.c_str())) {
    if (raw == nullptr) throw kvasir::Error{KVASIR_DEVICE, last_error()};  // ends the test
  }
  ~Context() { kvasir_context_destroy(raw); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  operator kvasir_context*() const { return raw; }

  kvasir_tensor make(int32_t dtype, const std::vector<int32_t>& shape, int32_t lifetime = KVASIR_STEP) {
    kvasir_tensor id = 0;
    if (kvasir_tensor_create(raw, &id, dtype, static_cast<int32_t>(shape.size()), shape.data(), lifetime) != KVASIR_OK)
      fail(__FILE__, __LINE__, last_error());
    return id;
  }
  // A view that starts one element into its memory: as misaligned as a tensor can be.
  kvasir_tensor make_misaligned(int32_t dtype, const std::vector<int32_t>& shape) {
    int32_t count = 1;
    for (int32_t d : shape) count *= d;
    const kvasir_tensor whole = make(dtype, {count + 1});
    kvasir_tensor id = 0;
    if (kvasir_tensor_view(raw, &id, whole, static_cast<int32_t>(shape.size()), shape.data(), 1) != KVASIR_OK)
      fail(__FILE__, __LINE__, last_error());
    return id;
  }
  template <class T>
  void write(kvasir_tensor id, const std::vector<T>& values) {
    if (kvasir_tensor_write(raw, id, values.data(), static_cast<double>(values.size() * sizeof(T)), 0) != KVASIR_OK)
      fail(__FILE__, __LINE__, last_error());
  }
  kvasir_tensor floats(const std::vector<int32_t>& shape, const std::vector<float>& values, bool misaligned = false,
                       int32_t lifetime = KVASIR_STEP) {
    const kvasir_tensor id = misaligned ? make_misaligned(KVASIR_F32, shape) : make(KVASIR_F32, shape, lifetime);
    write(id, values);
    return id;
  }
  kvasir_tensor ints(const std::vector<int32_t>& shape, const std::vector<int32_t>& values) {
    const kvasir_tensor id = make(KVASIR_I32, shape);
    write(id, values);
    return id;
  }
  template <class T = float>
  std::vector<T> read(kvasir_tensor id, size_t count) {
    std::vector<T> values(count);
    if (kvasir_tensor_read(raw, values.data(), id, static_cast<double>(count)) != KVASIR_OK)
      fail(__FILE__, __LINE__, last_error());
    return values;
  }
};

// splitmix64: the same numbers on every machine.
struct Random {
  uint64_t state;
  explicit Random(uint64_t seed) : state(seed) {}
  uint64_t bits() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  float normal() {  // twelve uniforms: near enough, and exact everywhere
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += uniform();
    return static_cast<float>(sum);
  }
  std::vector<float> normals(size_t count, float scale = 1) {
    std::vector<float> values(count);
    for (float& v : values) v = normal() * scale;
    return values;
  }
};

}  // namespace kvasir_test

// The call fails with `status`, and its sentence contains `text`.
#define EXPECT_FAILS(call, status, text)                                                                      \
  do {                                                                                                        \
    const int32_t got_ = (call);                                                                              \
    const std::string sentence_ = kvasir_test::last_error();                                                  \
    if (got_ != (status) || sentence_.find(text) == std::string::npos)                                        \
      kvasir_test::fail(__FILE__, __LINE__, #call " gave " + std::to_string(got_) + ": " + sentence_);         \
  } while (0)
#define EXPECT_OK(call)                                                                                     \
  do {                                                                                                      \
    if ((call) != KVASIR_OK) kvasir_test::fail(__FILE__, __LINE__, #call ": " + kvasir_test::last_error()); \
  } while (0)
