#include "rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "error.h"
#include "half.h"

namespace kvasir {
namespace {

size_t element_bytes(int32_t dtype) { return dtype == KVASIR_F32 ? 4 : dtype == KVASIR_F16 ? 2 : 1; }

void check_memory(const kvasir_memory* memory, const char* what, uint64_t bytes) {
  if (memory == nullptr || (memory->data == nullptr && bytes > 0)) {
    fail(KVASIR_ARGUMENT, "Cannot register segment: %s are missing", what);
  }
  if (memory->bytes < bytes) {
    fail(KVASIR_ARGUMENT, "Cannot register segment: %s have %llu bytes, expected %llu", what,
         static_cast<unsigned long long>(memory->bytes), static_cast<unsigned long long>(bytes));
  }
}

void widen(float* out, const void* row, int32_t dtype, float scale, int32_t dim) {
  if (dtype == KVASIR_F32) {
    const float* from = static_cast<const float*>(row);
    for (int32_t i = 0; i < dim; i++) out[i] = from[i];
  } else if (dtype == KVASIR_F16) {
    const uint16_t* from = static_cast<const uint16_t*>(row);
    for (int32_t i = 0; i < dim; i++) out[i] = half_to_float(from[i]);
  } else {
    const int8_t* from = static_cast<const int8_t*>(row);
    for (int32_t i = 0; i < dim; i++) out[i] = scale * static_cast<float>(from[i]);
  }
}

// Exponent bits of infinities and NaN are all set.
template <class T>
bool all_finite(const void* rows, size_t count, T exponent) {
  const T* values = static_cast<const T*>(rows);
  T bad = 0;
  for (size_t i = 0; i < count; i++) bad |= static_cast<T>((values[i] & exponent) == exponent);
  return bad == 0;
}

}  // namespace

Segment::Segment(const int32_t* desc, kvasir_memory* keys, kvasir_memory* values, kvasir_memory* key_scales,
                 kvasir_memory* value_scales)
    : start_(desc[0]), dtype_(desc[1]), kv_heads_(desc[2]), stride_(desc[3]), head_dim_(desc[4]),
      rows_(desc[5] == 0 ? desc[3] : desc[5]), keys_(keys), values_(values), key_scales_(key_scales), value_scales_(value_scales) {
  if (dtype_ != KVASIR_F32 && dtype_ != KVASIR_F16 && dtype_ != KVASIR_I8) {
    fail(KVASIR_ARGUMENT, "Cannot register segment: element type %d, expected f32, f16 or i8", dtype_);
  }
  if (start_ < 0 || kv_heads_ < 1 || stride_ < 1 || head_dim_ < 1 || kv_heads_ > 65536 || head_dim_ > 65536 ||
      start_ > INT32_MAX - stride_ || rows_ < 1 || rows_ > stride_) {
    fail(KVASIR_ARGUMENT, "Cannot register segment: start %d, %d heads of %d in %d rows of %d", start_, kv_heads_, rows_, stride_,
         head_dim_);
  }
  const uint64_t rows = static_cast<uint64_t>(kv_heads_) * static_cast<uint64_t>(stride_);
  check_memory(keys, "keys", rows * row_bytes());
  check_memory(values, "values", rows * row_bytes());
  if (dtype_ == KVASIR_I8) {
    check_memory(key_scales, "key scales", rows * 4);
    check_memory(value_scales, "value scales", rows * 4);
  } else {
    key_scales_ = value_scales_ = nullptr;
  }
  for (kvasir_memory* memory : {keys_, values_, key_scales_, value_scales_}) {
    if (memory != nullptr) memory->retain(memory);
  }
}

Segment::~Segment() {
  for (kvasir_memory* memory : {keys_, values_, key_scales_, value_scales_}) {
    if (memory != nullptr) memory->release(memory);
  }
}

size_t Segment::row_bytes() const { return static_cast<size_t>(head_dim_) * element_bytes(dtype_); }

void Rows::append(std::shared_ptr<const Segment> segment) {
  // A fork that goes on repeats the last rows of what it shares: they are the same in both, and the later ones are read.
  const bool follows = segments_.empty() || (segment->start() <= end() && segment->start() >= segments_.back()->start() &&
                                             segment->start() + segment->capacity() >= end());
  if (!follows) {
    fail(KVASIR_ARGUMENT, "Cannot append segment: it starts at %d, expected %d", segment->start(), end());
  }
  segments_.push_back(std::move(segment));
}

int32_t Rows::begin() const { return segments_.empty() ? 0 : segments_.front()->start(); }

int32_t Rows::end() const {
  return segments_.empty() ? 0 : segments_.back()->start() + segments_.back()->capacity();
}

const Segment& Rows::find(int32_t position) const {
  const auto after = std::upper_bound(segments_.begin(), segments_.end(), position,
                                      [](int32_t p, const auto& s) { return p < s->start(); });
  if (after == segments_.begin() || position >= end()) {
    fail(KVASIR_INTERNAL, "Cannot find row: position %d is in no segment", position);
  }
  return **(after - 1);
}

void Rows::read_keys(float* out, int32_t head, int32_t from, int32_t count) const {
  for (int32_t done = 0; done < count;) {
    const Segment& s = find(from + done);
    const int32_t row = from + done - s.start(), n = std::min(count - done, s.capacity() - row);
    for (int32_t i = 0; i < n; i++) {
      widen(out + static_cast<size_t>(done + i) * s.head_dim(), s.key(head, row + i), s.dtype(), s.key_scale(head, row + i),
            s.head_dim());
    }
    done += n;
  }
}

float Rows::logit(int32_t head, int32_t position, const float* q, float scale) const {
  std::vector<float> key(static_cast<size_t>(find(position).head_dim()));
  read_keys(key.data(), head, position, 1);
  double dot = 0;
  for (size_t i = 0; i < key.size(); i++) dot += static_cast<double>(q[i]) * static_cast<double>(key[i]);
  constexpr double kMost = static_cast<double>(std::numeric_limits<float>::max());
  return static_cast<float>(std::max(-kMost, std::min(kMost, dot * static_cast<double>(scale))));
}

bool Rows::keys_finite(int32_t head, int32_t from, int32_t count) const {
  for (int32_t done = 0; done < count;) {
    const Segment& s = find(from + done);
    const int32_t row = from + done - s.start(), n = std::min(count - done, s.capacity() - row);
    const size_t elements = static_cast<size_t>(n) * static_cast<size_t>(s.head_dim());
    if (s.dtype() == KVASIR_F32 && !all_finite<uint32_t>(s.key(head, row), elements, 0x7f800000u)) return false;
    if (s.dtype() == KVASIR_F16 && !all_finite<uint16_t>(s.key(head, row), elements, 0x7c00)) return false;
    for (int32_t i = 0; i < n && s.dtype() == KVASIR_I8; i++) {
      // 128 scales are the largest key: it must be a float too.
      if (!(std::fabs(s.key_scale(head, row + i)) <= std::numeric_limits<float>::max() / 128)) return false;
    }
    done += n;
  }
  return true;
}

void Rows::read_values(float* out, int32_t head, int32_t from, int32_t count) const {
  for (int32_t done = 0; done < count;) {
    const Segment& s = find(from + done);
    const int32_t row = from + done - s.start(), n = std::min(count - done, s.capacity() - row);
    for (int32_t i = 0; i < n; i++) {
      widen(out + static_cast<size_t>(done + i) * s.head_dim(), s.value(head, row + i), s.dtype(),
            s.value_scale(head, row + i), s.head_dim());
    }
    done += n;
  }
}

}  // namespace kvasir
