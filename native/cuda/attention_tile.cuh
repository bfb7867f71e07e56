// Attention in tiles on tensor cores: one kernel for prompts, decode windows and gathered rows (FlashAttention-2; Dao 2023,
// section 3; split keys as in FlashDecoding). Products of halves summed in float; logits, softmax and outputs are float.
//
// Rows of a tile are (query, head of the group) pairs of one KV head, so that a group shares every key and value that is read. With
// kRowWarps warps, each has 16 rows and all keys of a tile (prompts); with kKeyWarps, all have the same 16 rows and a share of the
// keys, and are merged at the end (decode). While a tile is computed, the next one is on its way to shared memory.
//
// Ladder (not measured yet: no device was at hand; registers and spills from ptxas are in docs/cuda.md)
//   1  this file: mma.sync m16n8k16, cp.async, two stages, rows padded by 16 bytes instead of swizzled
// Not taken: two row fragments a warp, as FlashAttention-2 has them for heads of 128. They would halve what is read of shared memory, which
// 16 rows a warp read as fast as tensor cores multiply; registers (142 for heads of 64, 179 for 128, 254 for 256) allow them up to 128 with the
// queries in shared memory. A second shape of every kernel for a gain that only a device can show; on 9.0 prompts are wgmma's anyway.
#pragma once
#include <type_traits>

#include "attention_best.cuh"
#include "attention_keys.cuh"
#include "mutants.h"
#include "tensor_core.h"

namespace kvasir {

template <int kDim>
struct TileShape {
  static constexpr int32_t kKeys = kDim > 128 ? 32 : 64;  // of a tile
  static constexpr int32_t kPitch = kDim + 8;             // halves; odd in units of 16 bytes: fragments' rows hit all banks
  static constexpr int32_t kStages = 2;
  static constexpr int32_t kStage = 2 * kKeys * kPitch;  // halves: keys, then values
  static constexpr bool kSharedQueries = kDim > 128;     // else they stay in registers
};

// Of a tile's keys, beside their rows.
template <int kKeys>
struct TileKeys {
  const char* key[kKeys];
  const char* value[kKeys];
  float key_scale[kKeys], value_scale[kKeys], bias[kKeys];
  int32_t position[kKeys];  // INT32_MAX: there is no such key
};

// Dynamic shared memory: stages, which merging warps use again; queries; descriptions of three tiles.
template <int kDim, int kRowWarps, int kKeyWarps>
struct TileMemory {
  using Shape = TileShape<kDim>;
  static constexpr size_t kStages = sizeof(uint16_t) * Shape::kStages * Shape::kStage;
  static constexpr size_t kMerged = kKeyWarps == 1 ? 0 : sizeof(float) * kKeyWarps * 16 * (kDim + 2);
  static constexpr size_t kQueriesAt = kStages > kMerged ? kStages : kMerged;
  static constexpr size_t kDescribedAt =
      kQueriesAt + (Shape::kSharedQueries ? sizeof(uint16_t) * 16 * kRowWarps * Shape::kPitch : 0);
  static constexpr size_t kBytes = kDescribedAt + 3 * sizeof(TileKeys<Shape::kKeys>);
};

// What a warp knows of its 16 rows; a lane holds rows lane / 4 and lane / 4 + 8.
template <int kDim>
struct WarpRows {
  float o[kDim / 8][4];
  float most[2], sum[2];
};

template <int kDim, class Element, class Keys, int kRowWarps, int kKeyWarps>
class TileAttention {
  using Shape = TileShape<kDim>;
  using Memory = TileMemory<kDim, kRowWarps, kKeyWarps>;
  static constexpr int32_t kKeys = Shape::kKeys, kPitch = Shape::kPitch, kThreads = 32 * kRowWarps * kKeyWarps;
  static constexpr int32_t kMine = kKeys / kKeyWarps;  // keys of a tile that a warp takes
  static constexpr bool kAsync = sizeof(Element) == 2;
  static_assert(kRowWarps == 1 || kKeyWarps == 1, "rows are shared out, or keys");
  static_assert(kMine % 16 == 0 && kKeys <= kThreads, "a warp takes whole fragments, a thread at most one key's description");

