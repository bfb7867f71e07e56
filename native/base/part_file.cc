#include "part_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "error.h"

namespace kvasir {

PartFile::PartFile(const char* what, const std::string& path, unsigned mode) : what_(what), path_(path) {
  static std::atomic<uint32_t> count{0};
  part_ = path + ".part-" + std::to_string(getpid()) + "-" + std::to_string(count++);
  file_ = open(part_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (file_ < 0) {
    fail(KVASIR_ARGUMENT, "Cannot save %s to \"%.300s\": %s", what, path.c_str(),
         errno == ENOENT ? "its folder does not exist" : std::strerror(errno));
  }
  // Held until the file has its name: whoever can lock a part that has contents knows that its process is gone. A file system
  // without locks is no reason to fail.
  flock(file_, LOCK_EX | LOCK_NB);
}

PartFile::PartFile(const char* what, const std::string& path, uint64_t base) : what_(what), path_(path), base_(base) {
  file_ = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (file_ < 0) fail(KVASIR_ARGUMENT, "Cannot save %s to \"%.300s\": %s", what, path.c_str(), std::strerror(errno));
}

PartFile::~PartFile() {
  if (file_ >= 0) close(file_);
  if (!part_.empty()) unlink(part_.c_str());
}

void PartFile::failed() const {
  fail(KVASIR_DEVICE, "Cannot save %s to \"%.300s\": %s", what_, path_.c_str(),
       errno == ENOSPC || errno == EDQUOT ? "the disk is full" : std::strerror(errno));
}

void PartFile::write_at(const void* data, size_t bytes, uint64_t offset) {
  const char* from = static_cast<const char*>(data);
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = pwrite(file_, from + done, std::min(bytes - done, size_t{1} << 30), static_cast<off_t>(base_ + offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) failed();
    done += static_cast<size_t>(n);
  }
}

void PartFile::commit(uint64_t bytes) {
  if (part_.empty()) return;
  if (ftruncate(file_, static_cast<off_t>(bytes)) != 0 || fsync(file_) != 0) failed();
  if (std::rename(part_.c_str(), path_.c_str()) != 0) failed();
  part_.clear();
  close(file_);
  file_ = -1;
  // The name, too, should outlive a power cut; a file system that cannot do that is no reason to fail.
  const size_t slash = path_.find_last_of('/');
  const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
  const int directory = open(folder.c_str(), O_RDONLY | O_CLOEXEC);
  if (directory >= 0) {
    fsync(directory);
    close(directory);
  }
}

}  // namespace kvasir
