// Kernels of threshold sampling: scores as 16-bit logarithms, and the draw over them.
//
// A score s is held as L = 128 * (127 + log2 exp(s - ref)), rounded, in [128, 32640]: as the bits of a bfloat16 it is about
// exp(s - ref), piecewise linear between powers of two, so that sums need no exponential.
#pragma once
#include <cstddef>
#include <cstdint>

namespace kvasir {

struct CodeQuery;
struct CodeShape;
struct ScanAhead;

constexpr float kLogUnit = 184.6649652337873f;  // 128 / ln 2: units of L per nat
constexpr int32_t kLogOne = 127 * 128;          // L of 1
constexpr int32_t kLogLeast = 128, kLogMost = 0x7f80;
// The sum of bits as floats over the sum of exponentials, on average over the fraction.
constexpr float kLogExcess = 1.0397f;

// In a draw scores are logarithms of p * 2^16. p is at least 2^-24, so that what a key's weight grows by stays a number.
constexpr int32_t kDrawOne = kLogOne + 16 * 128, kDrawLeast = kLogOne - 8 * 128;

// What a first stage finds: keys and, by query head, their logarithms: logs[g * stride + i].
struct Candidates {
  int32_t* keys;
  int16_t* logs;
  size_t stride;
};

// Fine rows of a chunk's keys, of which a sweep may ask for those of candidates that it has found: the first `fetched`.
struct FineRows {
  const uint8_t* rows;
  size_t bytes;
  int32_t fetched = 0;
};

// Of one KV head's draw, the same for all its keys.
struct DrawKeys {
  uint32_t first, second;  // what positions are hashed with in either stage
};

constexpr int32_t kFoldSums = 16;

struct SampleKernels {
  // Tables of a head that scan looks scores up in, in bytes a band, and what makes them of a query x [bands * 32], rotated: returns what
  // a unit of them stands for. Null: scan multiplies.
  size_t table_bytes;
  float (*fill_tables)(int8_t* tables, const float* x, int32_t bands);
  // out[g * stride + i] = L of key i of `blocks` coarse blocks of 4-bit codes (nibble_planes.h): what is summed or looked up times gains[g] plus
  // bases[g]; sums[g] += their bits as floats, not finite where L is beyond kLogMost. ahead: of the run
  // that the blocks are of.
  void (*scan)(int16_t* out, size_t stride, const CodeShape& shape, const CodeQuery& query, const float* gains,
               const float* bases, const uint8_t* codes, int32_t blocks, const ScanAhead& ahead, float* sums);
  // out[i] = L of scores[i] given ref, count of them; sums[i % kFoldSums] += their bits as floats, not finite where L is beyond
  // kLogMost: the caller adds them up when it has all.
  void (*fold)(int16_t* out, const float* scores, int32_t count, float ref, float* sums);
  // First stage of the draw over keys 32 * block ... : logs[g * stride + i] for `blocks` blocks of 32 keys from `block` on, one
  // 16-bit uniform u each. A key survives when u, as a float's upper 16 bits, is not above
  // max(kDrawLeast, max over g of log + offsets[g]). Writes survivors' numbers (from key 0 of logs on, ascending) and their
  // logarithms; returns how many. Up to 64 entries more may be overwritten.
  int32_t (*draw)(const Candidates& to, const int16_t* logs, size_t stride, const int16_t* offsets, int32_t group, int32_t block,
                  int32_t blocks, uint32_t key);
  // Both in one pass: scan to logs, and the first stage over them. fine: of key 0 of logs on.
  int32_t (*sweep)(const Candidates& to, int16_t* logs, size_t stride, const CodeShape& shape, const CodeQuery& query,
                   const float* gains, const float* bases, const int16_t* offsets, const uint8_t* codes, int32_t block,
                   int32_t blocks, const ScanAhead& ahead, uint32_t key, float* sums, FineRows* fine);
  // The same of blocks of int8 codes, by what CodeKernels::scan gives from `bases` and fold makes of it by `refs`, to the bit; sums as fold's,
  // [group][kFoldSums]. One plane of queries, 4 heads at most. Null: scores go through memory.
  int32_t (*sweep_bytes)(const Candidates& to, int16_t* logs, size_t stride, const CodeShape& shape, const CodeQuery& query,
                         const float* bases, const float* refs, const int16_t* offsets, const uint8_t* codes, int32_t block,
                         int32_t blocks, const ScanAhead& ahead, uint32_t key, float* sums);
  // out[g * of.stride + i] = L of candidate i by both planes, given of.logs by the coarse one. codes, fine: of key 0's block on.
  // gains: of sums of whole codes. Up to 15 entries more may be overwritten.
  void (*refine)(int16_t* out, const Candidates& of, int32_t count, const CodeShape& shape, const CodeQuery& query,
                 const float* gains, const uint8_t* codes, const uint8_t* fine);
  // The first stage again, by the offsets that hold, over `count` candidates of keys first + keys[i]: those below `end` that survive
  // replace them, with of.logs := refined logarithms and tops[i] = what they survived by; returns how many. What lies behind them
  // stays as it was. sums[g] += bits of their refined logarithms as floats over the chance to survive, which is an unbiased
  // estimate of what scan sums; the same whatever else was among the candidates.
  int32_t (*sift)(const Candidates& of, const int16_t* refined, int16_t* tops, const int16_t* offsets, int32_t group, int32_t first,
                  int32_t end, int32_t count, const DrawKeys& draw, float* sums);
  // Both stages over `count` candidates of keys first + keys[i] by the offsets that hold: those below `end` that stay replace
  // them, as first + keys[i], with tops[i] = their maximum of the first stage; returns how many. What lies behind them stays as
  // it was: the next chunk's candidates do. A key below kDrawOne stays when 32 more bits are below p over what the first stage
  // let through. squares[g] += (1 - p) w^2, w = exp(s) / (tau Z p), in units of 2^-30: exact, so that candidates that do not
  // stay, which depend on threads, change no bit of it. sifted: tops has what candidates survived by, and none is kept by more; w is
  // above 1 there, counted up to 4.
  int32_t (*settle)(const Candidates& of, int16_t* tops, const int16_t* offsets, int32_t group, int32_t first, int32_t end,
                    int32_t count, const DrawKeys& draw, bool sifted, double* squares);
};

extern const SampleKernels kSamplePortable, kSampleAvx2, kSampleAvx512;

}  // namespace kvasir
