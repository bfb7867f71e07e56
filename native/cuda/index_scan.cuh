// Scores of all keys of an index: by their codes or by their rows, as floats or as the 16-bit logarithms of
// native/index/sample_kernels.h, whose bits as a bfloat16 are about exp(score - ref), so that sums need no exponential.
//
// Ladder (not measured yet: no device was at hand)
//   1  a lane a key, 16 bytes of codes a load, dp4a with the group's queries from shared memory; logarithms are stored for the draw
#pragma once
#include "index_codes.cuh"
#include "mutants.h"
#include "sample_kernels.h"

namespace kvasir {

// q [heads, dim] as integers of 7 bits. Grid: heads, 128 threads.
template <bool kNibbles>
__global__ void prepare_queries(const IndexShape shape, const CodeLayout layout, const PreparedQueries to, const float* q,
                                const float* exact, SearchFlags* flags) {
  KVASIR_SHARED(float, turned, [4096 + 32]);
  KVASIR_SHARED(float, peaks, [4]);
  const int32_t head = static_cast<int32_t>(blockIdx.x), thread = static_cast<int32_t>(threadIdx.x), lane = thread % 32;
  const int32_t warp = thread / 32, warps = static_cast<int32_t>(blockDim.x) / 32;
  float peak = 0.0f;
  bool bad = false;
  for (int32_t band = warp; band < layout.bands; band += warps) {
    const int32_t d = band * kCodeBand + lane;
    float x = d < shape.dim ? q[static_cast<size_t>(head) * static_cast<size_t>(shape.dim) + static_cast<size_t>(d)] : 0.0f;
    bad = bad || !(fabsf(x) <= 3.4028235e38f);
    if (kNibbles) x = rotate_lane(x, lane);
    turned[d] = x;
    peak = fmaxf(peak, fabsf(x));
  }
  if (bad) flags->bad_query = 1;
  peak = warp_max(peak);
  if (lane == 0) peaks[warp] = peak;
  __syncthreads();
  for (int32_t w = 0; w < warps; w++) peak = fmaxf(peak, peaks[w]);
  const double step = static_cast<double>(peak) / 127;
  for (int32_t band = warp; band < layout.bands; band += warps) {
    const int32_t d = band * kCodeBand + lane;
    const int32_t code = step > 0 ? static_cast<int32_t>(rint(static_cast<double>(turned[d]) / step)) : 0;
    to.codes[static_cast<size_t>(head) * static_cast<size_t>(layout.width) + static_cast<size_t>(d)] = static_cast<int8_t>(code);
    const float sum = warp_sum(static_cast<float>(code));  // exact: at most 32 * 127
    if (lane == 0) to.offsets[head * layout.bands + band] = kNibbles ? -8 * static_cast<int32_t>(sum) : 0;
  }
  if (thread == 0) {
    to.factors[head] = static_cast<float>(step * static_cast<double>(shape.scale));
    const float known = exact[head];
    if (!(known < INFINITY)) flags->bad_exact = head + 1;
    if (known == -INFINITY || shape.softcap > 0.0f) flags->by_floats = 1;
  }
}

// q . centre of every chunk. A warp a chunk and head. Grid: (chunks / 8, heads), 256 threads.
__global__ void base_scores(const IndexShape shape, const CodeLayout layout, const PreparedQueries to, const float* q,
                            uint8_t* const* chunks, int32_t count) {
  const int32_t head = static_cast<int32_t>(blockIdx.y), lane = static_cast<int32_t>(threadIdx.x) % 32;
  const int32_t chunk = static_cast<int32_t>(blockIdx.x * 8 + threadIdx.x / 32);
  if (chunk >= count) return;
  const float* centre = reinterpret_cast<const float*>(
      chunks[chunk] + static_cast<size_t>(head / shape.group) * static_cast<size_t>(layout.head_bytes));
  float dot = 0.0f;
  for (int32_t d = lane; d < shape.dim; d += 32) dot += q[head * shape.dim + d] * centre[d];
  dot = warp_sum(dot);
  if (lane == 0) to.bases[chunk * shape.heads + head] = dot * shape.scale;
}

__device__ inline float log_value(int32_t log) { return __uint_as_float(static_cast<uint32_t>(log) << 16); }
// The logarithm of a score: given already as kLogUnit * (score - ref) + kLogOne.
__device__ inline int32_t to_log(float x) {
  const float low = x > static_cast<float>(kLogLeast) ? x : static_cast<float>(kLogLeast);
  return static_cast<int32_t>((low < 32767.0f ? low : 32767.0f) + 0.5f);
}

// Grid: (blocks of kScanKeys, KV heads), kScanThreads. kLogs: returns at once where flags say by_floats; else the other way round
// (`always`: whatever they say).
template <bool kNibbles, bool kLogs>
__global__ void scan_codes(const IndexShape shape, const CodeLayout layout, const PreparedQueries query, uint8_t* const* chunks,
                           const float* exact, const ScoreOut to, SearchFlags* flags, bool always) {
  KVASIR_DYNAMIC_SHARED(uint8_t, shared);
  if (!always && (flags->by_floats != 0) == kLogs) return;
  const int32_t group = shape.group, kv_head = static_cast<int32_t>(blockIdx.y), words = layout.width / 4;
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kScanKeys, chunk = first / kCodeChunk;
  int32_t* const q = reinterpret_cast<int32_t*>(shared);         // [group][words]
  int32_t* const offsets = q + group * words;                    // [group][bands]
  float* const folded = reinterpret_cast<float*>(offsets + group * layout.bands);
  const int32_t* from = reinterpret_cast<const int32_t*>(query.codes) + static_cast<size_t>(kv_head) * group * words;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < group * words; i += kScanThreads) q[i] = from[i];
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < group * layout.bands; i += kScanThreads) {
    offsets[i] = query.offsets[kv_head * group * layout.bands + i];
  }
  __syncthreads();
  const uint8_t* codes = chunks[chunk] + static_cast<size_t>(kv_head) * static_cast<size_t>(layout.head_bytes) + layout.blocks_at;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % 32;
  for (int32_t g0 = 0; g0 < group; g0 += 4) {
    const int32_t some = at_most(4, group - g0);
    float fold[4];
    for (int32_t g = 0; g < 4; g++) fold[g] = kLogs ? 0.0f : -INFINITY;
    for (int32_t block = static_cast<int32_t>(threadIdx.x) / 32; block < kScanKeys / kCodeBlock; block += kScanThreads / 32) {
      const int32_t key = first + block * kCodeBlock + lane;
      if (key >= to.keys) continue;
      const uint8_t* at = codes + (key % kCodeChunk) / kCodeBlock * layout.block_bytes;
      float logits[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int32_t band = 0; band < layout.bands; band++) {
        int32_t sums[4] = {0, 0, 0, 0};
        for (int32_t piece = 0; piece < (kNibbles ? 1 : 2); piece++) {
          const uint4 sixteen = *reinterpret_cast<const uint4*>(at + ((band * layout.pieces + piece) * kCodeBlock + lane) * 16);
          const uint32_t four[4] = {sixteen.x, sixteen.y, sixteen.z, sixteen.w};
#pragma unroll
          for (int32_t g = 0; g < 4; g++) {
            if (g >= some) break;
            const int32_t* own = q + (g0 + g) * words + band * 8 + piece * 4;
#pragma unroll
            for (int32_t j = 0; j < 4; j++) {
              if (kNibbles) {
                sums[g] = __dp4a(static_cast<int>(four[j] & 0x0f0f0f0fu), own[2 * j], sums[g]);
                sums[g] = __dp4a(static_cast<int>(four[j] >> 4 & 0x0f0f0f0fu), own[2 * j + 1], sums[g]);
              } else {
                sums[g] = __dp4a(static_cast<int>(four[j]), own[j], sums[g]);
              }
            }
          }
        }
        const float scale = bfloat_to_float(reinterpret_cast<const uint16_t*>(at + layout.scales_at)[band * kCodeBlock + lane]);
#pragma unroll
        for (int32_t g = 0; g < 4; g++) {
          if (g >= some) break;
          const int32_t offset = is_seeded(Mutant::kScanOffset) ? 0 : offsets[(g0 + g) * layout.bands + band];
          logits[g] += static_cast<float>(sums[g] + offset) * scale;
        }
      }
#pragma unroll
      for (int32_t g = 0; g < 4; g++) {
        if (g >= some) break;
        const int32_t head = kv_head * group + g0 + g;
        const float base = query.bases[chunk * shape.heads + head];
        const size_t out = static_cast<size_t>(head) * to.stride + static_cast<size_t>(key);
        if (kLogs) {
          const int32_t log = to_log(logits[g] * (query.factors[head] * kLogUnit) + ((base - exact[head]) * kLogUnit + kLogOne));
          to.logs[out] = static_cast<int16_t>(log);
          fold[g] += log_value(log);
        } else {
          float x = logits[g] * query.factors[head] + base;
          if (shape.softcap > 0.0f) x = shape.softcap * tanhf(x / shape.softcap);
          to.scores[out] = x;
          fold[g] = fmaxf(fold[g], x);
        }
      }
    }
    for (int32_t g = 0; g < some; g++) {
      float* out = to.parts + static_cast<size_t>(blockIdx.x) * static_cast<size_t>(shape.heads) + (kv_head * group + g0 + g);
      fold_block<kLogs>(folded, out, fold[g]);
      if (kLogs && threadIdx.x == 0 && !(*out < 1e30f)) flags->by_floats = 1;
    }
  }
}

