#include "tensor_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "error.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Files of tensors are little-endian, and so is everything that maps them"
#endif

namespace kvasir {
namespace {

constexpr char kMagic[8] = {'K', 'V', 'A', 'S', 'I', 'R', 'C', 'X'};
constexpr uint32_t kMaxSections = 1 << 16;

uint64_t page_up(uint64_t bytes) { return (bytes + kTensorFilePage - 1) / kTensorFilePage * kTensorFilePage; }

bool all_zero(const uint8_t* data, size_t bytes) {
  return std::all_of(data, data + bytes, [](uint8_t b) { return b == 0; });
}

[[noreturn]] void refuse(const char* what) { fail(KVASIR_ARGUMENT, "Cannot open context file: %s", what); }

bool good_name(const char* name, size_t length) {
  return length > 0 && length < sizeof TensorFileSection::name &&
         std::all_of(name, name + length, [](char c) { return c > 32 && c < 127; });
}

}  // namespace

// Conversations are nobody else's business.
TensorFileWriter::TensorFileWriter(const std::string& path) : path_(path), file_("context", path, 0600u) {}

void TensorFileWriter::begin(const std::string& name) {
  const bool taken = std::any_of(sections_.begin(), sections_.end(), [&](const auto& s) { return name == s.name; });
  if (begin_ != 0 || taken || !good_name(name.data(), name.size()) || sections_.size() == kMaxSections) {
    fail(KVASIR_ARGUMENT, "Cannot save context: section \"%.40s\" is taken, no name, or inside another", name.c_str());
  }
  TensorFileSection section = {};
  std::memcpy(section.name, name.data(), name.size());
  section.offset = begin_ = end_;
  sections_.push_back(section);
  sum_ = Checksum64();
}

void TensorFileWriter::write(const void* data, size_t bytes) {
  if (begin_ == 0) fail(KVASIR_ARGUMENT, "Cannot save context: no section was begun");
  file_.write_at(data, bytes, end_);
  sum_.add(data, bytes);
  end_ += bytes;
}

void TensorFileWriter::end() {
  if (begin_ == 0) fail(KVASIR_ARGUMENT, "Cannot save context: no section was begun");
  sections_.back().bytes = end_ - begin_;
  sections_.back().checksum = sum_.digest();
#ifdef __linux__
  // The disk begins now, so that the flush at the end does not wait for all of it.
  sync_file_range(file_.descriptor(), static_cast<off_t>(begin_), static_cast<off_t>(end_ - begin_), SYNC_FILE_RANGE_WRITE);
#endif
  end_ = page_up(end_);
  begin_ = 0;
}

void TensorFileWriter::end_foreign(uint64_t bytes) {
  if (begin_ == 0) fail(KVASIR_ARGUMENT, "Cannot save context: no section was begun");
  std::vector<char> buffer(1 << 20);
  for (uint64_t done = 0; done < bytes;) {
    const size_t some = static_cast<size_t>(std::min<uint64_t>(buffer.size(), bytes - done));
    const ssize_t n = pread(file_.descriptor(), buffer.data(), some, static_cast<off_t>(begin_ + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail(KVASIR_DEVICE, "Cannot save context to \"%.300s\": a section is shorter than its writer says", path_.c_str());
    sum_.add(buffer.data(), static_cast<size_t>(n));
    done += static_cast<uint64_t>(n);
  }
  end_ += bytes;
  end();
}

void TensorFileWriter::commit() {
  if (begin_ != 0) fail(KVASIR_ARGUMENT, "Cannot save context: a section was not ended");
  TensorFileHeader header = {};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kTensorFileVersion;
  header.sections = static_cast<uint32_t>(sections_.size());
  header.directory = end_;
  const size_t bytes = sections_.size() * sizeof(TensorFileSection);
  header.file_bytes = end_ + bytes;
  header.directory_checksum = checksum64(sections_.data(), bytes);
  header.checksum = checksum64(&header, offsetof(TensorFileHeader, checksum));
  file_.write_at(sections_.data(), bytes, end_);
  file_.write_at(&header, sizeof header, 0);
  file_.commit(header.file_bytes);
}

TensorFile::TensorFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(KVASIR_ARGUMENT, "Cannot open context file: %s", std::strerror(errno));
  struct stat info = {};
  void* data = MAP_FAILED;
  const bool regular = fstat(file, &info) == 0 && S_ISREG(info.st_mode);
  const size_t bytes = regular && info.st_size > 0 ? static_cast<size_t>(info.st_size) : 0;
  int flags = MAP_PRIVATE;
#ifdef MAP_NORESERVE
  flags |= MAP_NORESERVE;
#endif
  if (bytes >= kTensorFilePage) data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, file, 0);
  const int failure = errno;
  close(file);
  if (!regular) refuse("it is no regular file");
  if (bytes < kTensorFilePage) refuse("it is no context file: it has less than a page");
  if (data == MAP_FAILED) fail(KVASIR_ARGUMENT, "Cannot open context file: %s", std::strerror(failure));
  memory_ = std::shared_ptr<const void>(data, [bytes](const void* p) { munmap(const_cast<void*>(p), bytes); });
  data_ = static_cast<uint8_t*>(data);
  header_ = static_cast<const TensorFileHeader*>(data);
  check_layout(bytes);
  // It is about to be read from end to end, by several threads: read far ahead.
  madvise(data, bytes, MADV_WILLNEED);
}

void TensorFile::check_layout(size_t bytes) {
  const TensorFileHeader& h = *header_;
  if (std::memcmp(h.magic, kMagic, sizeof kMagic) != 0) refuse("it is no context file");
  if (h.checksum != checksum64(&h, offsetof(TensorFileHeader, checksum))) refuse("its header is damaged");
  if (h.version != kTensorFileVersion) {
    fail(KVASIR_ARGUMENT, "Cannot open context file: its version is %u, expected %u; make it anew", h.version,
         kTensorFileVersion);
  }
  if (h.file_bytes != bytes) {
    fail(KVASIR_ARGUMENT, "Cannot open context file: it has %zu bytes, expected %llu", bytes,
         static_cast<unsigned long long>(h.file_bytes));
  }
  if (!all_zero(h.reserved, sizeof h.reserved) || h.sections > kMaxSections) refuse("its header is damaged");
  const uint64_t directory_bytes = uint64_t{h.sections} * sizeof(TensorFileSection);
  if (h.directory % kTensorFilePage != 0 || h.directory < kTensorFilePage || h.directory > bytes ||
      bytes - h.directory != directory_bytes ||
      h.directory_checksum != checksum64(data_ + h.directory, static_cast<size_t>(directory_bytes))) {
    refuse("its directory is damaged");
  }
  directory_ = reinterpret_cast<const TensorFileSection*>(data_ + h.directory);
  // Sections follow each other on page borders, so they neither overlap nor leave anything unread between them.
  uint64_t at = kTensorFilePage;
  std::set<std::string> names;
  for (uint32_t i = 0; i < h.sections; i++) {
    const TensorFileSection& s = directory_[i];
    const size_t length = strnlen(s.name, sizeof s.name);
    if (!good_name(s.name, length) || s.reserved != 0 ||
        !all_zero(reinterpret_cast<const uint8_t*>(s.name) + length, sizeof s.name - length) ||
        !names.insert(s.name).second || s.offset != at || s.bytes > h.directory - at || page_up(at + s.bytes) > h.directory) {
      refuse("its directory is damaged");
    }
    at = page_up(at + s.bytes);
  }
  if (at != h.directory) refuse("its directory is damaged");
  state_ = std::make_unique<std::atomic<uint8_t>[]>(h.sections);
  for (uint32_t i = 0; i < h.sections; i++) state_[i] = 0;
}

uint32_t TensorFile::find(const std::string& name) const {
  for (uint32_t i = 0; i < header_->sections; i++) {
    if (name == directory_[i].name) return i;
  }
  fail(KVASIR_ARGUMENT, "Cannot open context file: it has no section \"%.40s\"", name.c_str());
}

bool TensorFile::verify(uint32_t i) {
  if (state_[i] == 0) {
    const TensorFileSection& s = directory_[i];
    const uint8_t* from = data_ + s.offset;
    const bool valid = s.checksum == checksum64(from, static_cast<size_t>(s.bytes)) &&
                       all_zero(from + s.bytes, static_cast<size_t>(page_up(s.bytes) - s.bytes));
    state_[i] = valid ? 1 : 2;
  }
  return state_[i] == 1;
}

void TensorFile::expect_valid(uint32_t i) {
  if (!verify(i)) fail(KVASIR_ARGUMENT, "Cannot open context file: section \"%s\" is damaged", directory_[i].name);
}

}  // namespace kvasir