 public:
  __device__ TileAttention(const AttendArguments& args, const Keys& keys, uint8_t* shared)
      : args_(args), keys_(keys), stages_(reinterpret_cast<uint16_t*>(shared)),
        best_(keys, args, static_cast<int32_t>(blockIdx.y), static_cast<int32_t>(blockIdx.z),
              first_row() + (kKeyWarps == 1 ? static_cast<int32_t>(threadIdx.x) / 32 * 16 : 0)) {
    described_ = reinterpret_cast<TileKeys<kKeys>*>(shared + Memory::kDescribedAt);
    queries_ = reinterpret_cast<uint16_t*>(shared + Memory::kQueriesAt);
    warp_ = static_cast<int32_t>(threadIdx.x) / 32, lane_ = static_cast<int32_t>(threadIdx.x) % 32;
    list_ = static_cast<int32_t>(blockIdx.y), split_ = static_cast<int32_t>(blockIdx.z);
    block_row_ = first_row();
    warp_row_ = block_row_ + (kKeyWarps == 1 ? warp_ * 16 : 0);
    for (int32_t half = 0; half < 2; half++) {
      const int32_t row = warp_row_ + lane_ / 4 + 8 * half, query = row / args.group;
      least_[half] = keys.least(query), greatest_[half] = keys.greatest(query);
    }
  }

  __device__ void run() {
    const int32_t last_row = at_most(block_row_ + 16 * kRowWarps, args_.rows()) - 1;
    const int32_t first_query = block_row_ / args_.group, last_query = last_row / args_.group;
    range_ = share_of(keys_.range(list_, first_query, last_query), split_, args_.splits, kKeys);
    const int32_t keys = at_least(0, range_.to - range_.from), partial = is_seeded(Mutant::kAttendPartialTile) ? 0 : kKeys - 1;
    const int32_t tiles = (keys + partial) / kKeys;
    load_queries();
    for (int32_t i = 0; i < kDim / 8; i++) {
      for (int32_t j = 0; j < 4; j++) rows_.o[i][j] = 0.0f;
    }
    rows_.most[0] = rows_.most[1] = -INFINITY;
    rows_.sum[0] = rows_.sum[1] = 0.0f;

    describe(0);
    __syncthreads();
    load(0);
    describe(1);
    for (int32_t tile = 0; tile < tiles; tile++) {
      __syncthreads();  // the next tile is described, and nobody reads the stage it goes to
      if (tile + 1 < tiles) load(tile + 1);
      else if (kAsync) copies_commit();
      describe(tile + 2);
      if (kAsync && !is_seeded(Mutant::kAttendForgottenWait)) copies_wait<1>();
      if (!is_seeded(Mutant::kAttendWithoutBarrier)) __syncthreads();
      const int32_t from = range_.from + tile * kKeys, to = from + kKeys;
      const bool unequal = Keys::kCausal && (to - 1 > keys_.greatest(first_query) || from < keys_.least(last_query));
      attend(tile, !Keys::kCausal || to > range_.to || unequal);
    }
    if (kAsync) copies_wait<0>();
    finish();
  }

 private:
  // Of the block. Late queries of a prompt see most: they begin first.
  __device__ static int32_t first_row() { return (static_cast<int32_t>(gridDim.x) - 1 - static_cast<int32_t>(blockIdx.x)) * 16 * kRowWarps; }
  __device__ uint16_t* keys_of(int32_t tile) const { return stages_ + tile % Shape::kStages * Shape::kStage; }
  __device__ uint16_t* values_of(int32_t tile) const { return keys_of(tile) + kKeys * kPitch; }

  // Where the keys of a tile lie: one thread a key.
  __device__ void describe(int32_t tile) const {
    const int32_t i = static_cast<int32_t>(threadIdx.x), number = range_.from + tile * kKeys + i;
    if (i >= kKeys) return;
    TileKeys<kKeys>& to = described_[tile % 3];
    KeyRow row{nullptr, nullptr, 0.0f, 0.0f};
    int32_t position = -1;
    float bias = 0.0f;
    if (number < range_.to) {
      position = keys_.position(list_, number);
      if (position >= 0) row = find_row(args_.table, args_.kv_head(list_), position);
      bias = keys_.bias(list_, number);
    }
    to.key[i] = row.key, to.value[i] = row.value;
    to.key_scale[i] = row.key_scale, to.value_scale[i] = row.value_scale;
    to.bias[i] = bias * kLog2E;
    to.position[i] = position >= 0 ? position : INT32_MAX;
  }

