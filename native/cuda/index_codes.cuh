// Key codes on the device: the numbers of native/index/codes.h and nibble_layout.h (chunks of 2048 keys about a centre, 4 bits with
// one bfloat16 scale per 32 rotated dimensions, or 8 bits), in a layout of the device's own: 16 bytes a lane and load.
//
// A chunk of one KV head:
//   centre  float [bands * 32], then the sum that it is the mean of, the same
//   blocks  [64] of 32 keys: codes [bands][pieces][32 keys][16 bytes] (pieces: 1 of 4 bits, 2 of 8), scales [bands][32 keys] bfloat16
// 4 bits: byte i of word j of a band has dimension 8j + i low, 8j + 4 + i high, both + 8. 8 bits: signed, in order.
//
// Ladder (not measured yet: no device was at hand)
//   1  a warp a key, a lane a dimension of the band: its rotation is five shuffles
#pragma once
#include "index_device.cuh"

namespace kvasir {

// What was added: keys [from, to) of the index, which begin at position `begin`.
struct EncodeArguments {
  RowTable rows;
  CodeLayout layout;
  uint8_t* const* chunks;  // from `first_chunk` on; the one before it is there too where `first_chunk` is not 0
  int32_t first_chunk, begin, from, to;
};

// Keys whose mean centres a chunk of `count`, as on the CPU.
__device__ inline int32_t centred_by(int32_t count) { return count < 32 ? 0 : count < 256 ? 32 : count < 1024 ? 256 : 1024; }

// Sets *bad where a key of the rows [from, to) is not finite. Grid: (keys / 8, heads), 256 threads.
__global__ void check_keys(const RowTable rows, int32_t from, int32_t to, int32_t* bad) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
  const int32_t position = from + static_cast<int32_t>(blockIdx.x * 8 + threadIdx.x / 32);
  if (position >= to) return;
  const KeyRow row = row_of(rows, static_cast<int32_t>(blockIdx.y), position);
  for (int32_t i = lane; i < rows.dim; i += 32) {
    const float x = row_element(row.key, rows.dtype, i) * row.key_scale;
    if (!(fabsf(x) <= 3.4028235e38f)) *bad = 1;
  }
}

// Centres of the chunks that got keys: the mean of the first 32 * 4^k or so, or the previous chunk's before there are 32. A thread
// a dimension adds rows one by one, as the CPU does. Grid: (chunks, heads), one thread a dimension.
__global__ void centre_codes(const EncodeArguments a, int32_t chunks_before) {
  const int32_t chunk = a.first_chunk + chunks_before + static_cast<int32_t>(blockIdx.x), head = static_cast<int32_t>(blockIdx.y);
  const size_t at = static_cast<size_t>(head) * static_cast<size_t>(a.layout.head_bytes);
  float* centre = reinterpret_cast<float*>(a.chunks[chunk - a.first_chunk] + at);
  float* sum = centre + a.layout.width;
  const int32_t first = chunk * kCodeChunk, had = at_least(0, a.from - first), has = at_most(a.to - first, kCodeChunk);
  const int32_t summed = centred_by(had), wanted = centred_by(has);
  for (int32_t d = static_cast<int32_t>(threadIdx.x); d < a.layout.width; d += static_cast<int32_t>(blockDim.x)) {
    if (had == 0) sum[d] = 0.0f, centre[d] = 0.0f;
    if (wanted == 0) {
      if (had == 0 && chunk > 0) centre[d] = reinterpret_cast<const float*>(a.chunks[chunk - a.first_chunk - 1] + at)[d];
      continue;
    }
    if (wanted == summed || d >= a.layout.dim) continue;
    float total = sum[d];
    for (int32_t i = summed; i < wanted; i++) {
      const KeyRow row = row_of(a.rows, head, a.begin + first + i);
      total += row_element(row.key, a.rows.dtype, d) * row.key_scale;
    }
    sum[d] = total;
    const float mean = total / static_cast<float>(wanted);
    centre[d] = fabsf(mean) < 1e36f ? mean : 0.0f;
  }
}

