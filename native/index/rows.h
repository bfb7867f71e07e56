// Keys and values of one layer where they lie: registered segments of the KV cache, held while anybody reads them.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "kvasir_abi.h"

namespace kvasir {

// Immutable but for rows that are yet to be written; freely shared between threads.
class Segment {
 public:
  // Checks sizes against the memories; throws Error{KVASIR_ARGUMENT}.
  Segment(const int32_t* desc, kvasir_memory* keys, kvasir_memory* values, kvasir_memory* key_scales,
          kvasir_memory* value_scales);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  int32_t start() const { return start_; }
  int32_t dtype() const { return dtype_; }  // KVASIR_F32, KVASIR_F16 or KVASIR_I8
  int32_t kv_heads() const { return kv_heads_; }
  int32_t capacity() const { return rows_; }  // rows of a head that are this segment's
  int32_t head_dim() const { return head_dim_; }
  size_t row_bytes() const;
  int32_t head_rows() const { return stride_; }  // from one head's row 0 to the next one's

  // Row `row` of the segment: [head_dim] elements of dtype. Rows of a head follow each other.
  const void* key(int32_t head, int32_t row) const { return at(keys_, head, row); }
  const void* value(int32_t head, int32_t row) const { return at(values_, head, row); }
  // 1 unless dtype is KVASIR_I8.
  float key_scale(int32_t head, int32_t row) const { return scale(key_scales_, head, row); }
  float value_scale(int32_t head, int32_t row) const { return scale(value_scales_, head, row); }
  // [kv_heads, head_rows()]; null unless dtype is KVASIR_I8.
  const float* key_scales() const { return key_scales_ == nullptr ? nullptr : static_cast<const float*>(key_scales_->data); }
  const float* value_scales() const { return value_scales_ == nullptr ? nullptr : static_cast<const float*>(value_scales_->data); }

 private:
  const void* at(const kvasir_memory* memory, int32_t head, int32_t row) const {
    return static_cast<const char*>(memory->data) +
           (static_cast<size_t>(head) * static_cast<size_t>(stride_) + static_cast<size_t>(row)) * row_bytes();
  }
  float scale(const kvasir_memory* memory, int32_t head, int32_t row) const {
    if (memory == nullptr) return 1;
    return static_cast<const float*>(memory->data)[static_cast<size_t>(head) * static_cast<size_t>(stride_) +
                                                   static_cast<size_t>(row)];
  }
  int32_t start_, dtype_, kv_heads_, stride_, head_dim_, rows_;  // stride_: rows of a head that there is memory for
  kvasir_memory *keys_, *values_, *key_scales_, *value_scales_;
};

// The segments of one layer in order, without gaps; where two overlap they hold the same rows. A copy is cheap and stays valid whatever happens to the original:
// builders take one.
class Rows {
 public:
  void append(std::shared_ptr<const Segment> segment);  // throws Error{KVASIR_ARGUMENT} where it does not continue
  const std::vector<std::shared_ptr<const Segment>>& segments() const { return segments_; }
  int32_t begin() const;  // first position that a segment has room for; 0 without segments
  int32_t end() const;    // one behind the last
  // The segment that holds a position in [begin, end).
  const Segment& find(int32_t position) const;

  // Key rows [from, from + count) of a head as floats, scales applied: out [count, head_dim].
  void read_keys(float* out, int32_t head, int32_t from, int32_t count) const;
  void read_values(float* out, int32_t head, int32_t from, int32_t count) const;
  // scale * q . key in float64, no farther from zero than floats go: for what overflows in float32.
  float logit(int32_t head, int32_t position, const float* q, float scale) const;
  // No infinity and no NaN in key rows [from, from + count) of a head, scales included.
  bool keys_finite(int32_t head, int32_t from, int32_t count) const;

 private:
  std::vector<std::shared_ptr<const Segment>> segments_;
};

}  // namespace kvasir
