// Bodies of SampleKernels for every instruction set: see sample_kernels.h. Included once per set.
#pragma once
#include <algorithm>
#include <cstring>
#include <type_traits>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "code_kernels.h"
#include "draw.h"
#include "nibble_planes.h"
#include "sample_kernels.h"

namespace kvasir {
namespace {

// Calls body(heads, first) for four heads of a group at a time, then for those that are left; heads is a constant of the type.
template <class F>
inline void by_fours(int32_t group, F&& body) {
  int32_t g = 0;
  for (; group - g >= 4; g += 4) body(std::integral_constant<int32_t, 4>(), g);
  if (group - g == 3) body(std::integral_constant<int32_t, 3>(), g);
  else if (group - g == 2) body(std::integral_constant<int32_t, 2>(), g);
  else if (group - g == 1) body(std::integral_constant<int32_t, 1>(), g);
}

constexpr int32_t kFoldLanes = kFoldSums;
typedef float FoldFloats __attribute__((vector_size(64)));
typedef int32_t FoldInts __attribute__((vector_size(64)));
typedef int16_t FoldShorts __attribute__((vector_size(32)));

#if defined(__AVX512F__)
inline __m512i fold_register(__m512 scores, __m512 ref) {
  const __m512 x = _mm512_fmadd_ps(_mm512_sub_ps(scores, ref), _mm512_set1_ps(kLogUnit), _mm512_set1_ps(kLogOne));
  return _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(kLogLeast)), _mm512_set1_ps(kLogMost)));
}
#endif

inline void fold_lanes(FoldInts* logs, const float* scores, float ref) {
#if defined(__AVX512F__)
  const __m512i nearest = fold_register(_mm512_loadu_ps(scores), _mm512_set1_ps(ref));
  std::memcpy(logs, &nearest, sizeof nearest);
#else
  FoldFloats x;
  std::memcpy(&x, scores, sizeof x);
  x = (x - ref) * kLogUnit + static_cast<float>(kLogOne);
  x = x > static_cast<float>(kLogLeast) ? x : static_cast<float>(kLogLeast) - FoldFloats{};
  x = x < static_cast<float>(kLogMost) ? x : static_cast<float>(kLogMost) - FoldFloats{};
  *logs = (FoldInts)(x + 0x1.8p23f) - 0x4b400000;  // the nearest integer
#endif
}

void fold_scores(int16_t* out, const float* scores, int32_t count, float ref, float* to) {
  FoldInts logs;
  FoldFloats sums;
  std::memcpy(&sums, to, sizeof sums);
  int32_t i = 0;
  for (; i + kFoldLanes <= count; i += kFoldLanes) {
    fold_lanes(&logs, scores + i, ref);
    const FoldShorts narrow = __builtin_convertvector(logs, FoldShorts);
    std::memcpy(out + i, &narrow, sizeof narrow);
    sums += (FoldFloats)(logs << 16);
  }
  if (i < count) {
    float last[kFoldLanes] = {};
    std::memcpy(last, scores + i, static_cast<size_t>(count - i) * sizeof(float));
    fold_lanes(&logs, last, ref);
    for (int32_t lane = 0; lane < count - i; lane++) {
      out[i + lane] = static_cast<int16_t>(logs[lane]);
      sums[lane] += widen_bfloat(static_cast<uint16_t>(out[i + lane]));
    }
  }
  std::memcpy(to, &sums, sizeof sums);
}

