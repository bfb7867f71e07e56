// Saved indexes of every registered type: they come back with the same answers, and damaged files are refused.
// KVASIR_INDEX_FUZZ=100000 sets the number of damaged files of each type; KVASIR_INDEX_FUZZ_SEED=7 makes it others than those of
// another run.
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>

#include "checksum.h"
#include "index_file.h"
#include "index_fixture.h"

using namespace kvasir_test;
using kvasir::checksum64;
using kvasir::IndexFileHeader;
using kvasir::IndexFileSection;
using kvasir::kIndexFilePage;

namespace {

using Bytes = std::vector<uint8_t>;

struct Folder {
  std::string path;
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kvasir-index-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    path = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string file(const char* name = "index") const { return path + "/" + name; }
};

Bytes read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}
void write_file(const std::string& path, const Bytes& bytes) {
  std::filesystem::remove(path);  // file systems flush one that is truncated and written anew
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// Every registered type, and what else is worth saving.
std::vector<std::string> specs() {
  char text[8192];
  EXPECT_INDEX_OK(kvasir_index_types(text, sizeof text));
  std::vector<std::string> names;
  for (const char* line = text; *line != 0; line = std::strchr(line, '\n') + 1) {
    names.push_back(std::string(line, std::strchr(line, '\t')));
    if (names.back() == "flat" && std::strstr(text, "codes=") != nullptr) {
      names.push_back("flat:codes=int8");
      names.push_back("flat:codes=f16");
    }
  }
  return names;
}

// An index over 2 + 1 segments' worth of clustered keys with queries; built, then grown a little.
struct Sample {
  static constexpr int32_t kHeads = 4, kKvHeads = 2, kDim = 16, kStart = 5, kTokens = 1500, kLater = 40;
  IndexContext c;
  Random random{77};
  Layer layer{kHeads, kKvHeads, kTokens + 2 * kLater, kDim, kStart};
  kvasir_segment segment;
  kvasir_index index = 0;
  double shape[KVASIR_INDEX_SHAPE] = {kHeads, kKvHeads, kDim, 0.5, 0, 8, 0, 3};
  double frequencies[4] = {1, 0.1, 0.01, 0.001};
  std::vector<float> queries, exact = std::vector<float>(kHeads, -INFINITY);

  explicit Sample(const std::string& spec) {
    layer.fill(random);
    segment = c.segment(layer);
    queries = random.normals(static_cast<size_t>(kTokens + kLater) * kHeads * kDim);
    EXPECT_INDEX_OK(kvasir_index_create(c, &index, spec.c_str(), shape, frequencies));
    EXPECT_INDEX_OK(kvasir_index_append_segment(c, index, segment));
    add(index, kStart, kTokens);
    EXPECT_INDEX_OK(kvasir_index_settle(c, index));
    add(index, kStart + kTokens, kLater);
  }
  void add(kvasir_index to, int32_t start, int32_t count) {
    EXPECT_INDEX_OK(index_add(c, to, start, count, queries.data()));
    EXPECT_INDEX_OK(kvasir_index_commit(c, to));
  }
  int32_t map(kvasir_index* out, const std::string& path, const std::string& spec) {
    return kvasir_index_map(c, out, path.c_str(), spec.c_str(), shape, frequencies, &segment, 1);
  }
  Found find(kvasir_index in, int32_t seed, double kind = KVASIR_GOAL_TOPK) {
    const float* q = queries.data() + static_cast<size_t>(seed % kTokens) * kHeads * kDim;
    const double goal[KVASIR_GOAL] = {kind, kind == KVASIR_GOAL_TOPK ? 20 : 0.2, KVASIR_TAIL_NONE, double(seed)};
    return search(c, in, layer, goal, q, exact.data());
  }
};

void expect_equal(const Found& a, const Found& b) {
  EXPECT(a.counts == b.counts);
  for (size_t row = 0; row < a.counts.size(); row++) {
    for (int32_t i = 0; i < a.counts[row]; i++) {
      const size_t at = row * static_cast<size_t>(a.capacity) + static_cast<size_t>(i);
      EXPECT_EQ(a.tokens[at], b.tokens[at]);
      EXPECT_EQ(a.bias[at], b.bias[at]);
    }
  }
}

void expect_in_range(const Found& f, int32_t begin, int32_t end) {
  for (size_t row = 0; row < f.counts.size(); row++) {
    EXPECT(f.counts[row] >= 0 && f.counts[row] <= end - begin);
    for (int32_t i = 0; i < std::min(f.counts[row], f.capacity); i++) {
      const int32_t* t = f.tokens.data() + row * static_cast<size_t>(f.capacity) + i;
      EXPECT(*t >= begin && *t < end);
      EXPECT(i == 0 || t[0] > t[-1]);
    }
  }
}

// Makes all checksums of a mutated file right again, as far as its directory can still be found.
void repair(Bytes& bytes) {
  IndexFileHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  const uint64_t size = uint64_t{header.sections} * sizeof(IndexFileSection);
  if (header.directory <= bytes.size() && size <= bytes.size() - header.directory) {
    for (uint32_t i = 0; i < header.sections; i++) {
      uint8_t* entry = bytes.data() + header.directory + i * sizeof(IndexFileSection);
      IndexFileSection section;
      std::memcpy(&section, entry, sizeof section);
      if (section.offset > bytes.size() || section.bytes > bytes.size() - section.offset) continue;
      section.checksum = checksum64(bytes.data() + section.offset, section.bytes);
      std::memcpy(entry, &section, sizeof section);
    }
    header.directory_checksum = checksum64(bytes.data() + header.directory, size);
  }
  header.checksum = checksum64(&header, offsetof(IndexFileHeader, checksum));
  std::memcpy(bytes.data(), &header, sizeof header);
}

// Overwrites a 1 to 8 byte word in [from, to) with a value that breaks things.
void poke(Bytes& bytes, Random& random, size_t from, size_t to) {
  if (to <= from) return;
  const size_t width = size_t{1} << random.bits() % 4;
  const size_t at = (from + random.bits() % (to - from)) / width * width;
  uint64_t old = 0;
  std::memcpy(&old, bytes.data() + at, std::min(width, bytes.size() - at));
  const uint64_t values[] = {0, 1, ~uint64_t{0}, uint64_t{1} << 31, (uint64_t{1} << 31) - 1, uint64_t{0x7f8000007f800000},
                             uint64_t{0x7c007c007c007c00}, old + 1, old - 1, old * 2, old ^ uint64_t{1} << random.bits() % 64,
                             uint64_t{random.bits()} << 32 | random.bits()};
  const uint64_t value = values[random.bits() % (sizeof values / sizeof *values)];
  std::memcpy(bytes.data() + at, &value, std::min(width, bytes.size() - at));
}

int fuzz_count() {
  const char* text = std::getenv("KVASIR_INDEX_FUZZ");
  return text == nullptr ? 1000 : std::atoi(text);
}

uint32_t fuzz_seed() {
  const char* text = std::getenv("KVASIR_INDEX_FUZZ_SEED");
  return text == nullptr ? 5 : static_cast<uint32_t>(std::atoi(text));
}

}  // namespace

