// Writing and reading of index files.
#include "index_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "checksum.h"
#include "part_file.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Index files are little-endian, and so is everything that maps them"
#endif

namespace kvasir {
namespace {

constexpr char kMagic[8] = {'K', 'V', 'A', 'S', 'I', 'R', 'I', 'X'};
constexpr uint32_t kMaxSections = 1 << 20;

uint64_t page_up(uint64_t bytes) { return (bytes + kIndexFilePage - 1) / kIndexFilePage * kIndexFilePage; }

bool all_zero(const uint8_t* data, size_t bytes) {
  return std::all_of(data, data + bytes, [](uint8_t b) { return b == 0; });
}

uint64_t frequencies_checksum(const LayerShape& shape) {
  return checksum64(shape.frequencies.data(), shape.frequencies.size() * sizeof(double));
}

[[noreturn]] void refuse(const char* what) { fail(KVASIR_ARGUMENT, "Cannot open index: %s", what); }

class Writer final : public FileWriter {
 public:
  // `offset`: see save_index_file.
  Writer(const std::string& path, int64_t offset)
      : file_(offset < 0 ? PartFile("index", path, 0666u) : PartFile("index", path, static_cast<uint64_t>(offset))) {}
  void add(const std::string& name, const void* data, size_t bytes) override {
    IndexFileSection section = {};
    if (name.empty() || name.size() >= sizeof section.name || !names_.insert(name).second) {
      fail(KVASIR_INTERNAL, "Cannot save index: section name \"%.40s\" is taken or has not 1 to 31 characters", name.c_str());
    }
    std::memcpy(section.name, name.data(), name.size());
    section.offset = end_;
    section.bytes = bytes;
    section.checksum = checksum64(data, bytes);
    file_.write_at(data, bytes, end_);
    end_ = page_up(end_ + bytes);
    sections_.push_back(section);
  }
  uint64_t finish(IndexFileHeader header) {
    header.sections = static_cast<uint32_t>(sections_.size());
    header.directory = end_;
    const size_t bytes = sections_.size() * sizeof(IndexFileSection);
    header.file_bytes = end_ + bytes;
    header.directory_checksum = checksum64(sections_.data(), bytes);
    header.checksum = checksum64(&header, offsetof(IndexFileHeader, checksum));
    file_.write_at(sections_.data(), bytes, end_);
    file_.write_at(&header, sizeof header, 0);
    file_.commit(header.file_bytes);
    return header.file_bytes;
  }

 private:
  PartFile file_;
  uint64_t end_ = kIndexFilePage;
  std::vector<IndexFileSection> sections_;
  std::set<std::string> names_;
};

}  // namespace

uint64_t rows_checksum(const Rows& rows, const LayerShape& shape, int32_t begin, int32_t end) {
  constexpr int32_t kSome = 64;
  uint64_t sum = 0;
  const int32_t count = std::min(kSome, end - begin);
  for (int32_t i = 0; i < count; i++) {
    const int32_t position = begin + static_cast<int32_t>(int64_t{end - begin} * i / count), head = i % shape.kv_heads;
    const Segment& segment = rows.find(position);
    const float scale = segment.key_scale(head, position - segment.start());
    sum = checksum64(segment.key(head, position - segment.start()), segment.row_bytes(), sum);
    sum = checksum64(&scale, sizeof scale, sum);
  }
  return sum;
}

uint64_t save_index_file(const std::string& path, const Index& index, int64_t offset) {
  if (index.spec().size() >= kIndexFileSpec) {
    fail(KVASIR_ARGUMENT, "Cannot save index: its spec has %zu bytes, expected less than %zu", index.spec().size(),
         kIndexFileSpec);
  }
  const LayerShape& shape = index.shape();
  Writer writer(path, offset);
  index.save(writer);
  IndexFileHeader header = {};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kIndexFileVersion;
  header.heads = shape.heads;
  header.kv_heads = shape.kv_heads;
  header.head_dim = shape.head_dim;
  header.rotated_dims = static_cast<int32_t>(shape.frequencies.size() * 2);
  header.neighbours = shape.neighbours ? 1 : 0;
  header.seed = shape.seed;
  header.scale = shape.scale;
  header.softcap = shape.softcap;
  header.frequencies_checksum = frequencies_checksum(shape);
  header.rows_checksum = rows_checksum(index.rows(), shape, index.begin(), index.end());
  header.begin = index.begin();
  header.end = index.end();
  std::memcpy(header.spec, index.spec().data(), index.spec().size());
  return writer.finish(header);
}

IndexFile::IndexFile(const std::string& path, uint64_t offset, uint64_t wanted) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(KVASIR_ARGUMENT, "Cannot open index: %s", std::strerror(errno));
  struct stat info = {};
  void* data = MAP_FAILED;
  const bool regular = fstat(file, &info) == 0 && S_ISREG(info.st_mode);
  const uint64_t size = regular && info.st_size > 0 ? static_cast<uint64_t>(info.st_size) : 0;
  const bool fits = offset <= size && offset % kIndexFilePage == 0 && (wanted == UINT64_MAX || wanted <= size - offset);
  const size_t bytes = !fits ? 0 : static_cast<size_t>(std::min(wanted, size - offset));
  if (bytes >= kIndexFilePage) data = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, static_cast<off_t>(offset));
  const int failure = errno;
  close(file);
  if (!regular) refuse("it is no regular file");
  if (bytes < kIndexFilePage) refuse("it is no index file: it has less than a page");
  if (data == MAP_FAILED) fail(KVASIR_ARGUMENT, "Cannot open index: %s", std::strerror(failure));
  memory_ = std::shared_ptr<const void>(data, [bytes](const void* p) { munmap(const_cast<void*>(p), bytes); });
  data_ = static_cast<const uint8_t*>(data);
  header_ = static_cast<const IndexFileHeader*>(data);
  check_layout(bytes);
}

