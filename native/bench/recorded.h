// Recorded heads (docs/recorded_heads.md), mapped read-only. Files of the wrong kind or size end the program with a sentence.
//   kvasir_bench::Recorded heads("smollm2-8k.kvqk");
//   for (const auto& layer : heads.layers()) layer.key(kv_head, position);  // f16 [head_dim]
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace kvasir_bench {

[[noreturn]] inline void stop(const std::string& path, const char* why) {
  std::fprintf(stderr, "Cannot read recorded heads \"%s\": %s\n", path.c_str(), why);
  std::exit(1);
}

// One layer; pointers lie in the mapping. f16 are bits: widen with kvasir::half_to_float or F16C.
struct RecordedLayer {
  uint32_t layer, heads, kv_heads, head_dim, rope_dims, pairing, num_prompt, reserved;
  double scale, softcap, magnitude;
  uint32_t tokens, decoded;            // decode query i is position tokens - decoded + i and sees keys up to its own
  const double* frequencies;           // [rope_dims / 2]
  const uint16_t* keys;                // f16 [kv_heads, tokens, head_dim]
  const uint16_t* values;              // f16 [kv_heads, tokens, head_dim]
  const int32_t* prompt_positions;     // [num_prompt], ascending
  const uint16_t* prompt_queries;      // f16 [num_prompt, heads, head_dim]
  const uint16_t* decode_queries;      // f16 [decoded, heads, head_dim]
  const uint16_t* outputs;             // f16 [decoded, heads, head_dim]

  uint32_t group() const { return heads / kv_heads; }
  const uint16_t* key(uint32_t kv_head, uint32_t position) const { return keys + row(kv_head, position); }
  const uint16_t* value(uint32_t kv_head, uint32_t position) const { return values + row(kv_head, position); }
  const uint16_t* prompt_query(uint32_t i, uint32_t head) const {
    return prompt_queries + (static_cast<size_t>(i) * heads + head) * head_dim;
  }
  const uint16_t* decode_query(uint32_t i, uint32_t head) const {
    return decode_queries + (static_cast<size_t>(i) * heads + head) * head_dim;
  }

 private:
  size_t row(uint32_t kv_head, uint32_t position) const {
    return (static_cast<size_t>(kv_head) * tokens + position) * head_dim;
  }
};

class Recorded {
 public:
  explicit Recorded(const std::string& path) {
    const int file = open(path.c_str(), O_RDONLY);
    struct stat info {};
    if (file < 0 || fstat(file, &info) != 0) stop(path, "no such file");
    size_ = static_cast<size_t>(info.st_size);
    if (size_ < kHeader) stop(path, "shorter than its header");
    base_ = static_cast<const char*>(mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0));
    close(file);
    if (base_ == MAP_FAILED) stop(path, "it cannot be mapped");
    uint64_t bytes;
    std::memcpy(&bytes, base_ + 8, 8);
    if (std::memcmp(base_, "KVQK", 4) != 0 || u32(4) != 1) stop(path, "not KVQK version 1");
    if (bytes != size_) stop(path, "cut off");
    tokens_ = u32(20), decoded_ = u32(24), stride_ = u32(28);
    name_.assign(base_ + 64, strnlen(base_ + 64, 192));
    const uint32_t count = u32(16);
    if (count > 1024 || size_ < kHeader + static_cast<size_t>(count) * kEntry) stop(path, "no room for its layers");
    for (uint32_t i = 0; i < count; i++) layers_.push_back(entry(path, base_ + kHeader + i * kEntry));
  }
  ~Recorded() { munmap(const_cast<char*>(base_), size_); }
  Recorded(const Recorded&) = delete;
  Recorded& operator=(const Recorded&) = delete;

  const std::string& name() const { return name_; }
  uint32_t tokens() const { return tokens_; }
  uint32_t decoded() const { return decoded_; }
  uint32_t stride() const { return stride_; }
  const std::vector<RecordedLayer>& layers() const { return layers_; }

 private:
  static constexpr size_t kHeader = 256, kEntry = 128;

  uint32_t u32(size_t at) const {
    uint32_t value;
    std::memcpy(&value, base_ + at, 4);
    return value;
  }

  RecordedLayer entry(const std::string& path, const char* from) const {
    RecordedLayer l;
    std::memcpy(&l, from, 56);  // the entry's first fields are the struct's
    uint64_t at[7];
    std::memcpy(at, from + 56, sizeof at);
    l.tokens = tokens_, l.decoded = decoded_;
    const uint64_t rows = 2ull * l.kv_heads * tokens_ * l.head_dim, decode = 2ull * decoded_ * l.heads * l.head_dim;
    const uint64_t sizes[7] = {4ull * l.rope_dims, rows,   rows,  4ull * l.num_prompt,
                               2ull * l.num_prompt * l.heads * l.head_dim, decode, decode};
    for (int i = 0; i < 7; i++) {
      if (at[i] % 64 != 0 || at[i] > size_ || sizes[i] > size_ - at[i]) stop(path, "an array lies outside the file");
    }
    if (l.heads == 0 || l.kv_heads == 0 || l.heads % l.kv_heads != 0) stop(path, "a layer without heads");
    l.frequencies = reinterpret_cast<const double*>(base_ + at[0]);
    l.keys = half(at[1]), l.values = half(at[2]);
    l.prompt_positions = reinterpret_cast<const int32_t*>(base_ + at[3]);
    l.prompt_queries = half(at[4]), l.decode_queries = half(at[5]), l.outputs = half(at[6]);
    return l;
  }
  const uint16_t* half(uint64_t at) const { return reinterpret_cast<const uint16_t*>(base_ + at); }

  const char* base_;
  size_t size_;
  std::string name_;
  uint32_t tokens_ = 0, decoded_ = 0, stride_ = 0;
  std::vector<RecordedLayer> layers_;
};

// A copy in large pages, as the runtime's caches lie: in a file's small ones each row that is read by itself costs a page walk.
class LargePages {
 public:
  LargePages(const uint16_t* data, size_t bytes) : bytes_(bytes) {
    constexpr size_t kLarge = size_t{2} << 20;
    data_ = std::aligned_alloc(kLarge, (bytes + kLarge - 1) / kLarge * kLarge);
    if (data_ == nullptr) std::abort();
    madvise(data_, bytes, MADV_HUGEPAGE);
    std::memcpy(data_, data, bytes);
  }
  ~LargePages() { std::free(data_); }
  LargePages(const LargePages&) = delete;
  LargePages& operator=(const LargePages&) = delete;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* data_;
  size_t bytes_;
};

}  // namespace kvasir_bench
