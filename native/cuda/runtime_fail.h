// Sentences for machines that cannot run CUDA, the same from both runtimes.
#pragma once

namespace kvasir {

constexpr int kDriverNeeded = 13000;  // that of the CUDA the library is built with

[[noreturn]] void fail_driver(int version);             // 0: there is none
[[noreturn]] void fail_devices(int wanted, int found);  // throws Error{KVASIR_DEVICE}

}  // namespace kvasir
