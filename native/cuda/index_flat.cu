#include "index_flat.h"

#include <algorithm>

#include "error.h"
#include "index_select.cuh"
#include "index_select.h"
#include "launch.h"
#include "runtime_fail.h"

namespace kvasir {

struct DeviceFlat::Chunk {
  Runtime* runtime;
  uint8_t* data;  // [kv_heads][head_bytes]

  Chunk(Runtime& r, size_t bytes) : runtime(&r), data(static_cast<uint8_t*>(r.allocate(bytes))) {
    if (data == nullptr) fail(KVASIR_MEMORY, "Cannot encode keys: out of memory for %zu bytes%s", bytes, kContextTooLarge);
  }
  ~Chunk() { runtime->free(data); }
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;
};

// One search's memory on the device.
struct DeviceFlat::Buffers {
  SearchFlags* flags;
  PreparedQueries prepared;
  ScoreOut scores;
  float* refs;
  int32_t* offsets;
  float* priorities;
  DrawOut draw;
  Selection* selections;
  int32_t* histograms;
  int32_t* selected;  // [2][heads][blocks]
  float *q, *exact;   // [heads, dim], [heads]
  HitsOut list;       // hits, until they are copied or attended to
  uint8_t* const* chunks;
};

namespace {

// Carves arrays from one piece of memory, or measures how large it must be.
class Carver {
 public:
  explicit Carver(uint8_t* base) : base_(base) {}
  template <class T>
  T* take(size_t count) {
    T* at = reinterpret_cast<T*>(base_ + used_);
    used_ += (count * sizeof(T) + 255) / 256 * 256;
    return at;
  }
  size_t used() const { return used_; }

