// Products of bytes, for kernels of AVX-512. Include where __AVX512VNNI__ is defined only.
#pragma once
#include <immintrin.h>

namespace kvasir {
namespace {

// sum[i] += the four products of bytes 4i .. 4i + 3, of codes unsigned. The intrinsic gets two register copies a use from gcc 12.
inline void add_products(__m512i& sum, __m512i codes, __m512i q) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(q)); }

}  // namespace
}  // namespace kvasir
