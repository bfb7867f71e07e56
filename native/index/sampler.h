// Threshold sampling by an error goal: every key is scored by its code, kept with probability p, and weighted by 1 / p.
//
// Let s be a key's score, Z the sum of exp(s) over all keys and what is attended exactly. p = min(1, max over the group's
// heads of exp(s) / (tau Z)), tau = error^2: a head's expected number of keys is at most the mass of its keys over tau, and the relative
// L2 error of its output about `error` (priority sampling with a fixed threshold: Duffield, Lund, Thorup 2007, section 4).
//
// Scores may be wrong; what is kept is weighted by the very p that decided, so numerator and denominator stay unbiased.
// Two stages: 16 bits a key while all keys are looked at, then 32 bits for the few that survive.
//
// One pass over the codes: chunk by chunk they are scored and drawn from with the part of Z that is known by then, which only
// makes p larger; at the end the few candidates are drawn again from the same bits with all of Z. So a key's score is stored for
// as long as its chunk takes, and what is kept is what a second pass over stored scores would keep.
//
// Of 4-bit codes that pass reads the coarse plane (nibble_planes.h). What may be kept when the fine plane adds a little (with_margin) is
// a candidate and scored by both; then p is the smaller of what the whole score says and of the chance to have been a candidate, which
// is known, so nothing is biased. Z is estimated from the candidates, each over that chance: coarse scores overstate it.
#pragma once
#include <atomic>

#include "codes.h"
#include "index.h"

namespace kvasir {

// What is kept from search to search, of any index: layers take turns, and what the last one used is still in a cache.
struct SampleMemory {
  std::vector<PreparedQuery> prepared;  // by KV head
  std::vector<float> ref;               // by query head: what logarithms are relative to
  std::vector<float> gains;             // by query head: units of logarithms a step of 4-bit codes
  std::vector<double> sums;
  std::vector<std::atomic<float>> so_far;  // sums while the scan runs; Sampling::so_far
  std::vector<int16_t> offsets;
  std::vector<float> parts;             // [chunk][query head]
  std::vector<double> squares;          // the same
  std::vector<int32_t> found;         // [KV head][chunk]
  std::vector<size_t> starts;         // of what was found
  std::vector<int16_t*> logs;         // of a chunk, by worker
  std::vector<int32_t> unrefined;     // the chunk, head * chunks + chunk, that a worker has swept last; -1: none
};

// Draws from the first `count` keys of `codes`: one row of hits for each of the KV heads named. Adds to report's counts.
void sample_by_error(const Environment& environment, const LayerShape& shape, const Codes& codes, const Rows& rows,
                     int32_t count, const int32_t* kv_heads, int32_t num_heads, const Query& query, const Hits& hits,
                     Report& report);

}  // namespace kvasir
