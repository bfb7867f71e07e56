// Tiles of keys and values on their way to attention_wgmma.cuh: the warpgroup that copies them, and the stages it hands over.
//
// A cache lies in segments. A tile comes by their tensor maps (TMA), in boxes of 64 rows of 64 halves, where no box has rows of two of them:
// one thread says how many bytes the stage waits for and asks for the boxes, which are swizzled on the way; rows behind a segment's last
// come as zeros. Rows of the segment behind the range are copied too, and have no weight. Other tiles, and all of them where the driver has
// no tensor maps, come by cp.async with the swizzle done by hand, which each thread waits for and fences. Either way each producing warp
// arrives once.
#pragma once
#include "attention_keys.cuh"
#include "hopper.h"
#include "mutants.h"

namespace kvasir {

template <int kDim>
struct WgmmaShape {
  static constexpr int32_t kKeys = kDim > 128 ? 64 : 128;  // of a tile
  static constexpr int32_t kBlocks = kDim / 64;            // an operand's, side by side
  static constexpr int32_t kStages = 2;
  static constexpr int32_t kBoxRows = 64, kBoxes = kKeys / kBoxRows;  // of a tile's block
  static constexpr int32_t kColumns = kDim > 128 ? 128 : kDim;  // of outputs that one product makes
  static constexpr uint32_t kKeyBlock = kKeys * kOperandRow, kQueryBlock = 64 * kOperandRow;
  static constexpr uint32_t kTile = kBlocks * kKeyBlock, kQueries = kBlocks * kQueryBlock;  // bytes; queries of a warpgroup
  static constexpr size_t kBytes = kOperandAligned + 2 * kQueries + 2 * kStages * kTile;
};

constexpr int32_t kWgmmaThreads = 384, kConsumers = 256, kProducers = 128;
constexpr int32_t kConsumerWarps = kConsumers / 32, kProducerWarps = kProducers / 32;

struct TilePhases {
  uint64_t full_keys[2], empty_keys[2], full_values[2], empty_values[2];
};

// Of a launch's segments, by their number.
struct SegmentMaps {
  TensorMap keys[kMostSegments], values[kMostSegments];
  int32_t used;  // 0: there are none
};

// Keys and values of a block, brought by 128 threads.
template <int kDim>
class TileProducer {
  using Shape = WgmmaShape<kDim>;
  static constexpr int32_t kPieces = kDim / 8, kAtOnce = kProducers / kPieces;  // keys

 public:
  __device__ TileProducer(const AttendArguments& args, const SegmentMaps& maps, int32_t kv_head, KeyRange range, uint8_t* keys, uint8_t* values,
                          TilePhases& phases)
      : args_(args), maps_(maps), kv_head_(kv_head), range_(range), keys_(keys), values_(values), phases_(phases),
        thread_(static_cast<int32_t>(threadIdx.x) - kConsumers) {}

  __device__ void run(int32_t tiles) {
    bool owes = false;  // values of the tile before, on their way by cp.async
    for (int32_t tile = 0; tile < tiles; tile++) {
      const int32_t stage = tile % Shape::kStages;
      const uint32_t before = static_cast<uint32_t>(tile / Shape::kStages & 1) ^ 1;
      const bool boxes = maps_.used != 0 && fits_boxes(tile);
      phase_wait(&phases_.empty_keys[stage], before);
      load<true>(tile, boxes, keys_ + static_cast<uint32_t>(stage) * Shape::kTile, &phases_.full_keys[stage]);
      if (owes) hand_over<1>(&phases_.full_values[(tile - 1) % Shape::kStages]);
      phase_wait(&phases_.empty_values[stage], before);
      load<false>(tile, boxes, values_ + static_cast<uint32_t>(stage) * Shape::kTile, &phases_.full_values[stage]);
      if (!boxes) hand_over<1>(&phases_.full_keys[stage]);
      owes = !boxes;
    }
    if (owes) hand_over<0>(&phases_.full_values[(tiles - 1) % Shape::kStages]);
  }