 private:
  uint8_t* base_;
  size_t used_ = 0;
};

int32_t element_size(int32_t dtype) { return dtype == KVASIR_F32 ? 4 : dtype == KVASIR_F16 ? 2 : 1; }

}  // namespace

DeviceFlat::DeviceFlat(DeviceScratch& search, DeviceScratch& attention, const IndexShape& shape, Kind kind)
    : runtime_(search.runtime), search_(search), attention_(attention), shape_(shape), kind_(kind),
      layout_(code_layout(shape.dim, kind == kInt4)), brought_(search.runtime) {}

double DeviceFlat::bytes() const {
  return static_cast<double>(chunks_.size()) * static_cast<double>(layout_.head_bytes) * shape_.kv_heads;
}

double DeviceFlat::code_bytes() const { return static_cast<double>(layout_.block_bytes) / kCodeBlock; }

std::vector<KeySegment> DeviceFlat::segments() const {
  std::vector<KeySegment> all;
  for (const auto& s : rows_.segments()) {
    all.push_back({static_cast<const char*>(s->key(0, 0)), static_cast<const char*>(s->value(0, 0)), s->key_scales(), s->value_scales(),
                   s->start(), s->capacity(), s->head_rows()});
  }
  return all;
}

RowTable DeviceFlat::table_of(const std::vector<KeySegment>& segments) {
  const int32_t dtype = rows_.segments().empty() ? KVASIR_F32 : rows_.segments().front()->dtype();
  return {runtime_.stage(segments.data(), segments.size()), static_cast<int32_t>(segments.size()), dtype, shape_.dim,
          shape_.dim * element_size(dtype)};
}

bool DeviceFlat::reaches_rows() const {
  for (const auto& s : rows_.segments()) {
    if (!runtime_.reaches(s->key(0, 0))) return false;
  }
  return true;
}

RowTable DeviceFlat::row_table() {
  if (!reaches_rows()) {
    fail(KVASIR_UNSUPPORTED, "Cannot score keys by their rows: they lie on the host, use an error goal with codes=int4");
  }
  return table_of(segments());
}

std::vector<KeySegment> DeviceFlat::bring(int32_t from, int32_t to) {
  const size_t heads = static_cast<size_t>(shape_.kv_heads), rows = static_cast<size_t>(to - from);
  const Segment& first = *rows_.segments().front();
  const size_t row_bytes = first.row_bytes(), keys_bytes = (heads * rows * row_bytes + 255) / 256 * 256;
  uint8_t* data = static_cast<uint8_t*>(brought_.get(keys_bytes + heads * rows * sizeof(float)));
  float* scales = reinterpret_cast<float*>(data + keys_bytes);
  for (int32_t at = from; at < to;) {
    const Segment& s = rows_.find(at);
    const int32_t row = at - s.start(), count = std::min(to - at, s.capacity() - row);
    for (size_t h = 0; h < heads; h++) {
      const size_t place = h * rows + static_cast<size_t>(at - from);
      runtime_.transfer(data + place * row_bytes, s.key(static_cast<int32_t>(h), row), static_cast<size_t>(count) * row_bytes);
      if (s.key_scales() != nullptr) {
        runtime_.transfer(scales + place, s.key_scales() + h * static_cast<size_t>(s.head_rows()) + static_cast<size_t>(row),
                          static_cast<size_t>(count) * sizeof(float));
      }
    }
    at += count;
  }
  const char* keys = reinterpret_cast<const char*>(data);
  return {{keys, keys, first.key_scales() == nullptr ? nullptr : scales, nullptr, from, to - from, to - from}};
}

void DeviceFlat::add(int32_t start, int32_t count) {
  // What encoding reads: new rows, and those of their chunk whose mean becomes its centre.
  const int32_t begin = begin_ == end_ ? start : begin_, from = begin + (start - begin) / kCodeChunk * kCodeChunk;
  const RowTable table = reaches_rows() ? row_table() : table_of(bring(from, start + count));
  int32_t* bad = static_cast<int32_t*>(search_.get(sizeof(int32_t)));
  runtime_.fill(bad, 0, sizeof(int32_t));
  launch(runtime_, "check_keys", check_keys, dim3(blocks_of(count, 8), static_cast<uint32_t>(shape_.kv_heads)), dim3(256), 0, table,
         start, start + count, bad);
  int32_t found = 0;
  runtime_.download(&found, bad, sizeof found);
  if (found != 0) {
    fail(KVASIR_ARGUMENT, "Cannot add tokens: a key in positions %d to %d is not finite", start, start + count - 1);
  }
  begin_ = begin;
  if (kind_ != kNone) encode(table, start, count);
  end_ = start + count;
}

void DeviceFlat::encode(const RowTable& rows, int32_t start, int32_t count) {
  const int32_t from = start - begin_, to = from + count, first = from / kCodeChunk, last = (to - 1) / kCodeChunk;
  const size_t bytes = static_cast<size_t>(layout_.head_bytes) * static_cast<size_t>(shape_.kv_heads);
  if (from % kCodeChunk != 0 && !own_open_) {
    auto copy = std::make_shared<Chunk>(runtime_, bytes);
    runtime_.copy(copy->data, chunks_.back()->data, bytes);
    chunks_.back() = std::move(copy);
  }
  while (static_cast<int32_t>(chunks_.size()) <= last) chunks_.push_back(std::make_shared<Chunk>(runtime_, bytes));
  own_open_ = true;
  const int32_t before = first > 0 ? 1 : 0;
  std::vector<uint8_t*> pointers;
  for (int32_t c = first - before; c <= last; c++) pointers.push_back(chunks_[static_cast<size_t>(c)]->data);
  EncodeArguments args{};
  args.rows = rows, args.layout = layout_;
  args.chunks = runtime_.stage(pointers.data(), pointers.size()) + before;
  args.first_chunk = first, args.begin = begin_, args.from = from, args.to = to;
  const uint32_t heads = static_cast<uint32_t>(shape_.kv_heads), whole = static_cast<uint32_t>(last - first);
  const dim3 lanes(static_cast<uint32_t>(std::min(layout_.width, 256)));
  // The centre of a chunk of few keys is the previous chunk's: only the last one has few, and waits.
  if (whole > 0) launch(runtime_, "centre_codes", centre_codes, dim3(whole, heads), lanes, 0, args, 0);
  launch(runtime_, "centre_codes", centre_codes, dim3(1, heads), lanes, 0, args, static_cast<int32_t>(whole));
  if (kind_ == kInt4) launch(runtime_, "encode_codes", encode_codes<true>, dim3(whole + 1, heads), dim3(256), 0, args, 0);
  else launch(runtime_, "encode_codes", encode_codes<false>, dim3(whole + 1, heads), dim3(256), 0, args, 0);
}

std::unique_ptr<DeviceFlat> DeviceFlat::fork(Rows rows) const {
  auto copy = std::make_unique<DeviceFlat>(search_, attention_, shape_, kind_);
  copy->rows_ = std::move(rows);
  copy->chunks_ = chunks_;
  copy->own_open_ = own_open_ = false;
  copy->begin_ = begin_, copy->end_ = end_, copy->searchable_ = searchable_;
  return copy;
}

DeviceFlat::Buffers DeviceFlat::place(int32_t list_capacity) {
  const size_t heads = static_cast<size_t>(shape_.heads), kv_heads = static_cast<size_t>(shape_.kv_heads);
  const size_t blocks = static_cast<size_t>((searchable_ + kScanKeys - 1) / kScanKeys), stride = blocks * kScanKeys;
  const size_t width = static_cast<size_t>(layout_.width), chunks = chunks_.size();
  Buffers b{};
  uint8_t* base = nullptr;
  for (int32_t turn = 0; turn < 2; turn++) {
    Carver c(base);
    b.flags = c.take<SearchFlags>(1);
    b.prepared = {c.take<int8_t>(heads * width), c.take<int32_t>(heads * static_cast<size_t>(layout_.bands)), c.take<float>(heads),
                  c.take<float>(heads * chunks)};
    b.scores = {c.take<int16_t>(heads * stride), c.take<float>(heads * stride), c.take<float>(heads * blocks), stride, searchable_,
                static_cast<int32_t>(blocks)};
    b.refs = c.take<float>(heads);
    b.offsets = c.take<int32_t>(heads);
    b.priorities = c.take<float>(heads * stride);
    b.draw = {c.take<int32_t>(kv_heads * stride), c.take<int16_t>(kv_heads * stride), c.take<int32_t>(kv_heads * blocks),
              c.take<int64_t>(heads), static_cast<int32_t>(blocks)};
    b.selections = c.take<Selection>(heads);
    b.histograms = c.take<int32_t>(heads * 256);
    b.selected = c.take<int32_t>(2 * heads * blocks);
    b.q = c.take<float>(heads * static_cast<size_t>(shape_.dim)), b.exact = c.take<float>(heads);
    const size_t room = heads * static_cast<size_t>(list_capacity);
    b.list = {c.take<int32_t>(room), c.take<float>(room), c.take<int32_t>(heads), c.take<float>(heads), list_capacity, begin_};
    if (turn == 0) base = static_cast<uint8_t*>(search_.get(c.used()));
  }
  std::vector<uint8_t*> pointers;
  for (const auto& chunk : chunks_) pointers.push_back(chunk->data);
  b.chunks = runtime_.stage(pointers.data(), pointers.size());
  return b;
}

// Scores by codes, or by rows where there are none: logarithms, or floats.
void DeviceFlat::score(const Buffers& b, const float* q, const float* exact, bool logs, bool always) {
  const dim3 grid(static_cast<uint32_t>(b.scores.blocks), static_cast<uint32_t>(shape_.kv_heads)), threads(kScanThreads);
  const size_t shared = sizeof(int32_t) * static_cast<size_t>(shape_.group * (layout_.width / 4 + layout_.bands) + kScanThreads / 32);
  if (kind_ == kNone) {
    launch(runtime_, "scan_rows", scan_rows, grid, threads, 0, shape_, row_table(), begin_, q, b.scores, true);
  } else if (kind_ == kInt4 && logs) {
    launch(runtime_, "scan_codes", scan_codes<true, true>, grid, threads, shared, shape_, layout_, b.prepared, b.chunks, exact, b.scores, b.flags, always);
  } else if (kind_ == kInt4) {
    launch(runtime_, "scan_codes", scan_codes<true, false>, grid, threads, shared, shape_, layout_, b.prepared, b.chunks, exact, b.scores, b.flags, always);
  } else {
    launch(runtime_, "scan_codes", scan_codes<false, false>, grid, threads, shared, shape_, layout_, b.prepared, b.chunks, exact, b.scores, b.flags, always);
  }
}

void DeviceFlat::sample(const Buffers& b, const HitsOut& hits, const FlatGoal& goal, const float* q, const float* exact) {
  const uint32_t blocks = static_cast<uint32_t>(b.scores.blocks), heads = static_cast<uint32_t>(shape_.heads);
  const double tau = goal.value * goal.value;
  // Straight to logarithms where that does; the device finds out, and scores again where it does not.
  const bool always = kind_ != kInt4 || shape_.softcap > 0;
  if (!always) score(b, q, exact, true, false);
  score(b, q, exact, false, always);
  launch(runtime_, "find_references", find_references, dim3(heads), dim3(32), 0, shape_, b.scores, exact, b.refs, b.flags, always);
  launch(runtime_, "fold_scores", fold_scores, dim3(blocks, heads), dim3(kScanThreads), 0, shape_, b.scores, b.refs, b.flags, always);
  launch(runtime_, "find_offsets", find_offsets, dim3(heads), dim3(32), 0, shape_, b.scores, exact, b.refs, tau, b.offsets, b.draw.squares);
  const dim3 grid(blocks, static_cast<uint32_t>(shape_.kv_heads));
  launch(runtime_, "draw_keys", draw_keys, grid, dim3(kScanThreads), 0, shape_, b.scores, b.offsets, goal.draw, b.draw);
  launch(runtime_, "place_hits", place_hits, grid, dim3(kScanThreads), 0, shape_, b.draw, hits, static_cast<float>(tau));
}

void DeviceFlat::select(const Buffers& b, const HitsOut& hits, const FlatGoal& goal, const float* q) {
  const uint32_t blocks = static_cast<uint32_t>(b.scores.blocks), heads = static_cast<uint32_t>(shape_.heads);
  const dim3 grid(blocks, heads), threads(kScanThreads);
  const int32_t k = static_cast<int32_t>(std::min(goal.value, static_cast<double>(searchable_)));
  const bool noisy = goal.sample_tail && k < searchable_;
  if (goal.sample_tail) {
    score(b, q, nullptr, false, true);
  } else {
    launch(runtime_, "scan_rows", scan_rows, dim3(blocks, static_cast<uint32_t>(shape_.kv_heads)), threads, 0, shape_, row_table(), begin_,
           q, b.scores, false);
  }
  const float* priorities = b.scores.scores;
  if (noisy) {
    launch(runtime_, "add_noise", add_noise, grid, threads, 0, shape_, b.scores, b.priorities, goal.draw, begin_);
    priorities = b.priorities;
  }
  // Of a sample, the next best key sets the weights and is dropped.
  const int32_t dropped = noisy ? 1 : 0;
  launch(runtime_, "begin_selection", begin_selection, dim3(heads), dim3(256), 0, b.selections, b.histograms, k + dropped);
  find_thresholds(runtime_, priorities, b.scores.stride, searchable_, shape_.heads, b.selections, b.histograms);
  launch(runtime_, "count_selected", count_selected, grid, threads, 0, priorities, b.scores.stride, searchable_, b.selections, b.selected,
         b.scores.blocks);
  launch(runtime_, "place_selected", place_selected, grid, threads, 0, priorities, noisy ? b.scores.scores : nullptr, b.scores.stride,
         searchable_, b.selections, b.selected, b.scores.blocks, dropped, hits);
}

int32_t DeviceFlat::find(const Buffers& b, const HitsOut& hits, const FlatGoal& goal, const float* q, const float* exact) {
  const int32_t rows = goal.by_error ? shape_.kv_heads : shape_.heads;
  runtime_.fill(b.flags, 0, sizeof(SearchFlags));
  const dim3 heads(static_cast<uint32_t>(shape_.heads));
  if (kind_ == kInt4) launch(runtime_, "prepare_queries", prepare_queries<true>, heads, dim3(128), 0, shape_, layout_, b.prepared, q, exact, b.flags);
  else launch(runtime_, "prepare_queries", prepare_queries<false>, heads, dim3(128), 0, shape_, layout_, b.prepared, q, exact, b.flags);
  if (searchable_ == 0) {
    runtime_.fill(hits.counts, 0, sizeof(int32_t) * static_cast<size_t>(rows));
    runtime_.fill(hits.errors, 0, sizeof(float) * static_cast<size_t>(rows));
    return rows;
  }
  if (!chunks_.empty()) {
    const int32_t chunks = static_cast<int32_t>(chunks_.size());
    launch(runtime_, "base_scores", base_scores, dim3(blocks_of(chunks, 8), heads.x), dim3(256), 0, shape_, layout_, b.prepared, q, b.chunks, chunks);
  }
  if (!goal.by_error) {
    select(b, hits, goal, q);
  } else if (goal.value * goal.value < 1e-30) {
    // So small an error is none in the floats that carry it.
    launch(runtime_, "take_all", take_all, dim3(blocks_of(searchable_, 256), static_cast<uint32_t>(rows)), dim3(256), 0, hits, searchable_);
  } else {
    sample(b, hits, goal, q, exact);
  }
  return rows;
}

std::vector<int32_t> DeviceFlat::finish(const Buffers& b, const HitsOut& hits, int32_t rows, const FlatGoal& goal, FlatReport& report) {
  SearchFlags flags;
  runtime_.download(&flags, b.flags, sizeof flags);
  if (flags.bad_query != 0) fail(KVASIR_ARGUMENT, "Cannot search: the query is not finite");
  if (flags.bad_exact != 0) {
    fail(KVASIR_ARGUMENT, "Cannot search: log-sum-exp of head %d is not finite", flags.bad_exact - 1);
  }
  std::vector<int32_t> counts(static_cast<size_t>(rows));
  runtime_.download(counts.data(), hits.counts, counts.size() * sizeof(int32_t));
  const bool best = !goal.by_error && !goal.sample_tail, by_rows = best || kind_ == kNone;
  const double keys = static_cast<double>(searchable_) * shape_.kv_heads;
  report = FlatReport();
  report.certificate = best ? 3 : 2;
  report.keys_scored = keys;
  for (const int32_t count : counts) report.keys_kept += count;
  const int32_t dtype = rows_.segments().empty() ? KVASIR_F32 : rows_.segments().front()->dtype();
  report.bytes_read = keys * (by_rows ? shape_.dim * element_size(dtype) : code_bytes());
  return counts;
}

bool DeviceFlat::search(const FlatHits& to, const FlatGoal& goal, const float* q, const float* exact, FlatReport& report) {
  const Buffers b = place(to.capacity);
  const size_t heads = static_cast<size_t>(shape_.heads);
  runtime_.transfer(b.q, q, heads * static_cast<size_t>(shape_.dim) * sizeof(float));
  runtime_.transfer(b.exact, exact, heads * sizeof(float));
  const int32_t rows = find(b, b.list, goal, b.q, b.exact);
  int32_t most = 0;
  for (const int32_t count : finish(b, b.list, rows, goal, report)) most = std::max(most, count);
  runtime_.transfer(to.counts, b.list.counts, static_cast<size_t>(rows) * sizeof(int32_t));
  runtime_.transfer(to.errors, b.list.errors, static_cast<size_t>(rows) * sizeof(float));
  if (most > to.capacity) return false;
  const size_t bytes = static_cast<size_t>(rows) * static_cast<size_t>(to.capacity) * 4;
  if (bytes > 0) {
    runtime_.transfer(to.tokens, b.list.tokens, bytes);
    runtime_.transfer(to.bias, b.list.bias, bytes);
  }
  return true;
}

void DeviceFlat::attend(const AttentionPart& out, const FlatGoal& goal, const float* q, const float* exact, FlatReport* report) {
  if (!reaches_rows()) fail(KVASIR_UNSUPPORTED, "Cannot attend to rows: they lie on the host, search and attend to hits there");
  const int32_t most = goal.by_error ? searchable_ : static_cast<int32_t>(std::min(goal.value, static_cast<double>(searchable_)));
  const Buffers b = place(most);
  const int32_t rows = find(b, b.list, goal, q, exact);
  Attention call;
  call.segments = segments();
  call.dtype = call.segments.empty() ? KVASIR_F32 : rows_.segments().front()->dtype();
  call.kv_heads = shape_.kv_heads, call.head_dim = shape_.dim;
  call.start = begin_, call.end = end_;
  call.scale = shape_.scale, call.softcap = shape_.softcap;
  call.n = 1, call.heads = shape_.heads;
  call.q = q, call.o = out.o, call.lse = out.lse;
  attend_hits(attention_, call, {rows, most, b.list.tokens, b.list.counts, b.list.bias});
  if (report != nullptr) finish(b, b.list, rows, goal, *report);
}

}  // namespace kvasir
