#include "byte_scan_avx512.h"
#include "coarse_scan_avx512.h"
#include "draw.h"
#include "isa.h"
#include "sample_kernels_body.h"

namespace kvasir {
namespace {

void scan_tiles(int16_t* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* gains,
                const float* bases, const uint8_t* codes, int32_t blocks, const ScanAhead& ahead, float* sums) {
  const auto nothing = [](int32_t, const auto&) {};
  // A group of more than four: a block at a time, so that it is read from memory once.
  const int32_t step = query.group <= 4 ? blocks : 1;
  for (int32_t b = 0; b < blocks; b += step) {
    const uint8_t* at = codes + static_cast<size_t>(b) * shape.block_bytes;
    int16_t* to = out + b * kNibbleBlock;
    by_fours(query.group, [&](auto heads, int32_t g) {
      scan_logs<decltype(heads)::value, 0>(to, stride, shape, query, g, gains, bases, at, step, ahead, sums, nothing);
    });
  }
}

inline __m512i hash_lanes(__m512i x) {
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0x7feb352d));
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32(static_cast<int32_t>(0x846ca68bu)));
  return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}

// Uniforms of 32 keys, as upper halves of floats: 16 hashes, the lower half of hash j for key 2j, the upper for 2j + 1.
inline __m512i uniform_shorts(__m512i counter, __m512i key) {
  const __m512i hash = hash_lanes(_mm512_xor_si512(counter, key));
  const __m512i even = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_and_si512(hash, _mm512_set1_epi32(0xffff))));
  const __m512i odd = _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_srli_epi32(hash, 16)));
  return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(even, 16), odd);
}

inline __m512i first_counter(int32_t block) {
  return _mm512_add_epi32(_mm512_set1_epi32(block * 16),
                          _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

// Writes the numbers of a block's survivors, 32 at most, and their logarithms from rows of `logs`; returns how many.
inline int32_t write_found(const Candidates& to, int32_t at, int32_t block, __mmask32 mask, const int16_t* logs, size_t stride,
                           int32_t heads) {
  const __m256i lanes = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
                                         23, 24, 25, 26, 27, 28, 29, 30, 31);
  const __m256i some = _mm256_maskz_compress_epi8(mask, lanes);
  const __m512i first = _mm512_set1_epi32(block * kNibbleBlock);
  _mm512_storeu_si512(to.keys + at, _mm512_add_epi32(first, _mm512_cvtepu8_epi32(_mm256_castsi256_si128(some))));
  const int32_t found = __builtin_popcount(mask);
  if (found > 16) {
    _mm512_storeu_si512(to.keys + at + 16, _mm512_add_epi32(first, _mm512_cvtepu8_epi32(_mm256_extracti128_si256(some, 1))));
  }
#pragma GCC unroll 4
  for (int32_t g = 0; g < heads; g++) {
    const __m512i row = _mm512_loadu_si512(logs + static_cast<size_t>(g) * stride + block * kNibbleBlock);
    _mm512_storeu_si512(to.logs + static_cast<size_t>(g) * to.stride + at, _mm512_maskz_compress_epi16(mask, row));
  }
  return found;
}

constexpr int32_t kSome = 64;  // blocks whose survivors are listed before they are written
constexpr int32_t kAgain = 24;  // candidates from one prefetch of a fine row to the next

// Blocks that something of survives, in order.
struct Survivors {
  int32_t blocks[kSome + 1];
  uint32_t masks[kSome + 1];
  int32_t count = 0;

  // No branch: what is empty is written over.
  void add(int32_t block, uint32_t mask) {
    blocks[count] = block, masks[count] = mask;
    count += mask != 0;
  }
  // Behind `written` candidates; returns how many more there are, and is empty again.
  int32_t write(const Candidates& to, int32_t written, const int16_t* logs, size_t stride, int32_t heads) {
    const int32_t before = written;
    for (int32_t i = 0; i < count; i++) written += write_found(to, written, blocks[i], masks[i], logs, stride, heads);
    count = 0;
    return written - before;
  }
};

// G: heads of the group, 0: any number.
template <int32_t G>
int32_t draw_group(const Candidates& found, const int16_t* logs, size_t stride, const int16_t* offsets, int32_t group, int32_t block,
                   int32_t blocks, uint32_t key) {
  const int32_t heads = G == 0 ? group : G;
  const __m512i mixed = _mm512_set1_epi32(static_cast<int32_t>(key));
  __m512i counter = first_counter(block);
  Survivors survivors;
  int32_t count = 0;
  for (int32_t from = 0; from < blocks; from += kSome) {
    const int32_t to = blocks - from < kSome ? blocks : from + kSome;
    for (int32_t b = from; b < to; b++) {
      __m512i top = _mm512_set1_epi16(kDrawLeast);
#pragma GCC unroll 4
      for (int32_t g = 0; g < heads; g++) {
        top = _mm512_max_epi16(top, _mm512_adds_epi16(_mm512_loadu_si512(logs + static_cast<size_t>(g) * stride + b * 32),
                                                      _mm512_set1_epi16(offsets[g])));
      }
      const __mmask32 mask = _mm512_cmple_epi16_mask(uniform_shorts(counter, mixed), top);
      counter = _mm512_add_epi32(counter, _mm512_set1_epi32(16));
      survivors.add(b, mask);
    }
    count += survivors.write(found, count, logs, stride, heads);
  }
  return count;
}

// Of a block: 32 logarithms by head. Uniforms not above the largest of them and its offset are found.
template <int32_t G>
inline __mmask32 draw_block(const __m512i (&logs)[G], const int16_t* offsets, __m512i uniforms) {
  __m512i top = _mm512_set1_epi16(kDrawLeast);
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) top = _mm512_max_epi16(top, _mm512_adds_epi16(logs[g], _mm512_set1_epi16(offsets[g])));
  return _mm512_cmple_epi16_mask(uniforms, top);
}

