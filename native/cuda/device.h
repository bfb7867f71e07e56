// What kernels are written in: CUDA, or its emulation (KVASIR_EMULATION), with the few things that differ behind one name.
//   KVASIR_SHARED(float, tile, [64][33]);      __shared__ float tile[64][33]
//   KVASIR_DYNAMIC_SHARED(float, buffer);      extern __shared__ float buffer[], aligned to 16 bytes
// Numbers of 16 bits travel as their bits, in uint16_t and, two by two (the first one low), in uint32_t.
#pragma once
#include <cstddef>
#include <cstdint>

#ifdef KVASIR_EMULATION
#include "emulation.h"
#include "half.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

namespace kvasir {

constexpr uint32_t kFullWarp = ~0u;

#ifdef KVASIR_EMULATION

// The lambda is the array's identity: one a place in the source and instance of a template.
#define KVASIR_SHARED(type, name, dims)                                                                               \
  static const char KVASIR_PASTE(name, _key) = 0;                                                                     \
  auto& name = *static_cast<type(*) dims>(::kvasir::emulation::shared(&KVASIR_PASTE(name, _key), sizeof(type dims),   \
                                                                      {__FILE__, __LINE__}))
#define KVASIR_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(::kvasir::emulation::dynamic_shared())
#define KVASIR_PASTE(a, b) a##b

inline uint16_t float_to_half(float x) {  // to nearest, ties to even
  const uint32_t bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (rest >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (rest < 0x38800000) {  // subnormal: adding 0.5 leaves multiples of 2^-24 in the low bits
    const uint32_t sum = __float_as_uint(__uint_as_float(rest) + 0.5f);
    return static_cast<uint16_t>(sign | (sum - 0x3f000000));
  }
  return static_cast<uint16_t>(sign | ((rest + 0xfff + (rest >> 13 & 1) - 0x38000000) >> 13));
}
inline uint16_t float_to_bfloat(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline uint32_t pack_half2(float low, float high) {
  return float_to_half(low) | static_cast<uint32_t>(float_to_half(high)) << 16;
}
inline uint32_t pack_bfloat2(float low, float high) {
  return float_to_bfloat(low) | static_cast<uint32_t>(float_to_bfloat(high)) << 16;
}
inline float2 unpack_half2(uint32_t x) {
  return {half_to_float(static_cast<uint16_t>(x)), half_to_float(static_cast<uint16_t>(x >> 16))};
}

#else  // CUDA

#define KVASIR_SHARED(type, name, dims) __shared__ type name dims
#define KVASIR_DYNAMIC_SHARED(type, name)                   \
  extern __shared__ __align__(16) uint8_t kvasir_shared[];  \
  type* name = reinterpret_cast<type*>(kvasir_shared)

__device__ __forceinline__ float half_to_float(uint16_t h) { return __half2float(__ushort_as_half(h)); }
__device__ __forceinline__ uint16_t float_to_half(float x) { return __half_as_ushort(__float2half_rn(x)); }
__device__ __forceinline__ uint16_t float_to_bfloat(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
__device__ __forceinline__ uint32_t pack_half2(float low, float high) {
  const __half2 h = __floats2half2_rn(low, high);
  return static_cast<uint32_t>(__half_as_ushort(h.x)) | static_cast<uint32_t>(__half_as_ushort(h.y)) << 16;
}
__device__ __forceinline__ uint32_t pack_bfloat2(float low, float high) {
  const __nv_bfloat162 h = __floats2bfloat162_rn(low, high);
  return static_cast<uint32_t>(__bfloat16_as_ushort(h.x)) | static_cast<uint32_t>(__bfloat16_as_ushort(h.y)) << 16;
}
__device__ __forceinline__ float2 unpack_half2(uint32_t x) {
  return make_float2(half_to_float(static_cast<uint16_t>(x)), half_to_float(static_cast<uint16_t>(x >> 16)));
}
__device__ __forceinline__ float bfloat_to_float(uint16_t b) { return __uint_as_float(static_cast<uint32_t>(b) << 16); }

#endif

// Over all lanes of the warp, which must all be there; each gets the result.
__device__ __forceinline__ float warp_sum(float x) {
  for (int bits = 16; bits > 0; bits >>= 1) x += __shfl_xor_sync(kFullWarp, x, bits);
  return x;
}
__device__ __forceinline__ double warp_sum(double x) {
  for (int bits = 16; bits > 0; bits >>= 1) x += __shfl_xor_sync(kFullWarp, x, bits);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int bits = 16; bits > 0; bits >>= 1) x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, bits));
  return x;
}

}  // namespace kvasir