void IndexFile::check_layout(size_t bytes) const {
  const IndexFileHeader& h = *header_;
  if (std::memcmp(h.magic, kMagic, sizeof kMagic) != 0) refuse("it is no index file");
  if (h.version != kIndexFileVersion) {
    fail(KVASIR_ARGUMENT, "Cannot open index: its version is %u, expected %u; build it anew", h.version, kIndexFileVersion);
  }
  if (h.checksum != checksum64(&h, offsetof(IndexFileHeader, checksum))) refuse("its header is damaged");
  if (h.file_bytes != bytes) {
    fail(KVASIR_ARGUMENT, "Cannot open index: it has %zu bytes, expected %llu", bytes,
         static_cast<unsigned long long>(h.file_bytes));
  }
  if (!all_zero(h.reserved, sizeof h.reserved) || h.sections > kMaxSections || h.neighbours > 1 ||
      h.spec[kIndexFileSpec - 1] != 0 || h.begin < 0 || h.end < h.begin) {
    refuse("its header is damaged");
  }
  const uint64_t directory_bytes = uint64_t{h.sections} * sizeof(IndexFileSection);
  if (h.directory % kIndexFilePage != 0 || h.directory < kIndexFilePage || h.directory > bytes ||
      bytes - h.directory != directory_bytes ||
      h.directory_checksum != checksum64(data_ + h.directory, static_cast<size_t>(directory_bytes))) {
    refuse("its directory is damaged");
  }
  const_cast<IndexFile*>(this)->directory_ = reinterpret_cast<const IndexFileSection*>(data_ + h.directory);
  // Sections follow each other on page borders, so they neither overlap nor leave anything unread between them.
  uint64_t at = kIndexFilePage;
  std::set<std::string> names;
  for (uint32_t i = 0; i < h.sections; i++) {
    const IndexFileSection& s = directory_[i];
    const size_t length = strnlen(s.name, sizeof s.name);
    const bool printable = std::all_of(s.name, s.name + length, [](char c) { return c > 32 && c < 127; });
    if (length == 0 || length == sizeof s.name || !printable || s.reserved != 0 ||
        !all_zero(reinterpret_cast<const uint8_t*>(s.name) + length, sizeof s.name - length) ||
        !names.insert(s.name).second || s.offset != at || s.bytes > h.directory - at) {
      refuse("its directory is damaged");
    }
    at = page_up(at + s.bytes);
    if (at > h.directory) refuse("its directory is damaged");
    if (s.checksum != checksum64(data_ + s.offset, static_cast<size_t>(s.bytes)) ||
        !all_zero(data_ + s.offset + s.bytes, static_cast<size_t>(at - s.offset - s.bytes))) {
      fail(KVASIR_ARGUMENT, "Cannot open index: section \"%s\" is damaged", s.name);
    }
  }
  if (at != h.directory) refuse("its directory is damaged");
}

void IndexFile::check(const std::string& spec, const LayerShape& shape, const Rows& rows) const {
  const IndexFileHeader& h = *header_;
  if (spec != h.spec) {
    fail(KVASIR_ARGUMENT, "Cannot open index: it was built as \"%.300s\", asked for is \"%.300s\"", h.spec, spec.c_str());
  }
  if (h.heads != shape.heads || h.kv_heads != shape.kv_heads || h.head_dim != shape.head_dim) {
    fail(KVASIR_ARGUMENT, "Cannot open index: it serves %d heads, %d kvHeads of %d, asked for are %d, %d of %d", h.heads,
         h.kv_heads, h.head_dim, shape.heads, shape.kv_heads, shape.head_dim);
  }
  if (h.scale != shape.scale || h.softcap != shape.softcap || h.seed != shape.seed) {
    refuse("scale, softcap or seed are not those it was built with");
  }
  if (h.rotated_dims != static_cast<int32_t>(shape.frequencies.size() * 2) ||
      h.neighbours != (shape.neighbours ? 1u : 0u) || h.frequencies_checksum != frequencies_checksum(shape)) {
    refuse("the rotation is not that it was built with");
  }
  if (h.end > h.begin && (h.begin < rows.begin() || h.end > rows.end())) {
    fail(KVASIR_ARGUMENT, "Cannot open index: it holds positions %d to %d, segments hold %d to %d", h.begin, h.end,
         rows.begin(), rows.end());
  }
  if (h.rows_checksum != rows_checksum(rows, shape, h.begin, h.end)) refuse("the segments hold other keys");
}

FileReader::Section IndexFile::find(const std::string& name) const {
  for (uint32_t i = 0; i < header_->sections; i++) {
    const IndexFileSection& s = directory_[i];
    if (name == s.name) return {data_ + s.offset, static_cast<size_t>(s.bytes)};
  }
  fail(KVASIR_ARGUMENT, "Cannot open index: it has no section \"%s\"", name.c_str());
}

}  // namespace kvasir