TEST("the checksum of index files is XXH64") {
  EXPECT_EQ(checksum64("", 0), uint64_t{0xef46db3751d8e999});
  EXPECT_EQ(checksum64("abc", 3), uint64_t{0x44bc2cf5ad770999});
  EXPECT_EQ(checksum64("Nobody inspects the spammish repetition", 39), uint64_t{0xfbcea83c8a378bf1});
}

TEST("an index of every type is the same after saving, and grows on") {
  Folder folder;
  for (const std::string& spec : specs()) {
    Sample s(spec);
    EXPECT_INDEX_OK(kvasir_index_save(s.c, s.index, folder.file().c_str()));
    EXPECT_INDEX_OK(kvasir_index_save(s.c, s.index, folder.file().c_str()));  // over an older one
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path), {}), std::ptrdiff_t{1});
    kvasir_index copy = 0;
    EXPECT_INDEX_OK(s.map(&copy, folder.file(), spec));
    std::filesystem::remove(folder.file());
    for (int round = 0; round < 2; round++) {
      for (int32_t seed = 0; seed < 4; seed++) {
        expect_equal(s.find(s.index, seed), s.find(copy, seed));
        expect_equal(s.find(s.index, seed, KVASIR_GOAL_ERROR), s.find(copy, seed, KVASIR_GOAL_ERROR));
      }
      if (round == 1) break;
      s.add(s.index, Sample::kStart + Sample::kTokens + Sample::kLater, Sample::kLater);
      s.add(copy, Sample::kStart + Sample::kTokens + Sample::kLater, Sample::kLater);
    }
    if (failures() > 0) return fail(__FILE__, __LINE__, "type " + spec);
  }
}

