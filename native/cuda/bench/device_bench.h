// What benches of kernels on a device share.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "deviation.h"
#include "error.h"
#include "kvasir_backend.h"
#include "options.h"
#include "runtime.h"

namespace kvasir {

constexpr float kError = 0.05f;  // of sampled attention

// What a kernel costs is timed without graphs.
inline Options one_by_one(bool wgmma, bool tma) {
  Options options;
  options.graphs = false, options.wgmma = wgmma, options.tma = tma;
  return options;
}

struct Bench {
  std::unique_ptr<Runtime> runtime;
  bool tiny = false;
  double copy_rate = 0;  // GB/s, both directions counted

  explicit Bench(bool wgmma = true, bool tma = true) : runtime(Runtime::open(one_by_one(wgmma, tma))) {}

  // Milliseconds of one call: the best of some rounds.
  double time(const std::function<void()>& body, int32_t calls) {
    body();
    double best = 1e30;
    for (int32_t round = 0; round < (tiny ? 1 : 5); round++) {
      runtime->mark();
      for (int32_t i = 0; i < calls; i++) body();
      runtime->mark();
      best = std::min(best, runtime->elapsed() / calls);
    }
    return best;
  }
};

class Buffer {
 public:
  Buffer(Runtime& runtime, size_t bytes, bool on_host = false)
      : runtime_(runtime), on_host_(on_host), data_(on_host ? runtime.allocate_host(bytes) : runtime.allocate(bytes)) {
    if (data_ == nullptr) fail(KVASIR_MEMORY, "no %zu bytes on the %s", bytes, on_host ? "host" : "device");
  }
  ~Buffer() { on_host_ ? runtime_.free_host(data_) : runtime_.free(data_); }
  Buffer(const Buffer&) = delete;
  template <class T> T* as() const { return static_cast<T*>(data_); }

 private:
  Runtime& runtime_;
  bool on_host_;
  void* data_;
};

inline void retain_nothing(kvasir_memory*) {}

// Mean over heads of |got - want| / |want|.
inline double relative_error(const std::vector<float>& got, const std::vector<float>& want, int32_t dim) {
  return kvasir_bench::mean_deviation(got.data(), want.data(), want.size(), static_cast<size_t>(dim));
}

}  // namespace kvasir
