// Launches, for files with kernels:
//   launch(runtime, "rms_norm", rms_norm_kernel<4>, grid, block, shared_bytes, args...)
#pragma once
#include "device.h"
#include "runtime.h"

namespace kvasir {

template <class... P, class... A>
void launch(Runtime& runtime, const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "one argument a parameter");
  std::tuple<P...> values(std::forward<A>(args)...);
#ifdef KVASIR_EMULATION
  runtime.launch(name, grid, block, shared, [&] { std::apply(kernel, values); });
#else
  std::apply([&](auto&... v) {
    void* pointers[] = {const_cast<void*>(static_cast<const void*>(&v))..., nullptr};
    runtime.launch(name, reinterpret_cast<const void*>(kernel), grid, block, shared, pointers);
  }, values);
#endif
}

// Blocks of `size` that cover count.
inline uint32_t blocks_of(int64_t count, int64_t size) { return static_cast<uint32_t>((count + size - 1) / size); }

}  // namespace kvasir
