// Key codes of one layer, for all index types: what scores keys cheaply, with bounds that let exact search certify itself.
//
// Keys are held KV head by KV head in chunks of 2048. Each chunk is centred on a mean of its keys (softmax does not change when
// one vector is subtracted from all keys; here each chunk's own share, query . centre, is added back, so scores are comparable
// everywhere). The centre is the mean of the chunk's first 32 * 2^k keys, the most that there are (before 32: the previous
// chunk's centre), so contents depend on the keys alone, not on how adds were cut.
//
// Scores are logits before softcap, scale * q . k: softcap is monotone, so order and bounds hold for what comes after it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "chunk_memory.h"
#include "code_kernels.h"
#include "index.h"

namespace kvasir {

class FileReader;
class FileWriter;

// A group's queries as the codes want them. Reused from search to search; its memory only grows.
class PreparedQuery {
 public:
  int32_t head() const { return head_; }
  int32_t group() const { return query_.group; }
  const CodeQuery& codes() const { return query_; }
  // What scores of a chunk's keys start from, by query head; NaN where codes cannot score it.
  const float* base(int32_t chunk) const { return base_.data() + static_cast<size_t>(chunk * query_.group); }
  // Of 4-bit codes: the standard deviation of what the fine plane adds to a chunk's scores, in logits, by query head.
  const float* spread(int32_t chunk) const { return spread_.data() + static_cast<size_t>(chunk * query_.group); }
  bool risky() const { return risky_; }    // a chunk cannot be scored by codes
  double reach() const { return reach_; }  // no logit is farther from zero, in any chunk

 private:
  friend class Codes;
  int32_t head_ = 0;
  float scale_ = 1;
  bool upper_ = false, risky_ = false;
  double reach_ = 0;
  CodeQuery query_;
  std::vector<float> q_;      // [group, dim]
  struct alignas(kLine) Line {
    int8_t bytes[kLine];
  };
  std::vector<int8_t> lines_, rows_;
  std::vector<Line> tables_;
  std::vector<int32_t> offsets_, coarse_, fine_;
  std::vector<float> factors_, coarse_factors_, bounds_, spread_, base_;  // base [chunks, group]; NaN where a chunk cannot be scored by codes
  // What preparing needs between its steps.
  struct Norm {
    double whole, lost;  // of a query, and of what its rounding loses
  };
  std::vector<Norm> norms_;
  std::vector<double> energies_;  // [group, bands]: of a query, rotated
  std::vector<float> turned_, dots_;
  std::vector<int32_t> whole_, sums_;
};

class Codes {
 public:
  enum Kind { kInt8, kInt4, kNone };  // kNone: rows of the cache are scored themselves
  enum Scores { kPlain, kUpper };     // kUpper: no exact score is above

  static constexpr int32_t kChunkBits = 11, kChunkKeys = 1 << kChunkBits;
  static constexpr size_t kChunkBlocks = kChunkKeys / kBlockKeys;

  // memory: where chunks come from; null: memory of its own.
  Codes(const IndexIsa* isa, Kind kind, int32_t kv_heads, int32_t dim, std::shared_ptr<ChunkMemory> memory = nullptr);

  // Encodes keys [size(), size() + count), which are rows begin() + size() ... of `rows`; the first call sets begin() = from.
  // Chunks that a fork shares are copied first. pool may be null.
  void append(const Rows& rows, int32_t from, int32_t count, Pool* pool);
  // Shares all chunks; whoever appends first copies the open ones. May be read while the original appends, and the reverse.
  Codes fork() const;

  Kind kind() const { return kind_; }
  int32_t begin() const { return begin_; }  // position of key 0
  int32_t size() const { return size_; }
  int32_t end() const { return begin_ + size_; }
  int32_t chunks() const { return (size_ + kChunkKeys - 1) / kChunkKeys; }
  size_t bytes() const;        // all chunks, shared ones included
  // What scoring one key reads.
  double key_bytes() const { return kind_ == kNone ? 0 : static_cast<double>(shape_.block_bytes) / kBlockKeys; }

  // What blocks as they are kept have of one: less than that of 4-bit codes.
  double kept_key_bytes() const { return static_cast<double>(kept_.block_bytes) / kBlockKeys; }