// Uniforms of a block: 16 hashes, the lower half of hash j for key 2j, the upper for 2j + 1.
[[maybe_unused]] int32_t draw_plain(const Candidates& found, const int16_t* logs, size_t stride, const int16_t* offsets,
                                    int32_t group, int32_t block, int32_t blocks, uint32_t key) {
  int32_t count = 0;
  for (int32_t b = 0; b < blocks; b++) {
    const int32_t first = b * kNibbleBlock;
    int16_t top[kNibbleBlock];
    uint16_t uniform[kNibbleBlock];
    for (int32_t i = 0; i < kNibbleBlock; i++) top[i] = kDrawLeast;
    for (int32_t g = 0; g < group; g++) {
      const int16_t* row = logs + static_cast<size_t>(g) * stride + first;
      const int32_t offset = offsets[g];
      for (int32_t i = 0; i < kNibbleBlock; i++) {
        const int32_t sum = row[i] + offset, kept = sum > INT16_MAX ? INT16_MAX : sum;
        top[i] = kept > top[i] ? static_cast<int16_t>(kept) : top[i];
      }
    }
    for (int32_t j = 0; j < kNibbleBlock / 2; j++) {
      const uint32_t h = lowbias32(static_cast<uint32_t>((block + b) * (kNibbleBlock / 2) + j) ^ key);
      const float low = static_cast<float>(static_cast<int32_t>(h & 0xffff));
      const float high = static_cast<float>(static_cast<int32_t>(h >> 16));
      uint32_t bits[2];
      std::memcpy(bits, &low, 4), std::memcpy(bits + 1, &high, 4);
      uniform[2 * j] = static_cast<uint16_t>(bits[0] >> 16), uniform[2 * j + 1] = static_cast<uint16_t>(bits[1] >> 16);
    }
    uint8_t kept[kNibbleBlock];
    uint8_t any = 0;
    for (int32_t i = 0; i < kNibbleBlock; i++) kept[i] = static_cast<int16_t>(uniform[i]) <= top[i] ? 1 : 0;
    for (int32_t i = 0; i < kNibbleBlock; i++) any |= kept[i];
    if (any == 0) continue;
    for (int32_t i = 0; i < kNibbleBlock; i++) {
      found.keys[count] = first + i;
      for (int32_t g = 0; g < group; g++) {
        found.logs[static_cast<size_t>(g) * found.stride + static_cast<size_t>(count)] =
            logs[static_cast<size_t>(g) * stride + static_cast<size_t>(first + i)];
      }
      count += kept[i];
    }
  }
  return count;
}

// Four bytes of a plane times 16 dimensions.
[[maybe_unused]] inline int32_t dot_twos(const uint8_t* plane, const int8_t* dims) {
  int32_t sum = 0;
  for (int32_t t = 0; t < 4; t++) {
    for (int32_t x = 0; x < 4; x++) sum += (plane[x] >> 2 * t & 3) * dims[4 * t + x];
  }
  return sum;
}

[[maybe_unused]] void scan_plain_logs(int16_t* out, size_t stride, const CodeShape& shape, const CodeQuery& query,
                                      const float* gains, const float* bases, const uint8_t* codes, int32_t blocks,
                                      const ScanAhead&, float* sums) {
  for (int32_t b = 0; b < blocks; b++, codes += shape.block_bytes) {
    for (int32_t g = 0; g < query.group; g++) {
      const int8_t* q = query.rows + static_cast<size_t>(g) * query.row_bytes;
      float scores[kNibbleBlock] = {};
      for (int32_t band = 0; band < shape.bands; band++) {
        for (int32_t i = 0; i < kNibbleBlock; i++) {
          int32_t sum = query.coarse[g * shape.bands + band];
          for (int32_t j = 0; j < 2; j++) sum += dot_twos(codes + coarse_at(i, band, j), q + band * kNibbleBand + 16 * j);
          uint16_t scale;
          std::memcpy(&scale, codes + coarse_scale_at(i, band, shape.bands), 2);
          scores[i] += static_cast<float>(sum) * widen_bfloat(scale);
        }
      }
      for (int32_t i = 0; i < kNibbleBlock; i++) {
        const float x = scores[i] * gains[g] + bases[g];
        const float low = x > kLogLeast ? x : kLogLeast, most = low < INT16_MAX ? low : INT16_MAX;
        const int16_t log = static_cast<int16_t>(most + 0.5f);
        out[static_cast<size_t>(g) * stride + b * kNibbleBlock + i] = log;
        sums[g] += widen_bfloat(static_cast<uint16_t>(log));
      }
    }
  }
}

typedef uint32_t FoldWords __attribute__((vector_size(64)));

// Vectors go by pointer: without AVX-512 they are no types of the calling convention.
inline void hash_words(FoldWords* x) {
  *x ^= *x >> 16;
  *x *= 0x7feb352du;
  *x ^= *x >> 15;
  *x *= 0x846ca68bu;
  *x ^= *x >> 16;
}

