#include "codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "codes_chunk.h"
#include "error.h"
#include "nibble_planes.h"
#include "row_kernels.h"

namespace kvasir {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kJoined = 8;  // blocks of 4-bit codes that are put together for a scan at a time: they stay in L1

// Calls body(from_lane, rows) for stretches of rows [from, to) that lie in one segment; first is the position of key 0.
template <class F>
void each_stretch(const Rows& rows, int32_t head, int32_t first, int32_t from, int32_t to, F&& body) {
  for (int32_t i = from; i < to;) {
    const Segment& s = rows.find(first + i);
    const int32_t row = first + i - s.start(), n = std::min(to - i, s.capacity() - row);
    std::vector<float> scales;
    if (s.dtype() == KVASIR_I8) {
      for (int32_t r = 0; r < n; r++) scales.push_back(s.key_scale(head, row + r));
    }
    body(i, CodeRows{s.key(head, row), s.dtype(), scales.data(), n}, s.row_bytes());
    i += n;
  }
}

}  // namespace

Codes::Codes(const IndexIsa* isa, Kind kind, int32_t kv_heads, int32_t dim, std::shared_ptr<ChunkMemory> memory)
    : isa_(isa), memory_(memory == nullptr ? std::make_shared<ChunkMemory>() : std::move(memory)), kernels_(kind == kInt4 ? isa->nibbles : isa->codes), kind_(kind), kv_heads_(kv_heads),
      shape_(dim, kind == kInt4 ? 4 : 8), kept_(kind == kInt4 ? coarse_shape(shape_) : shape_),
      // Rounding of the scan and of the float32 scores that it must bound: terms in the longest chain of additions, doubled.
      slack_(static_cast<float>(shape_.bands + dim / 32 + 40) * 0x1p-23f), chunks_(static_cast<size_t>(kv_heads)),
      blocks_(static_cast<size_t>(kv_heads)), fines_(static_cast<size_t>(kv_heads)), errors_(static_cast<size_t>(kv_heads)), centres_(static_cast<size_t>(kv_heads)),
      norms_(static_cast<size_t>(kv_heads)), squares_(static_cast<size_t>(kv_heads)) {}

size_t Codes::bytes() const {
  return kind_ == kNone ? 0 : chunk_bytes() * static_cast<size_t>(chunks()) * static_cast<size_t>(kv_heads_);
}

size_t Codes::fine_bytes() const { return kind_ == kInt4 ? static_cast<size_t>(shape_.bands * kFineBandBytes) : 0; }

void Codes::copy_blocks(const Chunk& to, const Chunk& from, size_t blocks) const {
  std::memcpy(to.about, from.about, about_bytes());
  std::memcpy(to.blocks, from.blocks, blocks * kept_.block_bytes);
  if (kind_ == kInt4) std::memcpy(to.fine, from.fine, blocks * kBlockKeys * fine_bytes());
}

Codes::ChunkPtr Codes::new_chunk() const {
  auto chunk = std::make_shared<Chunk>();
  uint8_t** const pieces[] = {&chunk->about, &chunk->blocks, &chunk->fine};
  const size_t bytes[] = {about_bytes(), kept_.block_bytes * kChunkBlocks, fine_bytes() * kChunkKeys};
  for (int32_t i = 0; i < 3 && bytes[i] > 0; i++) {
    const std::shared_ptr<uint8_t> piece = memory_->take(bytes[i]);
    *pieces[i] = piece.get();
    chunk->holder[i] = piece;
  }
  std::memset(chunk->about, 0, about_bytes());
  return chunk;
}

Codes Codes::fork() const {
  own_open_ = false;
  return *this;
}

void Codes::refresh(size_t from) {
  const size_t dim = static_cast<size_t>(shape_.dim);
  for (size_t h = 0; h < chunks_.size(); h++) {
    const size_t count = chunks_[h].size();
    blocks_[h].resize(count), fines_[h].resize(count), errors_[h].resize(count), centres_[h].resize(count * dim), norms_[h].resize(count);
    squares_[h].resize(count * squares_of());
    for (size_t c = from; c < count; c++) {
      const Chunk& chunk = *chunks_[h][c];
      blocks_[h][c] = chunk.blocks;
      fines_[h][c] = chunk.fine;
      errors_[h][c] = chunk.errors(shape_);
      std::memcpy(&centres_[h][c * dim], chunk.centre(), dim * sizeof(float));
      float square;
      isa_->rows->dot_f32(&square, chunk.centre(), chunk.centre(), 1, shape_.dim);
      norms_[h][c] = {std::sqrt(square), chunk.header().norm};
      const int32_t keys = std::min(size_ - static_cast<int32_t>(c) * kChunkKeys, kChunkKeys);
      for (size_t i = 0; i < squares_of(); i++) squares_[h][c * squares_of() + i] = chunk.header().squares[i] / static_cast<float>(keys);
    }
  }
}