 private:
  // Whether each box's rows, as many as there are, lie in one segment.
  __device__ bool fits_boxes(int32_t tile) {
    const int32_t end = at_most(range_.from + (tile + 1) * Shape::kKeys, range_.to);
    for (int32_t from = range_.from + tile * Shape::kKeys; from < end; from += Shape::kBoxRows) {
      find(from);
      if (!is_seeded(Mutant::kTensorSeam) && at_most(from + Shape::kBoxRows, end) > segment_.end) return false;
    }
    return true;
  }

  // What was copied, but for the last kLeft loads, has landed.
  template <int kLeft>
  __device__ void hand_over(uint64_t* phase) {
    copies_wait<kLeft>();
    if (!is_seeded(Mutant::kWgmmaFence)) fence_operands();
    __syncwarp();
    if (thread_ % 32 == 0) phase_arrive(phase);
  }

  template <bool kIsKey>
  __device__ void load(int32_t tile, bool boxes, uint8_t* to, uint64_t* full) {
    if (!boxes) load_rows<kIsKey>(tile, to);
    else if (thread_ == 0) load_boxes<kIsKey>(tile, to, full);
    else if (thread_ % 32 == 0) phase_arrive(full);
    copies_commit();  // of none, with boxes: hand_over counts loads
  }

  template <bool kIsKey>
  __device__ void load_boxes(int32_t tile, uint8_t* to, uint64_t* full) {
    phase_arrive_expecting(full, is_seeded(Mutant::kTensorBytes) ? Shape::kTile / 2 : Shape::kTile);
    for (int32_t box = 0; box < Shape::kBoxes; box++, to += Shape::kBoxRows * kOperandRow) {
      const int32_t position = range_.from + tile * Shape::kKeys + box * Shape::kBoxRows;
      if (position < range_.to) find(position);  // behind the range nothing has weight
      const TensorMap& map = kIsKey ? maps_.keys[segment_.number] : maps_.values[segment_.number];
#pragma unroll
      for (int32_t block = 0; block < Shape::kBlocks; block++) {
        copy_box(to + static_cast<uint32_t>(block) * Shape::kKeyBlock, map, block * kBoxColumns, position - segment_.start, kv_head_, full);
      }
    }
  }

  // The same piece of every kAtOnce-th key; zeros behind the last one. Not unrolled: that takes more registers than there are.
  template <bool kIsKey>
  __device__ void load_rows(int32_t tile, uint8_t* to) {
    const int32_t piece = thread_ % kPieces;
#pragma unroll 1
    for (int32_t key = thread_ / kPieces; key < Shape::kKeys; key += kAtOnce) {
      const int32_t position = range_.from + tile * Shape::kKeys + key;
      const uint32_t place = !kIsKey && is_seeded(Mutant::kWgmmaSwizzle) ? static_cast<uint32_t>(key * 128 + piece % 8 * 16)
                                                                        : piece_of(static_cast<uint32_t>(key), static_cast<uint32_t>(piece % 8));
      uint8_t* at = to + static_cast<uint32_t>(piece / 8) * Shape::kKeyBlock + place;
      if (position >= range_.to) {
        store_piece(at, make_uint4(0, 0, 0, 0));
        continue;
      }
      find(position);
      const KeySegment& s = args_.table.segments[segment_.number];
      const size_t row = static_cast<size_t>(kv_head_) * static_cast<size_t>(s.capacity) + static_cast<size_t>(position - segment_.start);
      copy_async(at, (kIsKey ? s.keys : s.values) + row * (kDim * 2) + piece * 16);
    }
  }

  __device__ void find(int32_t position) {
    if (position >= segment_.start && position < segment_.end) return;
    int32_t i = args_.table.count - 1;
    while (i > 0 && position < args_.table.segments[i].start) i--;
    const KeySegment& s = args_.table.segments[i];
    segment_ = {i, s.start, s.start + s.count};
  }

  const AttendArguments& args_;
  const SegmentMaps& maps_;
  const int32_t kv_head_;
  const KeyRange range_;
  uint8_t *const keys_, *const values_;
  TilePhases& phases_;
  const int32_t thread_;
  // Registers are few here (40): what else is of a segment stays where the launch put it.
  struct {
    int32_t number, start, end;
  } segment_{0, 0, 0};
};

}  // namespace kvasir
