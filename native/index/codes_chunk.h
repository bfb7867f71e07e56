// What Codes keeps of a chunk of keys: what codes.cc and codes_file.cc share.
#pragma once
#include <memory>

#include "codes.h"

namespace kvasir {

// Keys whose mean centres a chunk of `count` keys. Each new centre encodes the chunk again: after every doubling that took as
// long as encoding twice more.
inline int32_t centred_by(int32_t count) { return count < 32 ? 0 : count < 256 ? 32 : count < 1024 ? 256 : 1024; }

struct Codes::Header {
  int32_t summed;   // keys in `sum`
  int32_t centred;  // keys whose mean is the centre
  float norm;       // largest norm of a centred key
  int32_t reserved;
  // Of 4-bit codes: sums of squares of the keys' scales, by band; the last one is of all bands that follow, too.
  float squares[Codes::kSquares];
};

// Three pieces: about: Header, centre and sum [units * 16] floats, errors [2048]; blocks [64]; and of 4-bit codes, whose blocks have the
// coarse plane, the fine one's rows [2048]. In files one behind the other. In memory each lies among its like, so that a scan, which
// reads blocks alone, goes on from chunk to chunk: with the other pieces between them it gets 75 % of what memory gives (Zen 5).
struct Codes::Chunk {
  std::shared_ptr<const void> holder[3];  // a mapped file, or memory
  uint8_t* about = nullptr;
  uint8_t* blocks = nullptr;
  uint8_t* fine = nullptr;
  Header& header() const { return *reinterpret_cast<Header*>(about); }
  float* centre() const { return reinterpret_cast<float*>(about + kLine); }
  float* sum(const CodeShape& s) const { return centre() + s.units * kUnit; }
  uint16_t* errors(const CodeShape& s) const { return reinterpret_cast<uint16_t*>(sum(s) + s.units * kUnit); }
};

}  // namespace kvasir