void Codes::append(const Rows& rows, int32_t from, int32_t count, Pool* pool) {
  if (size_ == 0) begin_ = from;
  if (from != end()) fail(KVASIR_INTERNAL, "Cannot encode keys: they start at %d, expected %d", from, end());
  if (count <= 0) return;
  if (kind_ == kNone) {
    size_ += count;
    return;
  }
  const int32_t first = size_ / kChunkKeys, last = (size_ + count - 1) / kChunkKeys;
  for (auto& chunks : chunks_) {
    if (size_ % kChunkKeys != 0 && !own_open_) {
      const ChunkPtr copy = new_chunk();
      copy_blocks(*copy, *chunks.back(), static_cast<size_t>((size_ % kChunkKeys + kBlockKeys - 1) / kBlockKeys));
      chunks.back() = copy;
    }
    while (static_cast<int32_t>(chunks.size()) <= last) chunks.push_back(new_chunk());
  }
  own_open_ = true;
  const int32_t to = size_ + count;
  // Centres of a chunk's first 31 keys are the previous chunk's: so the centres come first, which only the last chunk can need.
  const auto encode = [&](int32_t head, int32_t chunk) {
    append_chunk(rows, head, chunk, std::max(size_, chunk * kChunkKeys), std::min(to, (chunk + 1) * kChunkKeys));
  };
  const int32_t before = last - first;
  if (pool != nullptr && static_cast<int64_t>(count) * kv_heads_ >= 1024) {
    pool->run(kv_heads_ * before, [&](int32_t task, int) { encode(task / before, first + task % before); });
    pool->run(kv_heads_, [&](int32_t head, int) { encode(head, last); });
  } else {
    for (int32_t head = 0; head < kv_heads_; head++) {
      for (int32_t chunk = first; chunk <= last; chunk++) encode(head, chunk);
    }
  }
  size_ = to;
  refresh(static_cast<size_t>(first));
}

// Key by key, so that it does not matter how many come at a time.
void Codes::add_squares(float* sums, const uint8_t* block, int32_t lane, int32_t count) const {
  for (int32_t key = lane; key < lane + count; key++) {
    for (int32_t band = 0; band < shape_.bands; band++) {
      uint16_t scale;
      std::memcpy(&scale, block + nibble_scale_at(key, band, shape_.bands), 2);
      sums[std::min(band, kSquares - 1)] += widen_bfloat(scale) * widen_bfloat(scale);
    }
  }
}

