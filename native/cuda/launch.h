// Launches, for files with kernels:
//   launch(runtime, "rms_norm", rms_norm_kernel<4>, grid, block, shared_bytes, args...)
#pragma once
#include <tuple>
#include <type_traits>
#include <utility>

#include "device.h"
#include "runtime.h"

namespace kvasir {

#ifdef KVASIR_EMULATION
template <class... P, size_t... I>
void run_kernel_of(const void* kernel, void** args, std::index_sequence<I...>) {
  (reinterpret_cast<void (*)(P...)>(const_cast<void*>(kernel)))(*static_cast<P*>(args[I])...);
}
template <class... P>
void run_kernel(const void* kernel, void** args) {
  run_kernel_of<P...>(kernel, args, std::index_sequence_for<P...>());
}
#endif

template <class... P, class... A>
void launch(Runtime& runtime, const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "one argument a parameter");
  static_assert((std::is_trivially_copyable_v<P> && ...), "arguments are kept as their bytes");
  static constexpr uint32_t kSizes[] = {static_cast<uint32_t>(sizeof(P))..., 0};
  std::tuple<P...> values(std::forward<A>(args)...);
  std::apply([&](auto&... v) {
    void* pointers[] = {const_cast<void*>(static_cast<const void*>(&v))..., nullptr};
    KernelLaunch call{};
    call.name = name, call.kernel = reinterpret_cast<const void*>(kernel);
    call.grid = grid, call.block = block, call.shared = shared;
    call.args = pointers, call.sizes = kSizes, call.count = static_cast<int32_t>(sizeof...(P));
#ifdef KVASIR_EMULATION
    call.run = run_kernel<P...>;
#endif
    runtime.launch(call);
  }, values);
}

// Blocks of `size` that cover count.
inline uint32_t blocks_of(int64_t count, int64_t size) { return static_cast<uint32_t>((count + size - 1) / size); }

}  // namespace kvasir