  // Rows of a described tile to its stage; zeros where there is no key. A thread takes 16 bytes of halves at a time.
  __device__ void load(int32_t tile) const {
    constexpr int32_t kPieces = kDim / 8;
    const TileKeys<kKeys>& from = described_[tile % 3];
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < 2 * kKeys * kPieces; i += kThreads) {
      const int32_t piece = i % kPieces, key = i / kPieces % kKeys;
      const bool value = i >= kKeys * kPieces;
      uint16_t* to = (value ? values_of(tile) : keys_of(tile)) + key * kPitch + piece * 8;
      const char* row = value ? from.value[key] : from.key[key];
      if (row == nullptr) {
        *reinterpret_cast<uint4*>(to) = uint4{0, 0, 0, 0};
      } else if constexpr (kAsync) {
        copy_async(to, row + piece * 16);
      } else {
        // Keys stay whole numbers, which halves hold exactly: their scale is the logit's. Values are rounded.
        const float scale = value ? from.value_scale[key] : 1.0f;
        const uint2 eight = *reinterpret_cast<const uint2*>(row + piece * 8);
        uint4 wide;
        wide.x = widen_pair(eight.x, 0, scale), wide.y = widen_pair(eight.x, 16, scale);
        wide.z = widen_pair(eight.y, 0, scale), wide.w = widen_pair(eight.y, 16, scale);
        *reinterpret_cast<uint4*>(to) = wide;
      }
    }
    if (kAsync) copies_commit();
  }

  __device__ static uint32_t widen_pair(uint32_t word, int32_t shift, float scale) {
    return pack_half2(static_cast<float>(static_cast<int8_t>(word >> shift)) * scale,
                         static_cast<float>(static_cast<int8_t>(word >> (shift + 8))) * scale);
  }

  // Two neighbouring numbers of a query, 0 beyond the last row.
  __device__ uint32_t query_pair(int32_t row, int32_t dim) const {
    if (row >= args_.rows()) return 0;
    const float* q = args_.q + args_.head_row(list_, row) * kDim + dim;
    return pack_half2(q[0], q[1]);
  }

  __device__ void load_queries() {
    if constexpr (Shape::kSharedQueries) {
      for (int32_t i = static_cast<int32_t>(threadIdx.x); i < 16 * kRowWarps * kDim / 2; i += kThreads) {
        const int32_t row = i / (kDim / 2), dim = i % (kDim / 2) * 2;
        *reinterpret_cast<uint32_t*>(queries_ + row * kPitch + dim) = query_pair(block_row_ + row, dim);
      }
    } else {
      for (int32_t k = 0; k < kDim / 16; k++) {
        for (int32_t i = 0; i < 4; i++) {
          fragments_[k][i] = query_pair(warp_row_ + lane_ / 4 + i % 2 * 8, k * 16 + lane_ % 4 * 2 + i / 2 * 8);
        }
      }
    }
  }

  __device__ void query_fragment(uint32_t (&a)[4], int32_t k) const {
    if constexpr (Shape::kSharedQueries) {
      const int32_t row = (kKeyWarps == 1 ? warp_ * 16 : 0) + lane_ % 16;
      load_matrices(a, queries_ + row * kPitch + k * 16 + lane_ / 16 * 8);
    } else {
      for (int32_t i = 0; i < 4; i++) a[i] = fragments_[k][i];
    }
  }

  __device__ void attend(int32_t tile, bool masked) {
    const TileKeys<kKeys>& keys = described_[tile % 3];
    const int32_t first = kKeyWarps == 1 ? 0 : warp_ * kMine;
    if constexpr (Keys::kSampled) best_.template make_room<kKeys>();
    float s[kMine / 8][4];
    score(s, keys_of(tile), first);
#pragma unroll
    for (int32_t i = 0; i < kMine / 8; i++) {
#pragma unroll
      for (int32_t j = 0; j < 4; j++) {
        const int32_t key = first + i * 8 + lane_ % 4 * 2 + j % 2;
        float x = s[i][j] * args_.scale;
        if constexpr (!kAsync) x *= keys.key_scale[key];
        if (args_.softcap > 0.0f) x = args_.softcap * tanhf(x / args_.softcap);
        x *= kLog2E;
        if (!Keys::kCausal) x += keys.bias[key];
        if (masked) {
          const int32_t position = keys.position[key];
          if (position < least_[j / 2] || position > greatest_[j / 2] + (is_seeded(Mutant::kAttendMask) ? 1 : 0)) x = -INFINITY;
        }
        s[i][j] = x;
      }
    }
    soften(s, range_.from + tile * kKeys + first);
    weigh(s, values_of(tile), first);
  }

