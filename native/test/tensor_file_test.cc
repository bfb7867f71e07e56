// Files of tensors: what is written comes back, what is damaged is refused, nothing is left of what fails.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "checksum.h"
#include "fixture.h"

using namespace kvasir_test;

namespace {

struct Folder {
  std::string path;
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kvasir-file-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    path = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string file(const char* name = "a") const { return path + "/" + name; }
  size_t files() const {
    size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path)) n += entry.is_regular_file() ? 1 : 0;
    return n;
  }
};

kvasir_tensor make(kvasir_context* c, std::vector<int32_t> shape, float first) {
  kvasir_tensor t = 0;
  EXPECT_OK(kvasir_tensor_create(c, &t, KVASIR_F32, static_cast<int32_t>(shape.size()), shape.data(), KVASIR_SEQUENCE));
  size_t n = 1;
  for (int32_t d : shape) n *= static_cast<size_t>(d);
  std::vector<float> values(n);
  for (size_t i = 0; i < n; i++) values[i] = first + static_cast<float>(i);
  EXPECT_OK(kvasir_tensor_write(c, t, values.data(), static_cast<double>(n * 4), 0));
  return t;
}

std::vector<float> read(kvasir_context* c, kvasir_tensor t, size_t n) {
  std::vector<float> out(n);
  EXPECT_OK(kvasir_tensor_read(c, out.data(), t, static_cast<double>(n)));
  return out;
}

}  // namespace

TEST("Checksum64 of any pieces is checksum64 of the whole") {
  std::vector<uint8_t> data(1000);
  for (size_t i = 0; i < data.size(); i++) data[i] = static_cast<uint8_t>(i * 37 + (i >> 3));
  for (size_t n : {0, 1, 3, 4, 8, 31, 32, 33, 63, 64, 97, 129, 1000}) {
    for (size_t piece : {1, 5, 31, 32, 33, 64, 500}) {
      kvasir::Checksum64 sum;
      for (size_t at = 0; at < n; at += piece) sum.add(data.data() + at, std::min(piece, n - at));
      EXPECT_EQ(sum.digest(), kvasir::checksum64(data.data(), n));
    }
  }
}