// x := 2^x, x in [0, 1): Taylor's series about the middle, relative error 6e-8 with float rounding.
inline void raise_two(FoldFloats* x) {
  const FoldFloats y = (*x - 0.5f) * 0.69314718f;
  FoldFloats p = y * (1.0f / 5040) + 1.0f / 720;
  p = p * y + 1.0f / 120;
  p = p * y + 1.0f / 24;
  p = p * y + 1.0f / 6;
  p = p * y + 0.5f;
  p = p * y + 1.0f;
  p = p * y + 1.0f;
  *x = p * 1.41421356f;
}

// log := logarithms of 16 candidates, plus what makes them those of p * 2^16.
inline void load_logs(FoldInts* log, const Candidates& of, int32_t g, int32_t i, const int16_t* offsets) {
  FoldShorts row;
  std::memcpy(&row, of.logs + static_cast<size_t>(g) * of.stride + i, sizeof row);
  *log = __builtin_convertvector(row, FoldInts) + static_cast<int32_t>(offsets[g]);
}

// Of lanes from 0 to 2^30.
inline int64_t sum_lanes(const FoldInts& terms) {
#if defined(__AVX512F__)
  __m512i x;
  std::memcpy(&x, &terms, sizeof x);
  const __m512i odd = _mm512_srli_epi64(x, 32), even = _mm512_and_si512(x, _mm512_set1_epi64(0xffffffff));
  return _mm512_reduce_add_epi64(_mm512_add_epi64(odd, even));
#else
  int64_t sum = 0;
  for (int32_t lane = 0; lane < kFoldLanes; lane++) sum += terms[lane];
  return sum;
#endif
}

// Writes positions and tops of the lanes that stay, in order, and nothing behind them: there lie the next chunk's candidates.
// Returns how many. No branch: what goes and what stays alternates by chance.
inline int32_t keep_lanes(int32_t* keys, int16_t* tops, const FoldInts& position, const FoldInts& top, const FoldInts& stays) {
#if defined(__AVX512F__)
  __m512i p, t, s;
  std::memcpy(&p, &position, sizeof p), std::memcpy(&t, &top, sizeof t), std::memcpy(&s, &stays, sizeof s);
  const __mmask16 mask = _mm512_movepi32_mask(s);
  const int32_t kept = __builtin_popcount(mask);
  const __mmask16 front = static_cast<__mmask16>((1u << kept) - 1);
  _mm512_mask_storeu_epi32(keys, front, _mm512_maskz_compress_epi32(mask, p));
  _mm256_mask_storeu_epi16(tops, front, _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(mask, t)));
  return kept;
#else
  int32_t some[kFoldLanes + 1], kept = 0;
  int16_t some_tops[kFoldLanes + 1];
  for (int32_t lane = 0; lane < kFoldLanes; lane++) {
    some[kept] = position[lane], some_tops[kept] = static_cast<int16_t>(top[lane]);
    kept -= stays[lane];
  }
  std::memcpy(keys, some, static_cast<size_t>(kept) * sizeof *keys);
  std::memcpy(tops, some_tops, static_cast<size_t>(kept) * sizeof *tops);
  return kept;
#endif
}

// Uniforms of positions: 16 bits of a first stage, as an upper half of a float.
inline void first_uniforms(FoldInts* uniform, const FoldInts& position, uint32_t key) {
  FoldWords hash = (FoldWords)(position >> 1) ^ key;
  hash_words(&hash);
  const FoldInts half = (FoldInts)((position & 1) == 0 ? hash & 0xffffu : hash >> 16);
  *uniform = (FoldInts)__builtin_convertvector(half, FoldFloats) >> 16;
}

// How many of the 65536 uniforms of the first stage a top of kDrawLeast or more, x = top - kDrawOne, lets through.
inline void count_passed(FoldFloats* passed, const FoldInts& x) {
  const FoldFloats bound = (FoldFloats)((x + kDrawOne + 1) << 16);
  const FoldInts whole = __builtin_convertvector(bound, FoldInts);
  const FoldInts through = whole - (FoldInts)(__builtin_convertvector(whole, FoldFloats) < bound);
  const FoldInts all = FoldInts{} + 65536;
  *passed = __builtin_convertvector(through < 65536 ? through : all, FoldFloats);
}