TEST("a fork of every type answers as its original, and neither sees what the other adds") {
  for (const std::string& spec : specs()) {
    Sample s(spec);
    kvasir_index fork = 0;
    EXPECT_INDEX_OK(kvasir_index_fork(s.c, &fork, s.index, &s.segment, 1));
    std::vector<Found> before;
    for (int32_t seed = 0; seed < 3; seed++) before.push_back(s.find(s.index, seed));
    for (int32_t seed = 0; seed < 3; seed++) expect_equal(s.find(fork, seed), before[static_cast<size_t>(seed)]);
    s.add(fork, Sample::kStart + Sample::kTokens + Sample::kLater, Sample::kLater);
    for (int32_t seed = 0; seed < 3; seed++) expect_equal(s.find(s.index, seed), before[static_cast<size_t>(seed)]);
    std::vector<Found> grown;
    for (int32_t seed = 0; seed < 3; seed++) grown.push_back(s.find(fork, seed));
    s.add(s.index, Sample::kStart + Sample::kTokens + Sample::kLater, Sample::kLater);
    for (int32_t seed = 0; seed < 3; seed++) expect_equal(s.find(s.index, seed), grown[static_cast<size_t>(seed)]);
    EXPECT_INDEX_OK(kvasir_index_destroy(s.c, s.index));
    for (int32_t seed = 0; seed < 3; seed++) expect_equal(s.find(fork, seed), grown[static_cast<size_t>(seed)]);
    EXPECT_INDEX_FAILS(kvasir_index_fork(s.c, &s.index, fork, nullptr, 0), KVASIR_ARGUMENT, "segments hold 0 to 0");
    if (failures() > 0) return fail(__FILE__, __LINE__, "type " + spec);
  }
}