template <int32_t G, int32_t B>
int32_t sweep_group(const Candidates& found, int16_t* logs, size_t stride, const CodeShape& shape, const CodeQuery& query,
                    const float* gains, const float* bases, const int16_t* offsets, const uint8_t* codes, int32_t block,
                    int32_t blocks, const ScanAhead& ahead, uint32_t key, float* sums, FineRows* fine) {
  const __m512i mixed = _mm512_set1_epi32(static_cast<int32_t>(key));
  __m512i counter = first_counter(block);
  Survivors survivors;
  int32_t count = 0, fetched = 0;
  found.keys[0] = 0;  // until there is one
  for (int32_t from = 0; from < blocks; from += kSome) {
    const int32_t some = blocks - from < kSome ? blocks - from : kSome;
    const uint8_t* here = codes + static_cast<size_t>(from) * shape.block_bytes;
    scan_logs<G, B>(logs + from * kNibbleBlock, stride, shape, query, 0, gains, bases, here, some, ahead, sums,
                 [&](int32_t b, const __m512i (&scores)[G]) {
                   const __mmask32 mask = draw_block<G>(scores, offsets, uniform_shorts(counter, mixed));
                   counter = _mm512_add_epi32(counter, _mm512_set1_epi32(16));
                   survivors.add(from + b, mask);
                   // About as many rows as are found, as all at once would wait for each other; and once more a little later.
                   for (const int32_t at : {fetched, std::max(0, fetched - kAgain)}) {
                     prefetch_line(fine->rows + static_cast<size_t>(found.keys[at]) * fine->bytes);
                   }
                   fetched += fetched + 1 < count;
                 });
    count += survivors.write(found, count, logs, stride, G);
  }
  fine->fetched = fetched;
  return count;
}

// U, L as in byte_scan_avx512.h.
template <int32_t G, int32_t U, int L>
int32_t sweep_bytes_group(const Candidates& found, int16_t* logs, size_t stride, const CodeShape& shape, const CodeQuery& query,
                          const float* bases, const float* refs, const int16_t* offsets, const uint8_t* codes, int32_t block,
                          int32_t blocks, const ScanAhead& ahead, uint32_t key, float* sums) {
  const __m512i mixed = _mm512_set1_epi32(static_cast<int32_t>(key));
  // Lower halves of two registers' numbers, in order.
  const __m512i evens = _mm512_add_epi32(_mm512_mullo_epi32(first_counter(0), _mm512_set1_epi32(0x00040004)), _mm512_set1_epi32(0x00020000));
  __m512i counter = first_counter(block);
  __m512 totals[G];
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) totals[g] = _mm512_loadu_ps(sums + g * kFoldSums);
  Survivors survivors;
  int32_t count = 0;
  for (int32_t from = 0; from < blocks; from += kSome) {
    const int32_t to = blocks - from < kSome ? blocks : from + kSome;
    for (int32_t b = from; b < to; b++, codes += shape.block_bytes) {
      const Fetch fetch = {ahead.from(codes, ahead.far), ahead.from(codes, ahead.near)};
      __m512i halves[G], both[G];
#pragma GCC unroll 2
      for (int32_t half = 0; half < 2; half++) {
        __m512 scores[G];
        score_half<G, 1, U, L>(scores, shape, query, 0, codes, half, fetch);
#pragma GCC unroll 4
        for (int32_t g = 0; g < G; g++) {
          const __m512 x = _mm512_fmadd_ps(scores[g], _mm512_set1_ps(query.factors[g]), _mm512_set1_ps(bases[g]));
          const __m512i wide = fold_register(x, _mm512_set1_ps(refs[g]));
          totals[g] = _mm512_add_ps(totals[g], _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)));
          if (half == 0) halves[g] = wide;
          else both[g] = _mm512_permutex2var_epi16(halves[g], evens, wide);
        }
      }
