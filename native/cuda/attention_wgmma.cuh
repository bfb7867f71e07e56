// Attention of prompts on compute capability 9.0: products of warpgroups (wgmma) over tiles that a producer keeps coming, after
// FlashAttention-3 (Shah et al. 2024, sections 3.1 and 3.2). Rows of a block are (query, head of the group) pairs of one KV head.
//
// Two warpgroups have 64 rows each and all keys of a tile; the third copies. Keys and values go through two stages each, handed over by
// phases: `full` when a stage's copies have landed (attention_producer.cuh), `empty` when all eight warps that read them are done. The
// products of a tile's keys run beside those of the values of the tile before it, and the softmax of the one beside the other.
//
// Ladder (not measured: no device was at hand)
//   1  this file: 128 rows x 128 keys (64 for heads of 256), queries in shared memory, weights in registers, f16; tiles by cp.async
//   2  tiles by tensor maps (TMA) where no box of 64 rows lies in two segments, handed over by the bytes that land; cuda:tma=false is 1
#pragma once
#include <type_traits>

#include "attention_best.cuh"
#include "attention_producer.cuh"

namespace kvasir {

// 64 rows of a warpgroup; a lane holds rows lane / 4 and lane / 4 + 8 of its warp's 16.
template <int kDim, class Keys>
class TileConsumer {
  using Shape = WgmmaShape<kDim>;
  static constexpr int32_t kKeys = Shape::kKeys, kColumns = Shape::kColumns, kParts = kDim / kColumns;

 public:
  __device__ TileConsumer(const AttendArguments& args, const Keys& keys, KeyRange range, uint8_t* queries, uint32_t keys_at,
                          uint32_t values_at, TilePhases& phases, int32_t block_row)
      : args_(args), keys_(keys), range_(range), queries_(queries), keys_at_(keys_at), values_at_(values_at), phases_(phases),
        best_(keys, args, static_cast<int32_t>(blockIdx.y), static_cast<int32_t>(blockIdx.z),
              block_row + static_cast<int32_t>(threadIdx.x) / 32 * 16) {
    const int32_t thread = static_cast<int32_t>(threadIdx.x);
    group_ = thread / 128, lane_ = thread % 32, list_ = static_cast<int32_t>(blockIdx.y), split_ = static_cast<int32_t>(blockIdx.z);
    group_row_ = block_row + 64 * group_;
    warp_row_ = group_row_ + thread % 128 / 32 * 16;
    for (int32_t half = 0; half < 2; half++) {
      const int32_t query = (warp_row_ + lane_ / 4 + 8 * half) / args.group;
      least_[half] = keys.least(query), greatest_[half] = keys.greatest(query);
      most_[half] = -INFINITY, sum_[half] = 0.0f;
    }
#pragma unroll
    for (int32_t part = 0; part < kParts; part++) {
#pragma unroll
      for (int32_t i = 0; i < kColumns / 2; i++) o_[part][i] = 0.0f;
    }
  }

  __device__ void run(int32_t tiles) {
    load_queries();
    if (tiles > 0) {
      begin();
      score(0);
      products_wait<0>();
      hold(s_);
      done_with(&phases_.empty_keys[0]);
      soften(0);
      follow();
      for (int32_t tile = 1; tile < tiles; tile++) {
        if constexpr (Keys::kSampled) best_.template make_room<kKeys>();
        begin();
        score(tile);
        weigh(tile - 1);
        products_wait<1>();
        hold(s_);
        done_with(&phases_.empty_keys[tile % Shape::kStages]);
        soften(tile);
        if (is_seeded(Mutant::kWgmmaRelease)) done_with(&phases_.empty_values[(tile - 1) % Shape::kStages]);
        products_wait<0>();
        hold_outputs();
        if (!is_seeded(Mutant::kWgmmaRelease)) done_with(&phases_.empty_values[(tile - 1) % Shape::kStages]);
        follow();
      }
      begin();
      weigh(tiles - 1);
      products_wait<0>();
      hold_outputs();
    }
    finish();
  }

 private:
  __device__ void hold_outputs() {
#pragma unroll
    for (int32_t part = 0; part < kParts; part++) hold(o_[part]);
  }
  __device__ void begin() {
    hold(s_);
    hold_outputs();
    products_begin();
  }
  // This warp has read the stage.
  __device__ void done_with(uint64_t* phase) const {
    __syncwarp();
    if (lane_ == 0) phase_arrive(phase);
  }
  __device__ static uint32_t parity_of(int32_t tile) { return static_cast<uint32_t>(tile / Shape::kStages & 1); }

