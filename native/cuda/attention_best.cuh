// The best keys of a prompt's sampled queries, noted by the tiles that compute their logits anyway.
//
// Tiles round queries to 16 bits, and the contract asks for exact ranks. So tiles only note candidates: every key whose logit lies
// above the k-th best one so far less twice what rounding can have done (`slack`; attention_best.cu bounds it for each row). What is
// not noted is worse than k others by its exact logit, too. Candidates are then scored anew in float, and a row that has more of
// them than there is room for is scored as a whole: settle_best.
//
// A lane holds two rows of a warp's 16 and shares each with the three others of its quad. Its own keys of a tile are looked at one by
// one only if their greatest logit, which softmax wants as well, passes. No row is shared by warps: no atomics, and always the same order.
//
// Ladder (not measured yet: no device was at hand)
//   1  candidates in global memory; a row that is full is shrunk by its warp, by bisection of the k-th best's bits
#pragma once
#include <cfloat>

#include "index_device.cuh"
#include "mutants.h"

namespace kvasir {

struct Candidate {
  float score;  // by the tile, to base 2
  int32_t position;
};

// Candidates of a row in one part. The greatest k is half of them.
constexpr int32_t best_room(int32_t dim) { return dim > 128 ? 256 : 512; }
constexpr int32_t kTooMany = -1;  // instead of a count

struct SampledKeys : CausalKeys {
  static constexpr bool kSampled = true;
  Candidate* found;    // [parts][rows][best_room]
  int32_t* counts;     // [parts][rows]
  const float* slack;  // [rows]: twice what rounding does to a logit, to base 2
  int32_t rows;        // sampled queries times heads
  int32_t k, every;
  int32_t skipped;     // the first sampled query
  int32_t part;        // of the launch's first split
};

// Where nothing is sampled.
struct NoBest {
  template <class Keys>
  __device__ NoBest(const Keys&, const AttendArguments&, int32_t, int32_t, int32_t) {}
};

template <int kDim>
class BestOfRows {
  static constexpr int32_t kRoom = best_room(kDim), kEach = kRoom / 32;

 public:
  // Rows from warp_row on; the warp's own.
  __device__ BestOfRows(const SampledKeys& keys, const AttendArguments& args, int32_t list, int32_t split, int32_t warp_row)
      : keys_(keys), lane_(static_cast<int32_t>(threadIdx.x) % 32) {
    for (int32_t half = 0; half < 2; half++) {
      const int32_t row = warp_row + lane_ / 4 + 8 * half, beyond = row / args.group - keys.skipped;
      const bool sampled = row < args.rows() && beyond >= 0 && beyond % keys.every == 0;
      const int32_t sample = beyond / keys.every * args.heads + list * args.group + row % args.group;
      slot_[half] = sampled ? (keys.part + split) * keys.rows + sample : -1;
      least_[half] = sampled ? -FLT_MAX : NAN;  // nothing passes NaN
      count_[half] = 0;
    }
  }

  // Of the lane's kKeys logits of row `half` in a tile those that pass. greatest: of them; logit(i), position(i): each.
  template <int kKeys, class Logit, class Position>
  __device__ __forceinline__ void note(int32_t half, float greatest, Logit&& logit, Position&& position) {
    if (__any_sync(kFullWarp, greatest >= least_[half] ? 1 : 0) == 0) return;
    int32_t mine = 0;
#pragma unroll
    for (int32_t i = 0; i < kKeys; i++) mine += logit(i) >= least_[half] ? 1 : 0;
    int32_t sum = mine;
    const int32_t one = __shfl_up_sync(kFullWarp, sum, 1, 4);
    if (lane_ % 4 >= 1) sum += one;
    const int32_t two = __shfl_up_sync(kFullWarp, sum, 2, 4);
    if (lane_ % 4 >= 2) sum += two;
    Candidate* to = row_of_slot(slot_[half]) + count_[half] + (is_seeded(Mutant::kBestPlaces) ? 0 : sum - mine);
    count_[half] += __shfl_sync(kFullWarp, sum, 3, 4);
    if (mine == 0) return;
#pragma unroll
    for (int32_t i = 0; i < kKeys; i++) {
      if (logit(i) >= least_[half]) *to++ = Candidate{logit(i), position(i)};
    }
  }

