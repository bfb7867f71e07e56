#include "kv.h"

#include "dtype.h"
#include "error.h"

namespace kvasir {
namespace {

enum Field { kStart, kCount, kKeys, kValues, kKeyScales, kValueScales };

Tensor* tensor_of(Table& table, const int32_t* fields, Field field, const char* what) {
  return &table.tensor(static_cast<kvasir_tensor>(fields[field]), what);
}

AppendCall append_call(const KvSegmentView& s, int32_t row, int32_t n, const float* k, const float* v) {
  if (row < 0 || row > s.capacity || n > s.capacity - row) {
    fail(KVASIR_ARGUMENT, "Cannot append: %d rows from row %d, the segment's capacity is %d", n, row, s.capacity);
  }
  return {s.keys->data,
          s.values->data,
          s.key_scales == nullptr ? nullptr : s.key_scales->as<float>(),
          s.value_scales == nullptr ? nullptr : s.value_scales->as<float>(),
          k,
          v,
          s.keys->dtype,
          s.keys->shape[0],
          s.keys->shape[2],
          s.capacity,
          row,
          n};
}

}  // namespace

KvRun KvSegmentView::run(int32_t head, int32_t from, int32_t rows) const {
  const size_t row = static_cast<size_t>(head) * static_cast<size_t>(capacity) + static_cast<size_t>(from);
  const size_t bytes = static_cast<size_t>(keys->last()) * static_cast<size_t>(kDTypes[keys->dtype].bytes);
  KvRun run{};
  run.keys = keys->data + row * bytes;
  run.values = values->data + row * bytes;
  run.key_scales = key_scales == nullptr ? nullptr : key_scales->as<float>() + row;
  run.value_scales = value_scales == nullptr ? nullptr : value_scales->as<float>() + row;
  run.position = start + from;
  run.count = rows;
  return run;
}

int32_t KvView::runs(int32_t head, int32_t from, int32_t to, KvRun* out) const {
  constexpr int32_t kTile = 64;
  int32_t n = 0;
  for (const KvSegmentView& s : segments) {
    int32_t first = from > s.start ? from - s.start : 0;
    const int32_t last = to < s.start + s.count ? to - s.start : s.count;
    if (first >= last) continue;
    const int32_t border = (s.start + first + kTile - 1) / kTile * kTile - s.start;
    if (n == 0 && border > first && border < last) {
      out[n++] = s.run(head, first, border - first);
      first = border;
    }
    out[n++] = s.run(head, first, last - first);
  }
  return n;
}

KvRun KvView::run_from(int32_t head, int32_t from) const {
  for (const KvSegmentView& s : segments) {
    const int32_t first = from - s.start;
    if (first >= 0 && first < s.count) return s.run(head, first, s.count - first);
  }
  return {};
}

KvSegmentView check_segment(Table& table, const int32_t* fields) {
  KvSegmentView s{};
  s.keys = tensor_of(table, fields, kKeys, "keys of a segment");
  s.values = tensor_of(table, fields, kValues, "values of a segment");
  const Tensor& keys = *s.keys;
  if (keys.dtype != KVASIR_F32 && keys.dtype != KVASIR_F16 && keys.dtype != KVASIR_I8) {
    fail(KVASIR_ARGUMENT, "Cannot use keys of a segment: type %s, expected f16, f32 or i8", dtype_name(keys.dtype));
  }
  if (keys.rank != 3 || keys.data == nullptr) {
    fail(KVASIR_ARGUMENT, "Cannot use keys of a segment: shape %s, expected [kvHeads, capacity, headDim]",
         shape_text(keys.shape, keys.rank).c_str());
  }
  expect_dtype(*s.values, keys.dtype, "values of a segment");
  expect_shape(*s.values, {keys.shape[0], keys.shape[1], keys.shape[2]}, "values of a segment");
  if (keys.dtype == KVASIR_I8) {
    s.key_scales = tensor_of(table, fields, kKeyScales, "key scales of a segment");
    s.value_scales = tensor_of(table, fields, kValueScales, "value scales of a segment");
    for (const Tensor* scales : {s.key_scales, s.value_scales}) {
      expect_dtype(*scales, KVASIR_F32, "scales of a segment");
      expect_shape(*scales, {keys.shape[0], keys.shape[1]}, "scales of a segment");
    }
  } else if (fields[kKeyScales] != 0 || fields[kValueScales] != 0) {
    fail(KVASIR_ARGUMENT, "Cannot use scales of a segment: keys are %s, only i8 has scales", dtype_name(keys.dtype));
  }
  s.capacity = keys.shape[1];
  return s;
}

void fetch_segments(const Table& table, const int32_t* fields, int32_t count) {
  for (int32_t i = 0; i < count; i++, fields += KVASIR_SEGMENT_FIELDS) {
    for (int32_t field = kKeys; field < KVASIR_SEGMENT_FIELDS; field++) table.fetch(static_cast<uint32_t>(fields[field]));
  }
}

KvView check_segments(Table& table, const int32_t* fields, int32_t count) {
  if (count < 0 || (count > 0 && fields == nullptr)) {
    fail(KVASIR_ARGUMENT, "Cannot use segments: count %d without a table", count);
  }
  fetch_segments(table, fields, count);
  KvView view;
  view.segments.reserve(static_cast<size_t>(count));
  int64_t end = 0;
  for (int32_t i = 0; i < count; i++, fields += KVASIR_SEGMENT_FIELDS) {
    KvSegmentView s = check_segment(table, fields);
    s.start = fields[kStart];
    s.count = fields[kCount];
    if (s.count < 0 || s.count > s.capacity) {
      fail(KVASIR_ARGUMENT, "Cannot use segment %d: %d rows, its capacity is %d", i, s.count, s.capacity);
    }
    if (i == 0) {
      if (s.start < 0) fail(KVASIR_ARGUMENT, "Cannot use segment 0: start %d is negative", s.start);
      view.dtype = s.keys->dtype, view.kv_heads = s.keys->shape[0], view.head_dim = s.keys->shape[2];
      view.start = s.start, end = s.start;
    } else {
      expect_dtype(*s.keys, view.dtype, "keys of a segment");
      expect_shape(*s.keys, {view.kv_heads, s.capacity, view.head_dim}, "keys of a segment");
    }
    if (s.start != end) {
      fail(KVASIR_ARGUMENT, "Cannot use segment %d: start %d, expected %lld", i, s.start, static_cast<long long>(end));
    }
    end += s.count;
    if (end > INT32_MAX / 2) fail(KVASIR_ARGUMENT, "Cannot use segment %d: positions beyond %d", i, INT32_MAX / 2);
    view.segments.push_back(s);
  }
  view.end = static_cast<int32_t>(end);
  return view;
}

AppendCall check_append(Table& table, const int32_t* segment, int32_t row, uint32_t k, uint32_t v) {
  const KvSegmentView s = check_segment(table, segment);
  const int32_t heads = s.keys->shape[0], d = s.keys->shape[2];
  const Tensor &keys = table.tensor(k, "k to append"), &values = table.tensor(v, "v to append");
  expect_dtype(keys, KVASIR_F32, "k to append");
  expect_shape(keys, {keys.shape[0], heads, d}, "k to append");
  expect_dtype(values, KVASIR_F32, "v to append");
  expect_shape(values, {keys.shape[0], heads, d}, "v to append");
  return append_call(s, row, keys.shape[0], keys.as<float>(), values.as<float>());
}

std::vector<AppendCall> check_append_each(Table& table, const int32_t* segments, const int32_t* rows, int32_t count, uint32_t k,
                                          uint32_t v) {
  if (count < 0 || (count > 0 && (segments == nullptr || rows == nullptr))) {
    fail(KVASIR_ARGUMENT, "Cannot append: %d segments without a table", count);
  }
  fetch_segments(table, segments, count);
  const Tensor &keys = table.tensor(k, "k to append"), &values = table.tensor(v, "v to append");
  expect_dtype(keys, KVASIR_F32, "k to append");
  expect_dtype(values, KVASIR_F32, "v to append");
  std::vector<AppendCall> calls;
  calls.reserve(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; i++) {
    const KvSegmentView s = check_segment(table, segments + static_cast<size_t>(i) * KVASIR_SEGMENT_FIELDS);
    const int32_t heads = s.keys->shape[0], d = s.keys->shape[2];
    expect_shape(keys, {count, heads, d}, "k to append");
    expect_shape(values, {count, heads, d}, "v to append");
    const size_t at = static_cast<size_t>(i) * static_cast<size_t>(heads) * static_cast<size_t>(d);
    calls.push_back(append_call(s, rows[i], 1, keys.as<float>() + at, values.as<float>() + at));
  }
  return calls;
}

}  // namespace kvasir