  const CodeShape& shape() const { return shape_; }
  // Of the blocks as they are kept: 4-bit codes are two planes (nibble_planes.h), and these are of the coarse one.
  const CodeShape& kept_shape() const { return kept_; }
  // Codes of a chunk's keys, block by block.
  const uint8_t* blocks(int32_t head, int32_t chunk) const {
    return blocks_[static_cast<size_t>(head)][static_cast<size_t>(chunk)];
  }
  // For a scan that is in a chunk; next: the codes that are scanned after the head's last, null: none.
  ScanAhead ahead(int32_t head, int32_t chunk, const uint8_t* next) const;
  // The fine plane of a chunk's 4-bit codes, key by key.
  const uint8_t* fine(int32_t head, int32_t chunk) const {
    return fines_[static_cast<size_t>(head)][static_cast<size_t>(chunk)];
  }
  size_t fine_bytes() const;  // of a key; 0 unless codes have 4 bits

  // Asks memory for what prepare() reads of a head, and for the first codes that a scan reads.
  void fetch(int32_t head) const;
  // q [group, dim] of KV head `head`. planes: 1, or 2 where the error of the query's own rounding must vanish beside the codes'
  // (certified search). Valid until the next append.
  void prepare(PreparedQuery& to, int32_t head, const float* q, int32_t group, float scale, int planes, Scores scores) const;
  // out[g * stride + i - from] for keys [from, to); `from` is a multiple of 32, and there is room for (and -INFINITY is written
  // to) `to` rounded up to 32. next: the codes that are scanned after the head's last; null: none.
  void score_all(const PreparedQuery& query, const Rows& rows, int32_t from, int32_t to, float* out, size_t stride,
                 const uint8_t* next = nullptr) const;
  // The same by the rows themselves, exact and without what is behind `to`.
  void score_exact(const PreparedQuery& query, const Rows& rows, int32_t from, int32_t to, float* out, size_t stride) const;
  // out[g * stride + i] for keys ids[i] (positions less begin()), `count` of them, in any order.
  void score(const PreparedQuery& query, const Rows& rows, const int32_t* ids, int32_t count, float* out, size_t stride) const;

  void save(FileWriter& to) const;
  // Reads what save wrote, in place (sealed chunks stay in the file); throws Error{KVASIR_ARGUMENT}.
  void restore(const FileReader& from);

 private:
  struct Chunk;
  struct Header;
  static constexpr int32_t kSquares = 12;  // bands that a chunk knows the scales of
  size_t squares_of() const { return kind_ == kInt4 ? static_cast<size_t>(shape_.bands < kSquares ? shape_.bands : kSquares) : 0; }
  using ChunkPtr = std::shared_ptr<Chunk>;
  size_t about_bytes() const {
    return kLine + 2 * sizeof(float) * static_cast<size_t>(shape_.units * kUnit) + sizeof(uint16_t) * kChunkKeys;
  }
  size_t chunk_bytes() const { return about_bytes() + shape_.block_bytes * kChunkBlocks; }
  void copy_blocks(const Chunk& to, const Chunk& from, size_t blocks) const;
  Chunk place(uint8_t* at) const;  // a chunk of a file
  ChunkPtr new_chunk() const;
  void score_joined(const PreparedQuery& query, const int32_t* ids, int32_t count, float* out, size_t stride) const;
  void add_squares(float* sums, const uint8_t* block, int32_t lane, int32_t count) const;
  void append_chunk(const Rows& rows, int32_t head, int32_t chunk, int32_t from, int32_t to);
  void check(const Chunk& chunk, int32_t count, int32_t head) const;
  void encode_queries(PreparedQuery& to) const;
  void score_centres(PreparedQuery& to) const;
  void refresh(size_t from);  // pointers of chunks from that on

  const IndexIsa* isa_;
  std::shared_ptr<ChunkMemory> memory_;
  const CodeKernels* kernels_;
  Kind kind_;
  int32_t kv_heads_;
  CodeShape shape_, kept_;
  float slack_;
  int32_t begin_ = 0, size_ = 0;
  mutable bool own_open_ = true;  // nobody shares the open chunks
  std::vector<std::vector<ChunkPtr>> chunks_;                // [kv_heads][chunks]
  std::vector<std::vector<const uint8_t*>> blocks_, fines_;  // their codes, and fine planes
  std::vector<std::vector<const uint16_t*>> errors_;         // their bounds
  // What every query asks of all chunks, next to each other: [kv_heads][chunks][dim], and the norm of each centre and the
  // largest of its centred keys.
  struct Norms {
    float centre, spread;
  };
  std::vector<std::vector<float>> centres_;
  std::vector<std::vector<Norms>> norms_;
  std::vector<std::vector<float>> squares_;  // of 4-bit codes: mean squares of scales by band, [kv_heads][chunks][squares_of]
};

}  // namespace kvasir