void Codes::append_chunk(const Rows& rows, int32_t head, int32_t chunk, int32_t from, int32_t to) {
  const auto& chunks = chunks_[static_cast<size_t>(head)];
  Chunk& c = *chunks[static_cast<size_t>(chunk)];
  Header& header = c.header();
  const int32_t first = chunk * kChunkKeys, position = begin_ + first;
  from -= first;
  to -= first;
  const int32_t centred = centred_by(to);
  const size_t centre_bytes = sizeof(float) * static_cast<size_t>(shape_.units * kUnit);
  if (from == 0 && centred == 0 && chunk > 0) {
    std::memcpy(c.centre(), chunks[static_cast<size_t>(chunk - 1)]->centre(), centre_bytes);
  }
  if (centred != header.centred) {
    each_stretch(rows, head, position, header.summed, centred, [&](int32_t, const CodeRows& some, size_t) {
      kernels_->add_rows(c.sum(shape_), shape_.dim, some);
    });
    header.summed = header.centred = centred;
    header.norm = 0;
    std::fill(header.squares, header.squares + kSquares, 0.0f);
    bool finite = true;
    for (int32_t i = 0; i < shape_.dim; i++) {
      c.centre()[i] = c.sum(shape_)[i] / static_cast<float>(centred);
      finite = finite && std::fabs(c.centre()[i]) < 1e36f;
    }
    if (!finite) std::memset(c.centre(), 0, centre_bytes);
    from = 0;
  }
  std::vector<uint8_t> both(kind_ == kInt4 ? shape_.block_bytes : 0);  // a block before it is taken apart
  each_stretch(rows, head, position, from, to, [&](int32_t at, CodeRows some, size_t row_bytes) {
    for (int32_t left = some.count; left > 0;) {
      const int32_t block = at / kBlockKeys, lane = at % kBlockKeys;
      uint8_t* codes = c.blocks + static_cast<size_t>(block) * kept_.block_bytes;
      uint8_t* const rest = c.fine + static_cast<size_t>(block * kBlockKeys) * fine_bytes();
      if (lane == 0) {
        std::memset(codes, 0, kept_.block_bytes);
        if (kind_ == kInt4) std::memset(rest, 0, kBlockKeys * fine_bytes());
      }
      some.count = std::min(left, kBlockKeys - lane);
      const float norm = kernels_->encode(both.empty() ? codes : both.data(), c.errors(shape_) + block * kBlockKeys, shape_, c.centre(), slack_, lane, some);
      if (!both.empty()) {
        split_lanes(codes, rest, shape_, both.data(), lane, some.count);
        add_squares(header.squares, both.data(), lane, some.count);
      }
      header.norm = std::max(header.norm, norm);
      some.rows = static_cast<const char*>(some.rows) + static_cast<size_t>(some.count) * row_bytes;
      if (some.scales != nullptr) some.scales += some.count;
      at += some.count;
      left -= some.count;
    }
  });
}

void Codes::score_exact(const PreparedQuery& query, const Rows& rows, int32_t from, int32_t to, float* out,
                        size_t stride) const {
  const RowKernels& kernels = *isa_->rows;
  const int32_t group = query.group(), head = query.head();
  for (int32_t i = from; i < to;) {
    const Segment& s = rows.find(begin_ + i);
    const int32_t first = begin_ + i - s.start(), n = std::min(to - i, s.capacity() - first);
    for (int32_t row = first; row < first + n; row++, i++) {
      const void* k = s.key(head, row);
      const float scale = s.key_scale(head, row);
      float dots[8];
      for (int32_t g0 = 0; g0 < group; g0 += 8) {
        const int32_t some = std::min(8, group - g0);
        const float* q = query.q_.data() + static_cast<size_t>(g0) * static_cast<size_t>(shape_.dim);
        if (s.dtype() == KVASIR_F16) kernels.dot_f16(dots, q, static_cast<const uint16_t*>(k), some, shape_.dim);
        else if (s.dtype() == KVASIR_F32) kernels.dot_f32(dots, q, static_cast<const float*>(k), some, shape_.dim);
        else kernels.dot_i8(dots, q, static_cast<const int8_t*>(k), some, shape_.dim);
        for (int32_t g = 0; g < some; g++) {
          float x = dots[g] * query.scale_ * scale;
          if (!std::isfinite(x)) {
            x = rows.logit(head, begin_ + i, q + static_cast<size_t>(g) * static_cast<size_t>(shape_.dim), query.scale_);
          }
          out[static_cast<size_t>(g0 + g) * stride + static_cast<size_t>(i - from)] = x;
        }
      }
    }
  }
}

ScanAhead Codes::ahead(int32_t head, int32_t chunk, const uint8_t* next) const {
  const int32_t keys = std::min(kChunkKeys, size_ - chunk * kChunkKeys), used = (keys + kBlockKeys - 1) / kBlockKeys;
  return {blocks(head, chunk) + static_cast<size_t>(used) * kept_.block_bytes, chunk + 1 < chunks() ? blocks(head, chunk + 1) : next,
          kept_.block_bytes};
}

