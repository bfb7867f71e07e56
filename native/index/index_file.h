// The format of saved indexes, docs/index_file.md: a page of header, page-aligned sections, a directory; all checksummed.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "file.h"
#include "index.h"

namespace kvasir {

constexpr size_t kIndexFilePage = 4096;
constexpr size_t kIndexFileSpec = 2048;  // bytes of a spec, NUL included
constexpr uint32_t kIndexFileVersion = 6;

// As in the file, little-endian.
struct IndexFileHeader {
  char magic[8];        // "KVASIRIX"
  uint32_t version;     // kIndexFileVersion
  uint32_t sections;
  uint64_t file_bytes;
  uint64_t directory;   // offset
  uint64_t directory_checksum;
  int32_t heads, kv_heads, head_dim, rotated_dims;
  uint32_t neighbours, seed;
  float scale, softcap;
  uint64_t frequencies_checksum;  // of the doubles
  uint64_t rows_checksum;         // of some of the key rows: see rows_checksum()
  int32_t begin, end;             // positions of its tokens
  uint8_t reserved[1944];         // zero
  char spec[kIndexFileSpec];      // canonical, zeros behind
  uint64_t checksum;              // of all before
};
static_assert(sizeof(IndexFileHeader) == kIndexFilePage, "the header is one page");

struct IndexFileSection {
  char name[32];  // printable ASCII, zeros behind
  uint64_t offset, bytes, checksum;
  uint64_t reserved;  // zero
};
static_assert(sizeof(IndexFileSection) == 64, "a directory entry is 64 bytes");

// Of up to 64 key rows spread over [begin, end): tells another sequence's cache.
uint64_t rows_checksum(const Rows& rows, const LayerShape& shape, int32_t begin, int32_t end);

// Writes `index` to path: into a temporary file beside it that is flushed to disk and then renamed; on failure it is removed. With an
// offset of 0 or more: into the file at path from there on, not flushed. Returns its bytes.
// Throws Error{KVASIR_ARGUMENT} where the file cannot be made, Error{KVASIR_DEVICE} where writing fails.
uint64_t save_index_file(const std::string& path, const Index& index, int64_t offset = -1);

// A mapped file with header, directory, checksums and zero padding checked. Section contents are the index type's to check.
class IndexFile final : public FileReader {
 public:
  // `bytes` from `offset` on; throws Error{KVASIR_ARGUMENT}.
  explicit IndexFile(const std::string& path, uint64_t offset = 0, uint64_t bytes = UINT64_MAX);
  const IndexFileHeader& header() const { return *header_; }
  // Throws Error{KVASIR_ARGUMENT} where spec, shape or rows are not the file's.
  void check(const std::string& spec, const LayerShape& shape, const Rows& rows) const;

  Section find(const std::string& name) const override;
  std::shared_ptr<const void> holder() const override { return memory_; }

 private:
  void check_layout(size_t bytes) const;
  std::shared_ptr<const void> memory_;
  const uint8_t* data_ = nullptr;
  const IndexFileHeader* header_ = nullptr;
  const IndexFileSection* directory_ = nullptr;
};

}  // namespace kvasir