  __device__ void load_queries() {
    uint8_t* mine = queries_ + static_cast<uint32_t>(group_) * Shape::kQueries;
    for (int32_t i = static_cast<int32_t>(threadIdx.x) % 128; i < 64 * (kDim / 8); i += 128) {
      const int32_t piece = i % (kDim / 8), r = i / (kDim / 8), row = group_row_ + r;
      uint4 halves = make_uint4(0, 0, 0, 0);
      if (row < args_.rows()) {
        const float* q = args_.q + args_.head_row(list_, row) * kDim + piece * 8;
        halves = make_uint4(pack_half2(q[0], q[1]), pack_half2(q[2], q[3]), pack_half2(q[4], q[5]), pack_half2(q[6], q[7]));
      }
      store_piece(mine + static_cast<uint32_t>(piece / 8) * Shape::kQueryBlock +
                      piece_of(static_cast<uint32_t>(r), static_cast<uint32_t>(piece % 8)), halves);
    }
    fence_operands();
    warpgroup_barrier(static_cast<uint32_t>(group_));
    queries_at_ = operand_address(mine);
  }

  // s := queries times the tile's keys, later.
  __device__ void score(int32_t tile) {
    const int32_t stage = tile % Shape::kStages;
    phase_wait(&phases_.full_keys[stage], tile > 1 && is_seeded(Mutant::kWgmmaPhase) ? parity_of(tile) ^ 1 : parity_of(tile));
    const uint32_t keys = keys_at_ + static_cast<uint32_t>(stage) * Shape::kTile;
#pragma unroll
    for (uint32_t k = 0; k < kDim / 16; k++) {
      // Four sums of 16 fit a row of an operand.
      multiply_shared<kKeys>(s_, describe_rows(queries_at_ + k / 4 * Shape::kQueryBlock + k % 4 * 32),
                             describe_rows(keys + k / 4 * Shape::kKeyBlock + k % 4 * 32), k > 0);
    }
    products_commit();
  }

  // o += weights times the tile's values, later.
  __device__ void weigh(int32_t tile) {
    const int32_t stage = tile % Shape::kStages;
    phase_wait(&phases_.full_values[stage], parity_of(tile));
    const uint32_t values = values_at_ + static_cast<uint32_t>(stage) * Shape::kTile;
#pragma unroll
    for (uint32_t k = 0; k < kKeys / 16; k++) {
#pragma unroll
      for (uint32_t part = 0; part < kParts; part++) {
        multiply_held<kColumns>(o_[part], weights_[k],
                                describe_columns(values + part * (kColumns / 64) * Shape::kKeyBlock + k * 16 * kOperandRow, Shape::kKeyBlock));
      }
    }
    products_commit();
  }

  // s := weights relative to the greatest logit of the row so far (Milakov and Gimelshein 2018); shrink_ is what sums so far become.
  __device__ void soften(int32_t tile) {
    const int32_t from = range_.from + tile * kKeys, to = from + kKeys;
    const int32_t last = at_most(group_row_ + 64, args_.rows()) - 1;
    const bool masked = to > range_.to || to - 1 > keys_.greatest(group_row_ / args_.group) || from < keys_.least(last / args_.group);
#pragma unroll
    for (int32_t i = 0; i < kKeys / 2; i++) {
      float x = s_[i] * args_.scale;
      if (args_.softcap > 0.0f) x = args_.softcap * tanhf(x / args_.softcap);
      x *= kLog2E;
      if (masked) {
        const int32_t position = from + i / 4 * 8 + lane_ % 4 * 2 + i % 2, half = i % 4 / 2;
        if (position >= range_.to || position < least_[half] || position > greatest_[half]) x = -INFINITY;
      }
      s_[i] = x;
    }
#pragma unroll
    for (int32_t half = 0; half < 2; half++) {
      float most = -INFINITY;
#pragma unroll
      for (int32_t i = 0; i < kKeys / 8; i++) most = fmaxf(most, fmaxf(s_[4 * i + 2 * half], s_[4 * i + 2 * half + 1]));
      if constexpr (Keys::kSampled) {
        best_.template note<kKeys / 4>(
            half, most, [&](int32_t i) { return s_[i / 2 * 4 + 2 * half + i % 2]; },
            [&](int32_t i) { return from + i / 2 * 8 + lane_ % 4 * 2 + i % 2; });
      }
      most = fmaxf(most, most_[half]);
      most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, 1));
      most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, 2));
      const float reference = most == -INFINITY ? 0.0f : most;
      shrink_[half] = exp2f(most_[half] - reference);
      most_[half] = most;
      float sum = sum_[half] * shrink_[half];