void Codes::score_all(const PreparedQuery& query, const Rows& rows, int32_t from, int32_t to, float* out,
                      size_t stride, const uint8_t* next) const {
  if (from >= to) return;
  const int32_t group = query.group();
  const size_t head = static_cast<size_t>(query.head());
  std::vector<uint8_t> joined;
  for (int32_t at = from; at < to;) {
    const int32_t chunk = at / kChunkKeys, end = std::min(to, (chunk + 1) * kChunkKeys);
    float* const here = out + (at - from);
    const float* base = kind_ == kNone ? nullptr : query.base_.data() + static_cast<size_t>(chunk * group);
    bool risky = kind_ == kNone;
    for (int32_t g = 0; g < group && !risky; g++) risky = std::isnan(base[g]);
    if (risky) {
      score_exact(query, rows, at, end, here, stride);
    } else {
      const int32_t block = at % kChunkKeys / kBlockKeys, blocks = (end - at + kBlockKeys - 1) / kBlockKeys;
      const int32_t step = kind_ == kInt4 ? kJoined : blocks;
      for (int32_t b = 0; b < blocks; b += step) {
        const int32_t first = block + b, some = std::min(step, blocks - b);
        const uint8_t* codes = blocks_[head][static_cast<size_t>(chunk)] + static_cast<size_t>(first) * kept_.block_bytes;
        if (kind_ == kInt4) {
          joined.resize(kJoined * shape_.block_bytes);
          join_blocks(joined.data(), shape_, codes,
                      fine(query.head(), chunk) + static_cast<size_t>(first * kBlockKeys) * fine_bytes(), some);
          codes = joined.data();
        }
        kernels_->scan(here + b * kBlockKeys, stride, shape_, query.query_, base, codes,
                       query.upper_ ? errors_[head][static_cast<size_t>(chunk)] + first * kBlockKeys : nullptr, some,
                       kind_ == kInt4 ? ScanAhead() : ahead(query.head(), chunk, next));
      }
    }
    at = end;
  }
  for (int32_t i = to; i % kBlockKeys != 0; i++) {
    for (int32_t g = 0; g < group; g++) out[static_cast<size_t>(g) * stride + static_cast<size_t>(i - from)] = -kInfinity;
  }
}

void Codes::score(const PreparedQuery& query, const Rows& rows, const int32_t* ids, int32_t count, float* out,
                  size_t stride) const {
  if (kind_ != kNone && count > 0) {
    const size_t head = static_cast<size_t>(query.head());
    if (kind_ == kInt4) {
      score_joined(query, ids, count, out, stride);
    } else {
      kernels_->gather(out, stride, shape_, query.query_, query.base_.data(), blocks_[head].data(),
                       query.upper_ ? errors_[head].data() : nullptr, kChunkBits, ids, count);
    }
    if (!query.risky_) return;
  }
  for (int32_t i = 0; i < count; i++) {
    bool risky = kind_ == kNone;
    for (int32_t g = 0; g < query.group() && !risky; g++) {
      risky = std::isnan(query.base_[static_cast<size_t>(ids[i] / kChunkKeys * query.group() + g)]);
    }
    if (risky) score_exact(query, rows, ids[i], ids[i] + 1, out + i, stride);
  }
}

// 32 keys at a time are put together to a block, wherever they lie.
void Codes::score_joined(const PreparedQuery& query, const int32_t* ids, int32_t count, float* out, size_t stride) const {
  const size_t head = static_cast<size_t>(query.head());
  const int32_t group = query.group();
  std::vector<uint8_t> block(shape_.block_bytes);
  std::vector<float> scores(static_cast<size_t>(group) * kBlockKeys);
  const std::vector<float> none(static_cast<size_t>(group), 0.0f);
  for (int32_t first = 0; first < count; first += kBlockKeys) {
    const int32_t some = std::min(kBlockKeys, count - first);
    uint16_t errors[kBlockKeys] = {};
    for (int32_t i = 0; i < some; i++) {
      const int32_t chunk = ids[first + i] / kChunkKeys, key = ids[first + i] % kChunkKeys;
      join_lane(block.data(), i, shape_, blocks(query.head(), chunk) + static_cast<size_t>(key / kBlockKeys) * kept_.block_bytes,
                key % kBlockKeys, fine(query.head(), chunk) + static_cast<size_t>(key) * fine_bytes());
      errors[i] = errors_[head][static_cast<size_t>(chunk)][key];
    }
    kernels_->scan(scores.data(), kBlockKeys, shape_, query.query_, none.data(), block.data(), query.upper_ ? errors : nullptr, 1,
                    ScanAhead());
    for (int32_t g = 0; g < group; g++) {
      for (int32_t i = 0; i < some; i++) {
        out[static_cast<size_t>(g) * stride + static_cast<size_t>(first + i)] =
            scores[static_cast<size_t>(g * kBlockKeys + i)] + query.base(ids[first + i] / kChunkKeys)[g];
      }
    }
  }
}

}  // namespace kvasir
