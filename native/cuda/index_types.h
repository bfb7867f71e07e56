// What an index on the device is made of, for kernels and those who launch them.
#pragma once
#include <cstddef>
#include <cstdint>

#include "key_segment.h"

namespace kvasir {

constexpr int32_t kCodeChunk = 2048, kCodeBlock = 32, kCodeBand = 32;  // keys, keys, dimensions
constexpr int32_t kScanKeys = 512, kScanThreads = 256;                 // of a block of a scan; 512 divides a chunk

struct IndexShape {
  int32_t heads, kv_heads, group, dim;
  float scale, softcap;
};

// Of codes (index_codes.cuh); sizes and offsets in bytes.
struct CodeLayout {
  int32_t dim, bands, width;  // width: dimensions with those that fill the last band
  int32_t pieces;             // of 16 bytes a key and band: 1 with 4 bits, 2 with 8
  int32_t blocks_at, scales_at, block_bytes, head_bytes;
};

inline CodeLayout code_layout(int32_t dim, bool nibbles) {
  CodeLayout layout{};
  layout.dim = dim, layout.bands = (dim + kCodeBand - 1) / kCodeBand, layout.width = layout.bands * kCodeBand;
  layout.pieces = nibbles ? 1 : 2;
  layout.blocks_at = 2 * layout.width * 4;
  layout.scales_at = layout.bands * layout.pieces * kCodeBlock * 16;
  layout.block_bytes = layout.scales_at + layout.bands * kCodeBlock * 2;
  layout.head_bytes = layout.blocks_at + kCodeChunk / kCodeBlock * layout.block_bytes;
  return layout;
}

// Rows of a layer's cache, with as many segments as there are.
struct RowTable {
  const KeySegment* segments;
  int32_t count, dtype, dim, row_bytes;
};

// A group's queries as codes want them. Widths are code_layout's.
struct PreparedQueries {
  int8_t* codes;     // [heads][width]
  int32_t* offsets;  // [heads][bands]: takes back the 8 that nibbles are above what they stand for
  float* factors;    // [heads]: turns scale * integer into a logit
  float* bases;      // [chunks][heads]: what logits of a chunk's keys start from
};

// What a search finds wrong or in need of the slower way, on the device.
struct SearchFlags {
  int32_t bad_query, bad_exact;  // not finite
  int32_t by_floats;             // logarithms relative to what is attended exactly do not do: none, or scores far above it
};

// Where scores go: logarithms or floats by [head][stride], and of every block of keys the sum of the logarithms' bits, or the
// greatest score, by [block][head].
struct ScoreOut {
  int16_t* logs;
  float* scores;
  float* parts;
  size_t stride;
  int32_t keys, blocks;
};

// What a draw keeps, block by block of kScanKeys keys, then in order.
struct DrawOut {
  int32_t* keys;      // [kv_heads][blocks * kScanKeys]: of each block the first `counts` places
  int16_t* tops;      // beside them: logarithms of p * 2^16
  int32_t* counts;    // [kv_heads][blocks]
  int64_t* squares;   // [heads]: sums of (1 - p) w^2 in units of 2^-30
  int32_t blocks;
};

// Where hits go. Rows that do not fit in `capacity` are only counted.
struct HitsOut {
  int32_t* tokens;  // [rows][capacity]
  float* bias;
  int32_t* counts;  // [rows]
  float* errors;
  int32_t capacity, begin;  // position of key 0
};

// Of one row. `least`: bits of the k-th best in order; `equal`: how many that are equal to it are kept.
struct Selection {
  uint32_t least;
  int32_t equal;
  int32_t wanted;  // of what has not been decided yet
};

}  // namespace kvasir