// top := the largest of a candidate's logarithms with offsets, kDrawLeast at least.
inline void top_of(FoldInts* top, const Candidates& of, const int16_t* offsets, int32_t group, int32_t i) {
  const FoldInts zero = {};
  *top = zero + kDrawLeast;
  FoldInts log;
  for (int32_t g = 0; g < group; g++) {
    load_logs(&log, of, g, i, offsets);
    log = log < INT16_MAX ? log : zero + INT16_MAX;
    *top = log > *top ? log : *top;
  }
}

[[maybe_unused]] void refine_plain(int16_t* out, const Candidates& of, int32_t count, const CodeShape& shape, const CodeQuery& query,
                                   const float* gains, const uint8_t* codes, const uint8_t* fine) {
  for (int32_t i = 0; i < count; i++) {
    const uint8_t* row = fine + static_cast<size_t>(of.keys[i]) * static_cast<size_t>(shape.bands * kFineBandBytes);
    const uint8_t* block = codes + static_cast<size_t>(of.keys[i] / kNibbleBlock) * shape.block_bytes;
    for (int32_t g = 0; g < query.group; g++) {
      const int8_t* q = query.rows + static_cast<size_t>(g) * query.row_bytes;
      float added = 0;
      for (int32_t band = 0; band < shape.bands; band++) {
        int32_t sum = query.fine[g * shape.bands + band];
        for (int32_t j = 0; j < 2; j++) sum += dot_twos(row + band * kFineBandBytes + 4 * j, q + band * kNibbleBand + 16 * j);
        uint16_t scale;
        std::memcpy(&scale, block + coarse_scale_at(of.keys[i] % kNibbleBlock, band, shape.bands), 2);
        added += static_cast<float>(sum) * widen_bfloat(scale);
      }
      const size_t to = static_cast<size_t>(g) * of.stride + static_cast<size_t>(i);
      const float log = static_cast<float>(of.logs[to]) + added * gains[g];
      const float low = log > kLogLeast ? log : kLogLeast, most = low < INT16_MAX ? low : INT16_MAX;
      out[to] = static_cast<int16_t>(most + 0.5f);
    }
  }
}

int32_t sift_keys(const Candidates& of, const int16_t* refined, int16_t* tops, const int16_t* offsets, int32_t group, int32_t first,
                  int32_t end, int32_t count, const DrawKeys& draw, float* sums) {
  const FoldInts lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const FoldInts zero = {};
  int32_t kept = 0;
  for (int32_t i = 0; i < count; i += kFoldLanes) {
    FoldInts key, top, uniform;
    std::memcpy(&key, of.keys + i, sizeof key);
    top_of(&top, of, offsets, group, i);
    first_uniforms(&uniform, key + first, draw.first);
    const FoldInts stays = (FoldInts)(uniform <= top) & (key + first < end) & (lanes < count - i);
    for (int32_t g = 0; g < group; g++) {
      FoldShorts row;
      std::memcpy(&row, refined + static_cast<size_t>(g) * of.stride + i, sizeof row);
      const FoldInts log = __builtin_convertvector(row, FoldInts);
      int32_t unused[kFoldLanes];
      keep_lanes(unused, of.logs + static_cast<size_t>(g) * of.stride + kept, key, log, stays);
    }
    kept += keep_lanes(of.keys + kept, tops + kept, key, top, stays);
  }
  // Four heads at a time share the division.
  for (int32_t first_head = 0; first_head < group; first_head += 4) {
    const int32_t heads = std::min(4, group - first_head);
    FoldFloats totals[4] = {};
    for (int32_t i = 0; i < kept; i += kFoldLanes) {
      FoldShorts top;
      std::memcpy(&top, tops + i, sizeof top);
      const FoldInts x = __builtin_convertvector(top, FoldInts) - kDrawOne;
      FoldFloats passed;
      count_passed(&passed, x < 0 ? x : zero);
      const FoldFloats weight = 1.0f / passed;
      for (int32_t g = 0; g < heads; g++) {
        FoldShorts log;
        std::memcpy(&log, of.logs + static_cast<size_t>(first_head + g) * of.stride + i, sizeof log);
        const FoldFloats value = (FoldFloats)(__builtin_convertvector(log, FoldInts) << 16) * weight;
        totals[g] += (FoldFloats)((FoldInts)value & (lanes < kept - i));
      }
    }
    for (int32_t g = 0; g < heads; g++) {
      float sum = 0;
      for (int32_t lane = 0; lane < kFoldLanes; lane++) sum += totals[g][lane];
      sums[first_head + g] += sum * 65536.0f;
    }
  }
  return kept;
}