  // Two neighbouring fragments of 8 columns.
  __device__ static void multiply(float (&left)[4], float (&right)[4], const uint32_t (&a)[4], const uint32_t (&b)[4]) {
    const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
    mma_f16(left, a, low);
    mma_f16(right, a, high);
  }

  // s := queries times the warp's keys.
  __device__ void score(float (&s)[kMine / 8][4], const uint16_t* keys, int32_t first) const {
#pragma unroll
    for (int32_t i = 0; i < kMine / 8; i++) {
#pragma unroll
      for (int32_t j = 0; j < 4; j++) s[i][j] = 0.0f;
    }
#pragma unroll
    for (int32_t k = 0; k < kDim / 16; k++) {
      uint32_t a[4], b[4];
      query_fragment(a, k);
#pragma unroll
      for (int32_t i = 0; i < kMine / 16; i++) {
        // Keys 0 to 7, dimensions 0 to 7 and 8 to 15; then keys 8 to 15.
        const int32_t key = first + i * 16 + lane_ / 16 * 8 + lane_ % 8;
        load_matrices(b, keys + key * kPitch + k * 16 + lane_ / 8 % 2 * 8);
        multiply(s[2 * i], s[2 * i + 1], a, b);
      }
    }
  }

  // s := weights relative to the greatest logit of the row so far (Milakov and Gimelshein 2018); what was summed follows it. from: the
  // number of the first key.
  __device__ void soften(float (&s)[kMine / 8][4], int32_t from) {
#pragma unroll
    for (int32_t half = 0; half < 2; half++) {
      float most = -INFINITY;
#pragma unroll
      for (int32_t i = 0; i < kMine / 8; i++) most = fmaxf(most, fmaxf(s[i][2 * half], s[i][2 * half + 1]));
      if constexpr (Keys::kSampled) {
        best_.template note<kMine / 4>(
            half, most, [&](int32_t i) { return s[i / 2][2 * half + i % 2]; },
            [&](int32_t i) { return from + i / 2 * 8 + lane_ % 4 * 2 + i % 2; });
      }
      most = fmaxf(most, rows_.most[half]);
      most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, 1));
      most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, 2));
      const float reference = most == -INFINITY ? 0.0f : most;
      const float shrink = exp2f(rows_.most[half] - reference), follow = is_seeded(Mutant::kAttendRescale) ? 1.0f : shrink;
      rows_.most[half] = most;
      float sum = rows_.sum[half] * shrink;
#pragma unroll
      for (int32_t i = 0; i < kMine / 8; i++) {
#pragma unroll
        for (int32_t j = 2 * half; j < 2 * half + 2; j++) {
          s[i][j] = exp2f(s[i][j] - reference);
          sum += s[i][j];
        }
      }
      rows_.sum[half] = sum;
