// Codes in an index file.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "codes.h"
#include "codes_chunk.h"
#include "error.h"
#include "file.h"
#include "nibble_planes.h"

namespace kvasir {

Codes::Chunk Codes::place(uint8_t* at) const {
  Chunk chunk;
  chunk.about = at;
  chunk.blocks = at + about_bytes();
  chunk.fine = kind_ == kInt4 ? chunk.blocks + kept_.block_bytes * kChunkBlocks : nullptr;
  return chunk;
}

void Codes::save(FileWriter& to) const {
  const int32_t meta[4] = {begin_, size_, static_cast<int32_t>(kind_), shape_.dim};
  to.add("codes", meta, sizeof meta);
  if (kind_ == kNone) return;
  for (size_t h = 0; h < chunks_.size(); h++) {
    std::vector<uint8_t> all(chunks_[h].size() * chunk_bytes());
    for (size_t c = 0; c < chunks_[h].size(); c++) {
      const int32_t count = std::min(size_ - static_cast<int32_t>(c) * kChunkKeys, kChunkKeys);
      const size_t blocks = static_cast<size_t>((count + kBlockKeys - 1) / kBlockKeys);
      copy_blocks(place(all.data() + c * chunk_bytes()), *chunks_[h][c], blocks);
    }
    to.add("codes.head" + std::to_string(h), all.data(), all.size());
  }
}

// A chunk from outside: whatever its numbers are, scoring by them stays finite and inside memory.
void Codes::check(const Chunk& chunk, int32_t count, int32_t head) const {
  const Header& header = chunk.header();
  bool good = header.centred == centred_by(count) && header.summed == header.centred && header.norm >= 0;
  for (const float square : header.squares) good = good && square >= 0;
  for (int32_t i = 0; i < shape_.units * kUnit; i++) {
    good = good && std::isfinite(chunk.centre()[i]) && !std::isnan(chunk.sum(shape_)[i]);
  }
  for (int32_t i = 0; i < count; i++) {
    const uint8_t* block = chunk.blocks + static_cast<size_t>(i / kBlockKeys) * kept_.block_bytes;
    good = good && chunk.errors(shape_)[i] <= 0x7f80;
    for (int32_t band = 0; band < shape_.bands; band++) {
      uint16_t scale;
      const int32_t lane = i % kBlockKeys;
      std::memcpy(&scale, block + (kind_ == kInt4 ? coarse_scale_at(lane, band, shape_.bands) : shape_.scale_at(lane, band)), 2);
      good = good && (kind_ == kInt4 ? scale & 0x7fff : scale) < 0x7f80;
    }
  }
  if (!good) fail(KVASIR_ARGUMENT, "Cannot open index: codes of head %d are damaged", head);
}

void Codes::restore(const FileReader& from) {
  const int32_t* meta = from.array<int32_t>("codes", 4);
  if (meta[0] < 0 || meta[1] < 0 || meta[0] > INT32_MAX - kChunkKeys - meta[1] || meta[2] != static_cast<int32_t>(kind_) ||
      meta[3] != shape_.dim) {
    fail(KVASIR_ARGUMENT, "Cannot open index: codes of kind %d, dimension %d, expected kind %d, dimension %d", meta[2], meta[3],
         static_cast<int>(kind_), shape_.dim);
  }
  begin_ = meta[0];
  size_ = meta[1];
  if (kind_ == kNone) return;
  const size_t count = static_cast<size_t>(chunks());
  for (size_t h = 0; h < chunks_.size(); h++) {
    const uint8_t* data = from.array<uint8_t>("codes.head" + std::to_string(h), count * chunk_bytes());
    chunks_[h].clear();
    for (size_t c = 0; c < count; c++) {
      auto chunk = std::make_shared<Chunk>(place(const_cast<uint8_t*>(data + c * chunk_bytes())));
      chunk->holder[0] = from.holder();
      if (chunk->holder[0] == nullptr) fail(KVASIR_INTERNAL, "Cannot open index: nothing holds its file");
      check(*chunk, std::min(size_ - static_cast<int32_t>(c) * kChunkKeys, kChunkKeys), static_cast<int32_t>(h));
      chunks_[h].push_back(std::move(chunk));
    }
  }
  own_open_ = false;  // the open chunk is the file's
  refresh(0);
}

}  // namespace kvasir