int32_t settle_keys(const Candidates& of, int16_t* tops, const int16_t* offsets, int32_t group, int32_t first, int32_t end,
                    int32_t count, const DrawKeys& draw, bool sifted, double* squares) {
  const FoldInts lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const FoldInts zero = {};
  // Squares add up as whole numbers of such units: what one candidate has stays below 2^30 of them.
  const int32_t most_log = sifted ? 2 * 128 : 0;
  const float unit = sifted ? 0x1p26f : 0x1p30f;
  int32_t kept = 0;
  for (int32_t i = 0; i < count; i += kFoldLanes) {
    FoldInts position, top, log, uniform;
    std::memcpy(&position, of.keys + i, sizeof position);
    position += first;
    top_of(&top, of, offsets, group, i);
    if (sifted) {
      FoldShorts row;
      std::memcpy(&row, tops + i, sizeof row);
      const FoldInts limit = lanes < count - i ? __builtin_convertvector(row, FoldInts) : zero + kDrawLeast;
      top = top < limit ? top : limit;
    }
    first_uniforms(&uniform, position, draw.first);
    FoldWords again = (FoldWords)position ^ draw.second;
    hash_words(&again);

    const FoldInts certain = top >= kDrawOne, x = (certain ? zero + (kDrawOne - 1) : top) - kDrawOne;
    FoldFloats fraction = __builtin_convertvector(x & 127, FoldFloats) * (1.0f / 128), passed;
    raise_two(&fraction);
    const FoldFloats wanted = (FoldFloats)((FoldInts)fraction + ((x >> 7) << 23)) * 65536.0f;  // p * 2^16
    count_passed(&passed, x);
    const FoldFloats share = wanted / passed;
    const FoldInts below = (FoldInts)(__builtin_convertvector((FoldInts)(again >> 1), FoldFloats) < share * 0x1p31f);

    const FoldInts stays = (FoldInts)(uniform <= top) & (position < end) & (lanes < count - i) & (certain | below);
    const FoldFloats p = (FoldFloats)(top << 16) * 0x1p-16f;
    const FoldFloats rest = (FoldFloats)((FoldInts)(1.0f - p) & stays & ~certain);
    for (int32_t g = 0; g < group; g++) {
      // exp(s) / (tau Z p): the difference of logarithms. Squares of less than 2^-40 would be denormal: slow.
      load_logs(&log, of, g, i, offsets);
      log -= top;
      log = log < most_log ? log : zero + most_log;
      log = log > -40 * 128 ? log : zero - 40 * 128;
      const FoldFloats w = (FoldFloats)((log + kLogOne) << 16);
      const FoldInts terms = __builtin_convertvector(rest * w * w * unit, FoldInts);
      squares[g] += static_cast<double>(sum_lanes(terms)) / static_cast<double>(unit);
    }
    kept += keep_lanes(of.keys + kept, tops + kept, position, top, stays);
  }
  return kept;
}

// One after the other, what SampleKernels::sweep does in one pass.
[[maybe_unused]] int32_t sweep_by(decltype(SampleKernels::scan) scan, const Candidates& found, int16_t* logs, size_t stride,
                                  const CodeShape& shape, const CodeQuery& query, const float* gains, const float* bases,
                                  const int16_t* offsets, const uint8_t* codes, int32_t block, int32_t blocks,
                                  const ScanAhead& ahead, uint32_t key, float* sums) {
  scan(logs, stride, shape, query, gains, bases, codes, blocks, ahead, sums);
  return draw_plain(found, logs, stride, offsets, query.group, block, blocks, key);
}

}  // namespace
}  // namespace kvasir