#pragma unroll
      for (int32_t i = 0; i < kDim / 8; i++) rows_.o[i][2 * half] *= follow, rows_.o[i][2 * half + 1] *= follow;
    }
  }

  // Outputs += weights times the warp's values. A sum of products has the layout that a factor needs.
  __device__ void weigh(const float (&s)[kMine / 8][4], const uint16_t* values, int32_t first) {
#pragma unroll
    for (int32_t k = 0; k < kMine / 16; k++) {
      const uint32_t a[4] = {pack_half2(s[2 * k][0], s[2 * k][1]), pack_half2(s[2 * k][2], s[2 * k][3]),
                             pack_half2(s[2 * k + 1][0], s[2 * k + 1][1]), pack_half2(s[2 * k + 1][2], s[2 * k + 1][3])};
      const uint16_t* row = values + (first + k * 16 + lane_ % 16) * kPitch;
#pragma unroll
      for (int32_t i = 0; i < kDim / 16; i++) {
        uint32_t b[4];
        load_matrices_transposed(b, row + i * 16 + lane_ / 16 * 8);
        multiply(rows_.o[2 * i], rows_.o[2 * i + 1], a, b);
      }
    }
  }

  __device__ void finish() {
#pragma unroll
    for (int32_t half = 0; half < 2; half++) {
      rows_.sum[half] += __shfl_xor_sync(kFullWarp, rows_.sum[half], 1);
      rows_.sum[half] += __shfl_xor_sync(kFullWarp, rows_.sum[half], 2);
    }
    if constexpr (kKeyWarps > 1) {
      merge_warps();
    } else {
      for (int32_t half = 0; half < 2; half++) {
        const int32_t row = warp_row_ + lane_ / 4 + 8 * half;
        if (row >= args_.rows()) continue;
        const float sum = rows_.sum[half], inverse = sum > 0.0f ? 1.0f / sum : sum == 0.0f ? 0.0f : NAN;
        float* o = out_of(row);
        for (int32_t i = 0; i < kDim / 8; i++) {
          o[i * 8 + lane_ % 4 * 2] = rows_.o[i][2 * half] * inverse;
          o[i * 8 + lane_ % 4 * 2 + 1] = rows_.o[i][2 * half + 1] * inverse;
        }
        if (lane_ % 4 == 0) put_lse(row, rows_.most[half], sum);
      }
    }
    if constexpr (Keys::kSampled) best_.finish();
  }

  // The warps' sums of the same rows, through the memory of the stages.
  __device__ void merge_warps() {
    __syncthreads();
    float* sums = reinterpret_cast<float*>(stages_);          // [warp][16][kDim]
    float* weights = sums + kKeyWarps * 16 * kDim;            // [warp][16][2]: greatest logit, sum
    for (int32_t half = 0; half < 2; half++) {
      const int32_t at = warp_ * 16 + lane_ / 4 + 8 * half;
      for (int32_t i = 0; i < kDim / 8; i++) {
        sums[at * kDim + i * 8 + lane_ % 4 * 2] = rows_.o[i][2 * half];
        sums[at * kDim + i * 8 + lane_ % 4 * 2 + 1] = rows_.o[i][2 * half + 1];
      }
      if (lane_ % 4 == 0) weights[at * 2] = rows_.most[half], weights[at * 2 + 1] = rows_.sum[half];
    }
    __syncthreads();
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < 16 * kDim; i += kThreads) {
      const int32_t at = i / kDim, row = block_row_ + at;
      if (row >= args_.rows()) break;
      float most = -INFINITY, sum = 0.0f, total = 0.0f;
      for (int32_t w = 0; w < kKeyWarps; w++) most = fmaxf(most, weights[(w * 16 + at) * 2]);
      const float reference = most == -INFINITY ? 0.0f : most;
      for (int32_t w = 0; w < kKeyWarps; w++) {
        const float factor = exp2f(weights[(w * 16 + at) * 2] - reference);
        sum += factor * weights[(w * 16 + at) * 2 + 1];
        total += factor * sums[(w * 16 + at) * kDim + i % kDim];
      }
      out_of(row)[i % kDim] = sum > 0.0f ? total / sum : sum == 0.0f ? 0.0f : NAN;
      if (i % kDim == 0) put_lse(row, most, sum);
    }
  }

  __device__ size_t out_row(int32_t row) const { return args_.out_row(split_, list_, row); }
  __device__ float* out_of(int32_t row) const { return args_.o + out_row(row) * kDim; }
  __device__ void put_lse(int32_t row, float most, float sum) const { args_.put_lse(out_row(row), most, sum); }

  const AttendArguments& args_;
  const Keys& keys_;
  uint16_t* stages_;
  uint16_t* queries_;
  TileKeys<kKeys>* described_;
  int32_t warp_, lane_, list_, split_, block_row_, warp_row_;
  int32_t least_[2], greatest_[2];
  KeyRange range_;
  uint32_t fragments_[Shape::kSharedQueries ? 1 : kDim / 16][4];
  WarpRows<kDim> rows_;
  std::conditional_t<Keys::kSampled, BestOfRows<kDim>, NoBest> best_;
};

// Grid: (blocks of 16 * kRowWarps rows, lists, splits).
template <int kDim, class Element, class Keys, int kRowWarps, int kKeyWarps>
__global__ void __launch_bounds__(32 * kRowWarps * kKeyWarps)
    attend_tiles(const KVASIR_GRID_CONSTANT AttendArguments args, const KVASIR_GRID_CONSTANT Keys keys) {
  KVASIR_DYNAMIC_SHARED(uint8_t, shared);
  TileAttention<kDim, Element, Keys, kRowWarps, kKeyWarps>(args, keys, shared).run();
}

}  // namespace kvasir
