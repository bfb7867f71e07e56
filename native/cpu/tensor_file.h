// Files of tensors, docs/context_file.md: a page of header, page-aligned sections, a directory; all checksummed. Written aside and
// renamed; mapped for use, every section checked before its first.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checksum.h"
#include "context.h"
#include "part_file.h"

namespace kvasir {

constexpr size_t kTensorFilePage = 4096;
constexpr uint32_t kTensorFileVersion = 1;

// As in the file, little-endian.
struct TensorFileHeader {
  char magic[8];     // "KVASIRCX"
  uint32_t version;  // kTensorFileVersion
  uint32_t sections;
  uint64_t file_bytes;
  uint64_t directory;  // offset
  uint64_t directory_checksum;
  uint8_t reserved[4048];  // zero
  uint64_t checksum;       // of all before
};
static_assert(sizeof(TensorFileHeader) == kTensorFilePage, "the header is one page");

struct TensorFileSection {
  char name[32];  // printable ASCII without spaces, zeros behind
  uint64_t offset, bytes, checksum;
  uint64_t reserved;  // zero
};
static_assert(sizeof(TensorFileSection) == 64, "a directory entry is 64 bytes");

// A file being written beside its final name. It is removed when this ends before commit.
class TensorFileWriter {
 public:
  explicit TensorFileWriter(const std::string& path);  // throws Error{KVASIR_ARGUMENT} where it cannot be made

  // Sections follow each other: begin, any number of writes, end. All throw Error{KVASIR_DEVICE} where writing fails.
  void begin(const std::string& name);
  void write(const void* data, size_t bytes);
  void end();
  // The section that was begun is written by somebody else at part_path() from offset() on: `bytes` of it.
  void end_foreign(uint64_t bytes);
  const std::string& part_path() const { return file_.part_path(); }
  uint64_t offset() const { return begin_; }
  // Flushes the file and gives it its name.
  void commit();

 private:
  std::string path_;
  PartFile file_;
  uint64_t begin_ = 0, end_ = kTensorFilePage;  // of the section being written, and where it goes on
  Checksum64 sum_;
  std::vector<TensorFileSection> sections_;
};

// A mapped file with header, directory and layout checked; sections are checked one by one. Writes to what is mapped stay in
// memory, and pages that nobody writes to are shared by all processes.
class TensorFile {
 public:
  explicit TensorFile(const std::string& path);  // throws Error{KVASIR_ARGUMENT}
  uint32_t sections() const { return header_->sections; }
  const TensorFileSection& section(uint32_t i) const { return directory_[i]; }
  uint32_t find(const std::string& name) const;  // throws Error{KVASIR_ARGUMENT}
  // The checksum holds and what is behind it is zero; asked once.
  bool verify(uint32_t i);
  void expect_valid(uint32_t i);  // throws Error{KVASIR_ARGUMENT} that names the section
  uint8_t* data(uint32_t i) const { return data_ + directory_[i].offset; }
  std::shared_ptr<const void> holder() const { return memory_; }

 private:
  void check_layout(size_t bytes);
  std::shared_ptr<const void> memory_;
  uint8_t* data_ = nullptr;
  const TensorFileHeader* header_ = nullptr;
  const TensorFileSection* directory_ = nullptr;
  std::unique_ptr<std::atomic<uint8_t>[]> state_;  // 0 unknown, 1 valid, 2 damaged
};

}  // namespace kvasir

// By id; ids are never used again.
struct kvasir_context::Files {
  std::map<uint32_t, std::unique_ptr<kvasir::TensorFileWriter>> writers;
  std::map<uint32_t, std::shared_ptr<kvasir::TensorFile>> files;
  uint32_t last = 0;
};