TEST("files of tensors give back what was written, and outlive their context's id of them") {
  Folder folder;
  Context c("threads=2");
  const kvasir_tensor a = make(c, {2, 3, 4}, 0), b = make(c, {2, 5, 4}, 100);
  kvasir_file file = 0;
  EXPECT_OK(kvasir_file_create(c, &file, folder.file().c_str()));
  const kvasir_tensor parts[2] = {a, b};
  const int32_t rows[2] = {3, 1};
  EXPECT_OK(kvasir_file_add(c, file, "about", "hello", 5));
  EXPECT_OK(kvasir_file_add_rows(c, file, "keys.0", parts, rows, 2));
  double offset = 0;
  char path[512];
  EXPECT_OK(kvasir_file_begin(c, file, &offset, path, sizeof path, "index.0"));
  {
    std::fstream out(path, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(static_cast<std::streamoff>(offset));
    out << "an index";
  }
  EXPECT_OK(kvasir_file_end(c, file, 8));
  EXPECT(!std::filesystem::exists(folder.file()));
  EXPECT_OK(kvasir_file_commit(c, file));
  EXPECT_OK(kvasir_file_close(c, file));
  EXPECT_EQ(folder.files(), 1u);

  EXPECT_OK(kvasir_file_open(c, &file, folder.file().c_str()));
  EXPECT_OK(kvasir_file_verify(c, file));
  char text[8] = {};
  EXPECT_OK(kvasir_file_read(c, file, text, 5, "about"));
  EXPECT_EQ(std::string(text), "hello");
  kvasir_tensor mapped = 0;
  const int32_t shape[3] = {2, 4, 4};
  EXPECT_OK(kvasir_tensor_map(c, &mapped, file, "keys.0", KVASIR_F32, 3, shape));
  const int32_t wrong[3] = {2, 4, 5};
  kvasir_tensor none = 0;
  EXPECT_FAILS(kvasir_tensor_map(c, &none, file, "keys.0", KVASIR_F32, 3, wrong), KVASIR_ARGUMENT, "takes 160 bytes");
  EXPECT_FAILS(kvasir_tensor_map(c, &none, file, "keys.1", KVASIR_F32, 3, shape), KVASIR_ARGUMENT, "no section \"keys.1\"");
  EXPECT_FAILS(kvasir_file_read(c, file, text, 4, "about"), KVASIR_ARGUMENT, "5 bytes");
  EXPECT_OK(kvasir_file_close(c, file));
  EXPECT_FAILS(kvasir_file_verify(c, file), KVASIR_ARGUMENT, "stale");
  const std::vector<float> got = read(c, mapped, 32);
  for (size_t head = 0; head < 2; head++) {
    for (size_t i = 0; i < 12; i++) EXPECT_EQ(got[head * 16 + i], static_cast<float>(head * 12 + i));
    for (size_t i = 0; i < 4; i++) EXPECT_EQ(got[head * 16 + 12 + i], static_cast<float>(100 + head * 20 + i));
  }
  // Writing changes this process's copy only.
  EXPECT_OK(kvasir_tensor_copy(c, mapped, 0, a, 1, 1));
  EXPECT_EQ(read(c, mapped, 32)[0], 1.0f);
  EXPECT_OK(kvasir_tensor_destroy(c, mapped));
  EXPECT_OK(kvasir_file_open(c, &file, folder.file().c_str()));
  EXPECT_OK(kvasir_file_verify(c, file));
}

TEST("files of tensors refuse damage, and leave nothing of what was not committed") {
  Folder folder;
  Context c("threads=2");
  const kvasir_tensor a = make(c, {1, 30, 64}, 0);
  const int32_t rows = 30;
  kvasir_file file = 0;
  EXPECT_OK(kvasir_file_create(c, &file, folder.file().c_str()));
  EXPECT_OK(kvasir_file_add_rows(c, file, "keys.0", &a, &rows, 1));
  EXPECT_FAILS(kvasir_file_add(c, file, "keys.0", "x", 1), KVASIR_ARGUMENT, "is taken");
  EXPECT_FAILS(kvasir_file_add(c, file, "a b", "x", 1), KVASIR_ARGUMENT, "no name");
  EXPECT_FAILS(kvasir_file_add(c, file, "", "x", 1), KVASIR_ARGUMENT, "empty");
  const int32_t many = 31;
  EXPECT_FAILS(kvasir_file_add_rows(c, file, "values.0", &a, &many, 1), KVASIR_ARGUMENT, "31 rows");
  EXPECT_OK(kvasir_file_commit(c, file));
  EXPECT_OK(kvasir_file_close(c, file));
  EXPECT_OK(kvasir_file_create(c, &file, folder.file("b").c_str()));
  EXPECT_OK(kvasir_file_add(c, file, "x", "x", 1));
  EXPECT_OK(kvasir_file_close(c, file));
  EXPECT_EQ(folder.files(), 1u);
  EXPECT_FAILS(kvasir_file_create(c, &file, folder.file("no/a").c_str()), KVASIR_ARGUMENT, "folder does not exist");

  std::ifstream in(folder.file(), std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const int32_t shape[3] = {1, 30, 64};
  for (size_t at = 0; at < bytes.size(); at += 61) {
    bytes[at] = static_cast<char>(bytes[at] ^ 4);
    std::filesystem::remove(folder.file());
    std::ofstream(folder.file(), std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    kvasir_tensor t = 0;
    int32_t status = kvasir_file_open(c, &file, folder.file().c_str());
    if (status == KVASIR_OK) {
      // Whoever maps without asking for all is told as well, unless what is damaged is not his.
      EXPECT_FAILS(kvasir_tensor_map(c, &t, file, "keys.0", KVASIR_F32, 3, shape), KVASIR_ARGUMENT, "is damaged");
      EXPECT_FAILS(kvasir_file_verify(c, file), KVASIR_ARGUMENT, "is damaged");
      EXPECT_OK(kvasir_file_close(c, file));
    }
    bytes[at] = static_cast<char>(bytes[at] ^ 4);
  }
}