// The same by rows, a warp a key, as floats; with `softened` after the softcap. Grid: (blocks of kScanKeys, KV heads), kScanThreads.
__global__ void scan_rows(const IndexShape shape, const RowTable rows, int32_t begin, const float* q, const ScoreOut to, bool softened) {
  KVASIR_SHARED(float, folded, [kScanThreads / 32]);
  const int32_t group = shape.group, kv_head = static_cast<int32_t>(blockIdx.y), lane = static_cast<int32_t>(threadIdx.x) % 32;
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kScanKeys, end = at_most(first + kScanKeys, to.keys);
  for (int32_t g0 = 0; g0 < group; g0 += 4) {
    const int32_t some = at_most(4, group - g0);
    float most[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    for (int32_t key = first + static_cast<int32_t>(threadIdx.x) / 32; key < end; key += kScanThreads / 32) {
      const KeyRow row = row_of(rows, kv_head, begin + key);
      float dots[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int32_t d = lane; d < shape.dim; d += 32) {
        const float x = row_element(row.key, rows.dtype, d);
        for (int32_t g = 0; g < some; g++) dots[g] += x * q[(kv_head * group + g0 + g) * shape.dim + d];
      }
      for (int32_t g = 0; g < some; g++) {
        float x = warp_sum(dots[g]) * shape.scale * row.key_scale;
        if (softened && shape.softcap > 0.0f) x = shape.softcap * tanhf(x / shape.softcap);
        most[g] = fmaxf(most[g], x);
        if (lane == 0) to.scores[static_cast<size_t>(kv_head * group + g0 + g) * to.stride + static_cast<size_t>(key)] = x;
      }
    }
    for (int32_t g = 0; g < some; g++) {
      fold_block<false>(folded, to.parts + static_cast<size_t>(blockIdx.x) * static_cast<size_t>(shape.heads) + (kv_head * group + g0 + g),
                        most[g]);
    }
  }
}

// refs [heads], where logarithms are made of floats: what is attended exactly, as on the CPU; the greatest score instead where that is
// nothing, or scores are so far above it that sums are no numbers. Grid: heads, 1 warp.
__global__ void find_references(const IndexShape shape, const ScoreOut of, const float* exact, float* refs, const SearchFlags* flags,
                                bool always) {
  constexpr float kFar = 64.0f;  // e^64 is 1e28
  const int32_t head = static_cast<int32_t>(blockIdx.x), lane = static_cast<int32_t>(threadIdx.x);
  const float known = exact[head];
  float most = known;
  if (always || flags->by_floats != 0) {
    for (int32_t b = lane; b < of.blocks; b += 32) most = fmaxf(most, of.parts[b * shape.heads + head]);
    most = warp_max(most);
    if (always && known != -INFINITY && most - known < kFar) most = known;
  }
  if (lane == 0) refs[head] = most;
}

// Logarithms of floats relative to refs. Grid: (blocks of kScanKeys, heads), kScanThreads.
__global__ void fold_scores(const IndexShape shape, const ScoreOut of, const float* refs, const SearchFlags* flags, bool always) {
  KVASIR_SHARED(float, folded, [kScanThreads / 32]);
  if (!always && flags->by_floats == 0) return;
  const int32_t head = static_cast<int32_t>(blockIdx.y);
  float sum = 0.0f;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < kScanKeys; i += kScanThreads) {
    const int32_t key = static_cast<int32_t>(blockIdx.x) * kScanKeys + i;
    if (key >= of.keys) break;
    const size_t at = static_cast<size_t>(head) * of.stride + static_cast<size_t>(key);
    const int32_t log = to_log((of.scores[at] - refs[head]) * kLogUnit + static_cast<float>(kLogOne));
    of.logs[at] = static_cast<int16_t>(log);
    sum += log_value(log);
  }
  fold_block<true>(folded, of.parts + static_cast<size_t>(blockIdx.x) * static_cast<size_t>(shape.heads) + head, sum);
}

}  // namespace kvasir