// The least bfloat16 that is not below x >= 0.
__device__ inline uint16_t bfloat_not_below(float x) { return static_cast<uint16_t>((__float_as_uint(x) + 0xffff) >> 16); }

// Over a band, whose dimension a lane holds: a Hadamard transform over sqrt(32), its own inverse.
__device__ inline float rotate_lane(float x, int32_t lane) {
  for (int32_t step = 1; step < kCodeBand; step *= 2) {
    const float other = __shfl_xor_sync(kFullWarp, x, step);
    x = (lane & step) != 0 ? other - x : x + other;
  }
  return x * 0.17677669529663687f;
}

// Codes of the keys that are new, or whose centre is. A warp a key. Grid: (chunks, heads), 256 threads.
template <bool kNibbles>
__global__ void encode_codes(const EncodeArguments a, int32_t chunks_before) {
  const int32_t chunk = a.first_chunk + chunks_before + static_cast<int32_t>(blockIdx.x), head = static_cast<int32_t>(blockIdx.y);
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32, warps = static_cast<int32_t>(blockDim.x) / 32;
  uint8_t* const data = a.chunks[chunk - a.first_chunk] + static_cast<size_t>(head) * static_cast<size_t>(a.layout.head_bytes);
  const float* centre = reinterpret_cast<const float*>(data);
  const int32_t first = chunk * kCodeChunk, has = at_most(a.to - first, kCodeChunk);
  int32_t had = at_least(0, a.from - first);
  if (centred_by(had) != centred_by(has)) had = 0;
  for (int32_t key = had + static_cast<int32_t>(threadIdx.x) / 32; key < has; key += warps) {
    const KeyRow row = row_of(a.rows, head, a.begin + first + key);
    uint8_t* block = data + a.layout.blocks_at + key / kCodeBlock * a.layout.block_bytes;
    for (int32_t band = 0; band < a.layout.bands; band++) {
      const int32_t d = band * kCodeBand + lane;
      float x = d < a.layout.dim ? row_element(row.key, a.rows.dtype, d) * row.key_scale - centre[d] : 0.0f;
      if (kNibbles) x = rotate_lane(x, lane);
      const float high = warp_max(x), low = -warp_max(-x), peak = fmaxf(high, -low);
      uint16_t scale = 0;
      if (peak > 1e-30f && peak < 1e37f) scale = bfloat_not_below(kNibbles ? peak * 0.125f : peak * (1 / 127.0f));
      // The extreme element becomes -8 times the scale, which may be negative: all 16 codes are used.
      if (kNibbles && scale != 0 && high == peak) scale = static_cast<uint16_t>(scale | 0x8000);
      const float wide = bfloat_to_float(scale), inverse = scale == 0 ? 0.0f : 1 / wide;
      const float scaled = scale == 0 ? 0.0f : x * inverse;
      const int32_t code = __float2int_rn(kNibbles ? fminf(scaled, 7.0f) : scaled);
      uint8_t* to = block + (band * a.layout.pieces * kCodeBlock + key % kCodeBlock) * 16;
      if (kNibbles) {
        // The lane of the low half writes both.
        const int32_t upper = __shfl_xor_sync(kFullWarp, code, 4);
        if ((lane & 4) == 0) to[lane / 8 * 4 + lane % 4] = static_cast<uint8_t>(((code + 8) & 15) | ((upper + 8) & 15) << 4);
      } else {
        to[lane / 16 * kCodeBlock * 16 + lane % 16] = static_cast<uint8_t>(code);
      }
      if (lane == 0) {
        reinterpret_cast<uint16_t*>(block + a.layout.scales_at)[band * kCodeBlock + key % kCodeBlock] = scale;
      }
    }
  }
}

}  // namespace kvasir