  // Before a tile of kTile keys, all of which may pass.
  template <int kTile>
  __device__ __forceinline__ void make_room() { shrink(kRoom - kTile, kRoom - kTile); }

  // After the last one: no more are left to settle than have to be.
  __device__ __forceinline__ void finish() {
    shrink(keys_.k, kRoom);
#pragma unroll
    for (int32_t half = 0; half < 2; half++) {
      if (lane_ % 4 == 0 && slot_[half] >= 0) keys_.counts[slot_[half]] = count_[half];
    }
  }

 private:
  __device__ Candidate* row_of_slot(int32_t slot) const { return keys_.found + static_cast<size_t>(slot) * kRoom; }

  // Rows of more than `from` candidates; of which more than `most` stay has too many.
  __device__ __forceinline__ void shrink(int32_t from, int32_t most) {
#pragma unroll
    for (int32_t half = 0; half < 2; half++) {
      uint32_t full = __ballot_sync(kFullWarp, count_[half] > from ? 1 : 0);
      while (full != 0) {
        const int32_t owner = __ffs(static_cast<int32_t>(full)) - 1;  // the first lane of a quad
        full &= ~(15u << owner);
        float least;
        const int32_t kept = shrink_row(__shfl_sync(kFullWarp, slot_[half], owner), __shfl_sync(kFullWarp, count_[half], owner), most, &least);
        if (lane_ / 4 == owner / 4) count_[half] = kept, least_[half] = least;
      }
    }
  }

  // Returns how many candidates stay, by the whole warp.
  __device__ __forceinline__ int32_t shrink_row(int32_t slot, int32_t count, int32_t most, float* least) const {
    Candidate* const row = row_of_slot(slot);
    __syncwarp();  // what the quad noted is there
    uint32_t bits[kEach];
#pragma unroll
    for (int32_t j = 0; j < kEach; j++) bits[j] = j * 32 + lane_ < count ? ordered_bits(row[j * 32 + lane_].score) : 0u;
    // The upper 24 bits of the k-th best: never more than it.
    uint32_t kth = 0;
#pragma unroll 1
    for (uint32_t bit = 1u << 31; bit >= 1u << 8; bit >>= 1) {
      int32_t above = 0;
#pragma unroll
      for (int32_t j = 0; j < kEach; j++) above += bits[j] >= (kth | bit) ? 1 : 0;
      for (int32_t other = 16; other > 0; other >>= 1) above += __shfl_xor_sync(kFullWarp, above, other);
      if (above >= keys_.k) kth |= bit;
    }
    *least = float_of_ordered(kth) - (is_seeded(Mutant::kBestSlack) ? 0.0f : keys_.slack[slot % keys_.rows]);
    const uint32_t lower = (1u << lane_) - 1;
    int32_t kept = 0;
#pragma unroll 4
    for (int32_t j = 0; j < kEach; j++) {
      const int32_t i = j * 32 + lane_;
      const Candidate mine = i < count ? row[i] : Candidate{-INFINITY, 0};
      const bool stays = mine.score >= *least;
      const uint32_t staying = __ballot_sync(kFullWarp, stays ? 1 : 0);
      __syncwarp();  // places that are written were read
      if (stays) row[kept + __popc(staying & lower)] = mine;
      kept += __popc(staying);
    }
    // Nothing more is noted of a row with too many; bounds that are no numbers bound nothing.
    if (kept > most || !(*least >= -FLT_MAX)) *least = NAN, kept = kTooMany;
    return kept;
  }

  const SampledKeys& keys_;
  const int32_t lane_;
  int32_t slot_[2], count_[2];
  float least_[2];
};

}  // namespace kvasir