#pragma GCC unroll 4
      for (int32_t g = 0; g < G; g++) _mm512_storeu_si512(logs + static_cast<size_t>(g) * stride + b * kBlockKeys, both[g]);
      const __mmask32 mask = draw_block<G>(both, offsets, uniform_shorts(counter, mixed));
      counter = _mm512_add_epi32(counter, _mm512_set1_epi32(16));
      survivors.add(b, mask);
    }
    count += survivors.write(found, count, logs, stride, G);
  }
#pragma GCC unroll 4
  for (int32_t g = 0; g < G; g++) _mm512_storeu_ps(sums + g * kFoldSums, totals[g]);
  return count;
}

// body(heads) of a group, a constant of the type: up to four heads, or 0 for more.
template <class F>
inline int32_t by_heads(int32_t group, F&& body) {
  switch (group) {
    case 1: return body(std::integral_constant<int32_t, 1>());
    case 2: return body(std::integral_constant<int32_t, 2>());
    case 3: return body(std::integral_constant<int32_t, 3>());
    case 4: return body(std::integral_constant<int32_t, 4>());
    default: return body(std::integral_constant<int32_t, 0>());
  }
}

int32_t draw_keys(const Candidates& found, const int16_t* logs, size_t stride, const int16_t* offsets, int32_t group,
                  int32_t block, int32_t blocks, uint32_t key) {
  return by_heads(group, [&](auto heads) {
    return draw_group<decltype(heads)::value>(found, logs, stride, offsets, group, block, blocks, key);
  });
}

// The draw lies in the shadow of the memory that the scan waits for.
int32_t sweep_keys(const Candidates& found, int16_t* logs, size_t stride, const CodeShape& shape, const CodeQuery& query,
                   const float* gains, const float* bases, const int16_t* offsets, const uint8_t* codes, int32_t block,
                   int32_t blocks, const ScanAhead& ahead, uint32_t key, float* sums, FineRows* fine) {
  const auto sweep = [&](auto body) {
    return body(found, logs, stride, shape, query, gains, bases, offsets, codes, block, blocks, ahead, key, sums, fine);
  };
  return by_heads(query.group, [&](auto heads) {
    constexpr int32_t G = decltype(heads)::value;
    if constexpr (G == 0) {
      scan_tiles(logs, stride, shape, query, gains, bases, codes, blocks, ahead, sums);
      return draw_group<0>(found, logs, stride, offsets, query.group, block, blocks, key);
    } else {
      switch (shape.bands) {
        case 2: return sweep(sweep_group<G, 2>);
        case 4: return sweep(sweep_group<G, 4>);
        case 8: return sweep(sweep_group<G, 8>);
        default: return sweep(sweep_group<G, 0>);
      }
    }
  });
}

int32_t sweep_bytes(const Candidates& found, int16_t* logs, size_t stride, const CodeShape& shape, const CodeQuery& query,
                    const float* bases, const float* refs, const int16_t* offsets, const uint8_t* codes, int32_t block, int32_t blocks,
                    const ScanAhead& ahead, uint32_t key, float* sums) {
  const auto sweep = [&](auto heads, auto units) {
    constexpr int32_t G = decltype(heads)::value, U = decltype(units)::value;
    const auto body = ahead.to_l1 ? sweep_bytes_group<G, U, 3> : sweep_bytes_group<G, U, 2>;
    return body(found, logs, stride, shape, query, bases, refs, offsets, codes, block, blocks, ahead, key, sums);
  };
  const auto by_units = [&](auto heads) {
    switch (shape.units) {
      case 4: return sweep(heads, std::integral_constant<int32_t, 4>());
      case 8: return sweep(heads, std::integral_constant<int32_t, 8>());
      case 16: return sweep(heads, std::integral_constant<int32_t, 16>());
      default: return sweep(heads, std::integral_constant<int32_t, 0>());
    }
  };
  switch (query.group) {
    case 1: return by_units(std::integral_constant<int32_t, 1>());
    case 2: return by_units(std::integral_constant<int32_t, 2>());
    case 3: return by_units(std::integral_constant<int32_t, 3>());
    default: return by_units(std::integral_constant<int32_t, 4>());
  }
}

void refine_all(int16_t* out, const Candidates& of, int32_t count, const CodeShape& shape, const CodeQuery& query,
                const float* gains, const uint8_t* codes, const uint8_t* fine) {
  by_fours(query.group, [&](auto heads, int32_t g) {
    refine_keys<decltype(heads)::value>(out, of, count, shape, query, g, gains, codes, fine);
  });
}

}  // namespace

const SampleKernels kSampleAvx512 = {kTablesOfBand * kLine, fill_tables, scan_tiles, fold_scores, draw_keys, sweep_keys, sweep_bytes, refine_all, sift_keys, settle_keys};

}  // namespace kvasir