#pragma unroll
      for (int32_t i = 0; i < kKeys / 8; i++) {
#pragma unroll
        for (int32_t j = 2 * half; j < 2 * half + 2; j++) {
          s_[4 * i + j] = exp2f(s_[4 * i + j] - reference);
          sum += s_[4 * i + j];
        }
      }
      sum_[half] = sum;
    }
  }

  // Outputs follow a greater logit; weights become a factor.
  __device__ void follow() {
#pragma unroll
    for (int32_t part = 0; part < kParts; part++) {
#pragma unroll
      for (int32_t i = 0; i < kColumns / 2; i++) o_[part][i] *= shrink_[i % 4 / 2];
    }
#pragma unroll
    for (int32_t k = 0; k < kKeys / 16; k++) {
#pragma unroll
      for (int32_t i = 0; i < 4; i++) weights_[k][i] = pack_half2(s_[8 * k + 2 * i], s_[8 * k + 2 * i + 1]);
    }
  }

  __device__ void finish() {
#pragma unroll
    for (int32_t half = 0; half < 2; half++) {
      float sum = sum_[half] + __shfl_xor_sync(kFullWarp, sum_[half], 1);
      sum += __shfl_xor_sync(kFullWarp, sum, 2);
      const int32_t row = warp_row_ + lane_ / 4 + 8 * half;
      if (row >= args_.rows()) continue;
      const float inverse = sum > 0.0f ? 1.0f / sum : sum == 0.0f ? 0.0f : NAN;
      const size_t at = args_.out_row(split_, list_, row);
      float* o = args_.o + at * kDim;
#pragma unroll
      for (int32_t part = 0; part < kParts; part++) {
#pragma unroll
        for (int32_t i = 0; i < kColumns / 8; i++) {
          *reinterpret_cast<float2*>(o + part * kColumns + i * 8 + lane_ % 4 * 2) =
              make_float2(o_[part][4 * i + 2 * half] * inverse, o_[part][4 * i + 2 * half + 1] * inverse);
        }
      }
      if (lane_ % 4 == 0) args_.put_lse(at, most_[half], sum);
    }
    if constexpr (Keys::kSampled) best_.finish();
  }

  const AttendArguments& args_;
  const Keys& keys_;
  const KeyRange range_;
  uint8_t* const queries_;
  const uint32_t keys_at_, values_at_;
  TilePhases& phases_;
  uint32_t queries_at_ = 0;
  int32_t group_, lane_, list_, split_, group_row_, warp_row_;
  int32_t least_[2], greatest_[2];
  float most_[2], sum_[2], shrink_[2];
  float s_[kKeys / 2], o_[kParts][kColumns / 2];
  uint32_t weights_[kKeys / 16][4];
  std::conditional_t<Keys::kSampled, BestOfRows<kDim>, NoBest> best_;
};

// Grid: (blocks of kWgmmaRows rows, lists, splits).
template <int kDim, class Keys>
__global__ void __launch_bounds__(kWgmmaThreads, 1)
    attend_wgmma(const KVASIR_GRID_CONSTANT AttendArguments args, const KVASIR_GRID_CONSTANT Keys keys,
                 const KVASIR_GRID_CONSTANT SegmentMaps maps) {
  using Shape = WgmmaShape<kDim>;
  KVASIR_DYNAMIC_SHARED(uint8_t, shared);
  KVASIR_SHARED(TilePhases, all_phases, [1]);
  TilePhases& phases = all_phases[0];
  const int32_t list = static_cast<int32_t>(blockIdx.y);
  // Late queries of a prompt see most: they begin first.
  const int32_t block_row = (static_cast<int32_t>(gridDim.x) - 1 - static_cast<int32_t>(blockIdx.x)) * 2 * 64;
  const int32_t last_row = at_most(block_row + 2 * 64, args.rows()) - 1;
  const KeyRange range = share_of(keys.range(list, block_row / args.group, last_row / args.group), static_cast<int32_t>(blockIdx.z),
                                  args.splits, Shape::kKeys);
  const int32_t tiles = (at_least(0, range.to - range.from) + Shape::kKeys - 1) / Shape::kKeys;
  uint8_t* const queries = shared + (0u - operand_address(shared)) % kOperandAligned;
  uint8_t* const key_tiles = queries + 2 * Shape::kQueries;
  uint8_t* const value_tiles = key_tiles + Shape::kStages * Shape::kTile;
  if (threadIdx.x == 0) {
    for (int32_t stage = 0; stage < Shape::kStages; stage++) {
      phase_make(&phases.full_keys[stage], kProducerWarps), phase_make(&phases.full_values[stage], kProducerWarps);
      phase_make(&phases.empty_keys[stage], kConsumerWarps), phase_make(&phases.empty_values[stage], kConsumerWarps);
    }
    fence_operands();  // copies by tensor maps see the phases
  }
  __syncthreads();
  if (threadIdx.x >= kConsumers) {
    give_registers<40>();
    TileProducer<kDim>(args, maps, args.kv_head(list), range, key_tiles, value_tiles, phases).run(tiles);
  } else {
    take_registers<232>();
    TileConsumer<kDim, Keys>(args, keys, range, queries, operand_address(key_tiles), operand_address(value_tiles), phases, block_row).run(tiles);
  }
}

}  // namespace kvasir