TEST("saving and opening say what is wrong") {
  Folder folder;
  Sample s("flat");
  const std::string path = folder.file();
  EXPECT_INDEX_FAILS(kvasir_index_save(s.c, s.index, folder.file("no/index").c_str()), KVASIR_ARGUMENT, "folder does not exist");
  EXPECT_INDEX_FAILS(kvasir_index_save(s.c, s.index, ""), KVASIR_ARGUMENT, "path is empty");
  {
    // A file that may not grow fails as a full disk does.
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    rlimit old = {};
    getrlimit(RLIMIT_FSIZE, &old);
    const rlimit small = {4200, old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    EXPECT_INDEX_FAILS(kvasir_index_save(s.c, s.index, path.c_str()), KVASIR_DEVICE, "File too large");
    setrlimit(RLIMIT_FSIZE, &old);
    std::signal(SIGXFSZ, handler);
    EXPECT(std::filesystem::is_empty(folder.path));
  }
  kvasir_index out = 0;
  EXPECT_INDEX_FAILS(s.map(&out, path, "flat"), KVASIR_ARGUMENT, "No such file");
  EXPECT_INDEX_FAILS(s.map(&out, folder.path, "flat"), KVASIR_ARGUMENT, "no regular file");
  EXPECT_INDEX_OK(kvasir_index_save(s.c, s.index, path.c_str()));
  const double shape[KVASIR_INDEX_SHAPE] = {Sample::kHeads, Sample::kKvHeads, Sample::kDim, 0.25, 0, 0, 0, 3};
  EXPECT_INDEX_FAILS(kvasir_index_map(s.c, &out, path.c_str(), "flat", shape, nullptr, &s.segment, 1), KVASIR_ARGUMENT,
                     "scale, softcap or seed");
  EXPECT_INDEX_FAILS(kvasir_index_map(s.c, &out, path.c_str(), "flat", s.shape, s.frequencies, nullptr, 0), KVASIR_ARGUMENT,
                     "segments hold 0 to 0");
  s.frequencies[2] = 0.02;
  EXPECT_INDEX_FAILS(s.map(&out, path, "flat"), KVASIR_ARGUMENT, "rotation is not");
  s.frequencies[2] = 0.01;
  s.layer.key(0, 0)[3] += 1;
  EXPECT_INDEX_FAILS(s.map(&out, path, "flat"), KVASIR_ARGUMENT, "segments hold other keys");
  s.layer.key(0, 0)[3] -= 1;
  Bytes bytes = read_file(path);
  bytes[8] = 9;
  write_file(path, bytes);
  EXPECT_INDEX_FAILS(s.map(&out, path, "flat"), KVASIR_ARGUMENT, "its version is 9, expected 6");
}

TEST("damaged index files of every type are refused, or answer in range") {
  Folder folder;
  const std::string path = folder.file();
  for (const std::string& spec : specs()) {
    Sample s(spec);
    EXPECT_INDEX_OK(kvasir_index_save(s.c, s.index, path.c_str()));
    const Bytes good = read_file(path);
    Random random(fuzz_seed());
    int opened = 0;
    for (int i = 0; i < fuzz_count() && failures() == 0; i++) {
      Bytes bytes = good;
      const int kind = i % 5;
      if (kind == 0) {
        bytes[random.bits() % bytes.size()] ^= static_cast<uint8_t>(1 + random.bits() % 255);
      } else if (kind == 1) {
        bytes.resize(random.bits() % 4 == 0 ? bytes.size() + 1 + random.bits() % 5000 : random.bits() % bytes.size());
      } else {
        IndexFileHeader header;
        std::memcpy(&header, bytes.data(), sizeof header);
        const int pokes = 1 + static_cast<int>(random.bits() % 3);
        for (int p = 0; p < pokes; p++) {
          if (kind == 2) {
            // Contents of one section, small ones as often as large ones.
            IndexFileSection section;
            std::memcpy(&section, bytes.data() + header.directory + random.bits() % header.sections * sizeof section, sizeof section);
            poke(bytes, random, section.offset, section.offset + section.bytes);
          } else if (kind == 3) {
            poke(bytes, random, header.directory, bytes.size());
          } else {
            poke(bytes, random, 0, kIndexFilePage - 8);
          }
        }
        repair(bytes);
      }
      write_file(path, bytes);
      kvasir_index out = 0;
      const int32_t status = s.map(&out, path, spec);
      if (status != KVASIR_OK) {
        EXPECT(status == KVASIR_ARGUMENT || status == KVASIR_MEMORY);
        EXPECT(index_error().find("Cannot") == 0);
        continue;
      }
      EXPECT(kind >= 2 || bytes == good);
      opened++;
      expect_in_range(s.find(out, i), Sample::kStart, Sample::kStart + s.layer.capacity);
      expect_in_range(s.find(out, i, KVASIR_GOAL_ERROR), Sample::kStart, Sample::kStart + s.layer.capacity);
      EXPECT_INDEX_OK(kvasir_index_destroy(s.c, out));
    }
    if (std::getenv("KVASIR_INDEX_FUZZ") != nullptr) std::printf("  %s: %d files, %d opened\n", spec.c_str(), fuzz_count(), opened);
    if (failures() > 0) return fail(__FILE__, __LINE__, "type " + spec);
  }
}
