// Sentences for machines that cannot run CUDA or lack its memory, the same from both runtimes.
#pragma once

namespace kvasir {

constexpr int kDriverNeeded = 13000;  // that of the CUDA the library is built with

// How sentences about memory that is out end: where it was, and what needs less of it.
constexpr const char* kWeightsTooLarge = " on the device, use a smaller or more quantized model, or backend \"cpu\"";
constexpr const char* kContextTooLarge =
    " on the device, use a smaller context, a cache of type i8, or backend \"hybrid:device=cuda,host=cpu\"";

[[noreturn]] void fail_driver(int version);             // 0: there is none
[[noreturn]] void fail_devices(int wanted, int found);  // throws Error{KVASIR_DEVICE}

}  // namespace kvasir
