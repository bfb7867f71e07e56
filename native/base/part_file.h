// A file written beside its final name, flushed and renamed when all of it is there.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace kvasir {

// It is removed when this ends before commit, and locked (flock) as long as it has another name than its own. `what` names the contents in errors: "Cannot save <what> to …".
class PartFile {
 public:
  // Throws Error{KVASIR_ARGUMENT} where it cannot be made; mode as of open(2).
  PartFile(const char* what, const std::string& path, unsigned mode);
  // The file at path itself, written from `base` on: kept whatever happens, and commit does nothing.
  PartFile(const char* what, const std::string& path, uint64_t base);
  ~PartFile();
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  // Throws Error{KVASIR_DEVICE} where writing fails.
  void write_at(const void* data, size_t bytes, uint64_t offset);
  // `bytes` long, flushed, and given its name. Throws Error{KVASIR_DEVICE}.
  void commit(uint64_t bytes);
  const std::string& part_path() const { return part_; }
  int descriptor() const { return file_; }

 private:
  [[noreturn]] void failed() const;
  const char* what_;
  std::string path_, part_;  // no part: the file at path itself
  uint64_t base_ = 0;
  int file_ = -1;
};

}  // namespace kvasir
