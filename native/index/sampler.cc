#include "sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "draw.h"
#include "draw_offsets.h"
#include "sample_kernels.h"

namespace kvasir {
namespace {

constexpr int32_t kChunk = Codes::kChunkKeys;
// Rows of logarithms that start at the same place of a page would fight for the same lines of L1.
constexpr size_t kPad = 32;
// Candidates may be followed by that many entries that do not count.
constexpr int32_t kSlack = 64;

float log_value(int32_t log) {
  const uint32_t bits = static_cast<uint32_t>(log) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

class Sampling {
 public:
  // shape: of the KV heads named alone; their places in it are what `head` means here.
  Sampling(const Environment& environment, const LayerShape& shape, const Codes& codes, const Rows& rows, int32_t count,
           const int32_t* kv_heads, const Query& query, SampleMemory& memory)
      : environment_(environment), shape_(shape), codes_(codes), names_(kv_heads), rows_(rows), query_(query),
        kernels_(*environment.isa->sample), count_(count), group_(shape.group()), chunks_((count + kChunk - 1) / kChunk),
        stride_(static_cast<size_t>(chunks_) * kChunk + kPad),
        tau_(query.goal.value * query.goal.value * (codes.kind() == Codes::kInt4 ? kPlanesTau : 1)), m_(memory) {
    const size_t heads = static_cast<size_t>(shape.heads), parts = static_cast<size_t>(chunks_);
    for (int32_t head = 0; head < shape.kv_heads; head++) codes_.fetch(names_[head]);
    place(0);
    m_.prepared.resize(static_cast<size_t>(shape.kv_heads));
    m_.gains.resize(heads), m_.ref.resize(heads), m_.sums.resize(heads), m_.offsets.resize(heads);
    if (m_.so_far.size() < heads) m_.so_far = std::vector<std::atomic<float>>(heads);
    m_.parts.resize(parts * heads), m_.squares.resize(parts * heads);
    m_.found.resize(parts * static_cast<size_t>(shape.kv_heads)), m_.starts.resize(m_.found.size());
    environment_.pool->run(shape.kv_heads, [&](int32_t head, int) {
      const float* q = query.q + static_cast<size_t>(names_[head] * group_ * shape.head_dim);
      PreparedQuery& prepared = m_.prepared[static_cast<size_t>(head)];
      codes_.prepare(prepared, names_[head], q, group_, shape.scale, 1, Codes::kPlain);
      for (int32_t g = 0; g < group_ && codes_.kind() == Codes::kInt4; g++) {
        m_.gains[static_cast<size_t>(head * group_ + g)] = prepared.codes().factors[g] * kLogUnit;
      }
    });
  }

  void run(const Hits& hits, Report& report) {
    const bool drawn = scan_and_draw() && sift();
    if (!drawn) scan_floats();
    set_offsets();
    each_chunk([&](int32_t head, int32_t chunk, int32_t n, size_t& room, int32_t) {
      const int16_t* offsets = m_.offsets.data() + head * group_;
      if (!drawn) {
        const int16_t* logs = logs_ + at_row(head * group_, chunk);
        list(head, chunk, room,
             kernels_.draw(candidates_at(room), logs, stride_, offsets, group_, chunk * (kChunk / kBlockKeys),
                           (n + kBlockKeys - 1) / kBlockKeys, draw_key(query_.goal.draw, names_[head])));
      }
      settle(head, chunk, offsets, drawn);
    });
    for (int32_t head = 0; head < shape_.kv_heads; head++) finish(head, hits, report);
    report.keys_scored += static_cast<double>(count_) * shape_.kv_heads;
    report.bytes_read += drawn ? static_cast<double>(count_) * shape_.kv_heads * codes_.kept_key_bytes() + sifted_ * static_cast<double>(codes_.fine_bytes())
                               : static_cast<double>(count_) * shape_.kv_heads * key_bytes();
  }

 private:
  static constexpr int32_t kMostGroup = 8;  // heads that one scan takes

  // Scratch: a chunk's logarithms and offsets for every worker, candidates, and `more` bytes behind them.
  char* place(size_t more) {
    std::vector<Scratch>& scratch = *environment_.scratch;
    const size_t chunk = (static_cast<size_t>(group_) * (kChunk + kPad + 1) * 2 + 63) / 64 * 64;
    const size_t room = room_ = static_cast<size_t>(shape_.kv_heads * chunks_) * (kChunk + kSlack) + kSlack;
    const size_t bytes = chunk + room * (6 + 4 * static_cast<size_t>(group_));
    m_.logs.resize(scratch.size());
    for (size_t w = 0; w < scratch.size(); w++) {
      m_.logs[w] = static_cast<int16_t*>(scratch[w].get(w == 0 ? bytes + more : chunk));
    }
    char* at = reinterpret_cast<char*>(m_.logs[0]) + chunk;
    keys_ = reinterpret_cast<int32_t*>(at);
    tops_ = reinterpret_cast<int16_t*>(keys_ + room);
    found_logs_ = tops_ + room;
    refined_ = found_logs_ + room * static_cast<size_t>(group_);
    return reinterpret_cast<char*>(refined_ + room * static_cast<size_t>(group_));
  }

  // Calls body(head, chunk, keys, room, worker); one task takes neighbouring chunks of a head, and `room` is where their
  // candidates go, one chunk's behind the other's. What is found does not depend on who takes what.
  template <class F>
  void each_chunk(F&& body) {
    const int32_t threads = environment_.pool->threads(), all = shape_.kv_heads * chunks_;
    const int32_t some = threads == 1 ? chunks_ : std::clamp(all / (6 * threads), 1, chunks_), tasks = (chunks_ + some - 1) / some;
    environment_.pool->run(shape_.kv_heads * tasks, [&](int32_t task, int32_t worker) {
      const int32_t head = task / tasks, first = task % tasks * some, end = std::min(chunks_, first + some);
      size_t room = static_cast<size_t>(head * chunks_ + first) * (kChunk + kSlack);
      for (int32_t chunk = first; chunk < end; chunk++) {
        body(head, chunk, std::min(kChunk, count_ - chunk * kChunk), room, worker);
      }
    });
  }
  size_t at_row(int32_t row, int32_t chunk) const {
    return static_cast<size_t>(row) * stride_ + static_cast<size_t>(chunk) * kChunk;
  }
  Candidates candidates_at(size_t room) const { return {keys_ + room, found_logs_ + room, room_}; }
  size_t& start(int32_t head, int32_t chunk) { return m_.starts[static_cast<size_t>(head * chunks_ + chunk)]; }
  int32_t& found(int32_t head, int32_t chunk) { return m_.found[static_cast<size_t>(head * chunks_ + chunk)]; }
  float exact_of(size_t h) const {
    const size_t group = static_cast<size_t>(group_);
    return query_.exact[static_cast<size_t>(names_[h / group]) * group + h % group];
  }
  // Of a chunk, one number a head of the group.
  template <class T>
  T* part(std::vector<T>& of, int32_t head, int32_t chunk) {
    return of.data() + static_cast<size_t>(chunk) * m_.sums.size() + static_cast<size_t>(head * group_);
  }
  double key_bytes() const {
    if (codes_.kind() != Codes::kNone) return codes_.key_bytes();
    return rows_.segments().empty() ? 0 : static_cast<double>(rows_.segments().front()->row_bytes());
  }

  void set_offsets() {
    for (size_t h = 0; h < m_.sums.size(); h++) {
      m_.offsets[h] = draw_offset(m_.sums[h], static_cast<double>(exact_of(h)), static_cast<double>(m_.ref[h]), tau_);
    }
  }
  int16_t margin(int16_t offset, int32_t head, int32_t chunk, int32_t g) const {
    return with_margin(offset, m_.prepared[static_cast<size_t>(head)].spread(chunk)[g]);
  }

  // Sums of parts in order; false where one is no number.
  bool add_parts() {
    bool finite = true;
    for (size_t h = 0; h < m_.sums.size(); h++) {
      m_.sums[h] = 0;
      for (size_t c = 0; c < static_cast<size_t>(chunks_); c++) m_.sums[h] += static_cast<double>(m_.parts[c * m_.sums.size() + h]);
      finite = finite && m_.sums[h] < 1e30;
    }
    return finite;
  }

  // Scores by the coarse plane of 4-bit codes go straight to logarithms, which are drawn from while they lie in L1; what is drawn
  // is scored by both planes. The sum that p needs is known at the end only; what is known of it by then makes p too large, so that
  // candidates are more than what is kept and no kept key is missing. False where that cannot be: no reference, scores far above
  // it, or a softcap.
  bool scan_and_draw() {
    if (codes_.kind() != Codes::kInt4 || shape_.softcap != 0) return false;
    double reach = 0, far = 0;
    for (const PreparedQuery& p : m_.prepared) reach = std::max(reach, p.reach());
    for (size_t h = 0; h < m_.ref.size(); h++) {
      m_.ref[h] = exact_of(h);
      far = std::max(far, std::fabs(static_cast<double>(m_.ref[h])));
      m_.so_far[h].store(0, std::memory_order_relaxed);
    }
    if (!(reach + far < 1e6)) return false;
    each_chunk([&](int32_t head, int32_t chunk, int32_t n, size_t& room, int32_t worker) {
      int16_t* logs = m_.logs[static_cast<size_t>(worker)];
      float* sums = part(m_.parts, head, chunk);
      int16_t* offsets = logs + static_cast<size_t>(group_) * (kChunk + kPad);
      for (int32_t g = 0; g < group_; g++) {
        const float known = m_.so_far[static_cast<size_t>(head * group_ + g)].load(std::memory_order_relaxed);
        offsets[g] = margin(draw_offset_so_far(known, tau_), head, chunk, g);
        sums[g] = 0;
      }
      const int32_t candidates = sweep_chunk(room, head, chunk, n, logs, offsets, sums);
      kernels_.refine(refined_ + room, candidates_at(room), candidates, codes_.kept_shape(), m_.prepared[static_cast<size_t>(head)].codes(),
                      m_.gains.data() + head * group_, codes_.blocks(names_[head], chunk), codes_.fine(names_[head], chunk));
      list(head, chunk, room, candidates);
      for (int32_t g = 0; g < group_; g++) {
        std::atomic<float>& so_far = m_.so_far[static_cast<size_t>(head * group_ + g)];
        float before = so_far.load(std::memory_order_relaxed);
        while (!so_far.compare_exchange_weak(before, before + sums[g], std::memory_order_relaxed)) {
        }
      }
    });
    return add_parts();
  }

  // Candidates by the sum of all coarse scores, whose threads and timing are forgotten here; and from them the sum of whole ones,
  // each over its chance to be among them. What is kept is drawn by the smaller of what either says (never more often than it became a
  // candidate), so that its probability is known. False where a sum is no number.
  bool sift() {
    set_offsets();
    each_chunk([&](int32_t head, int32_t chunk, int32_t, size_t&, int32_t worker) {
      int16_t* const offsets = m_.logs[static_cast<size_t>(worker)];
      float* const sums = part(m_.parts, head, chunk);
      for (int32_t g = 0; g < group_; g++) {
        offsets[g] = margin(m_.offsets[static_cast<size_t>(head * group_ + g)], head, chunk, g);
        sums[g] = 0;
      }
      const size_t at = start(head, chunk);
      found(head, chunk) = kernels_.sift(candidates_at(at), refined_ + at, tops_ + at, offsets, group_, chunk * kChunk, count_,
                                         found(head, chunk), draw_keys(head), sums);
    });
    for (const int32_t some : m_.found) sifted_ += some;
    return add_parts();
  }

  // Scores one chunk of 4-bit codes and draws its candidates; returns how many.
  int32_t sweep_chunk(size_t room, int32_t head, int32_t chunk, int32_t n, int16_t* logs, const int16_t* offsets, float* sums) {
    constexpr size_t stride = kChunk + kPad;
    const CodeShape& shape = codes_.kept_shape();
    const CodeQuery& query = m_.prepared[static_cast<size_t>(head)].codes();
    const float* base = m_.prepared[static_cast<size_t>(head)].base(chunk);
    const int32_t blocks = n / kBlockKeys, block = chunk * (kChunk / kBlockKeys);
    const uint8_t* codes = codes_.blocks(names_[head], chunk);
    const bool more_chunks = (chunk + 1) * kChunk < count_, more_heads = head + 1 < shape_.kv_heads;
    const uint8_t* next = more_chunks ? codes_.blocks(names_[head], chunk + 1)
                          : more_heads ? codes_.blocks(names_[head + 1], 0) : nullptr;
    const uint32_t key = draw_key(query_.goal.draw, names_[head]);
    int32_t candidates = 0;
    for (int32_t first = 0; first < group_; first += kMostGroup) {
      CodeQuery some = query;
      some.group = std::min(group_ - first, kMostGroup);
      some.rows += static_cast<size_t>(first) * query.row_bytes;
      some.coarse += first * shape.bands;
      float gains[kMostGroup], bases[kMostGroup], ignored[kMostGroup] = {};
      for (int32_t g = 0; g < some.group; g++) {
        gains[g] = 4 * query.factors[first + g] * kLogUnit;
        bases[g] = (base[first + g] - m_.ref[static_cast<size_t>(head * group_ + first + g)]) * kLogUnit + kLogOne;
      }
      int16_t* to = logs + static_cast<size_t>(first) * stride;
      if (group_ <= kMostGroup) {
        candidates = kernels_.sweep(candidates_at(room), to, stride, shape, some, gains, bases, offsets, codes, block, blocks, next, key, sums);
      } else {
        kernels_.scan(to, stride, shape, some, gains, bases, codes, blocks, next, sums + first);
      }
      if (n % kBlockKeys == 0) continue;
      // The last block has room for keys that are not there.
      to += blocks * kBlockKeys;
      kernels_.scan(to, stride, shape, some, gains, bases, codes + static_cast<size_t>(blocks) * shape.block_bytes, 1, nullptr,
                    ignored);
      for (int32_t g = 0; g < some.group; g++, to += stride) {
        for (int32_t i = 0; i < n % kBlockKeys; i++) sums[first + g] += log_value(to[i]);
        std::fill(to + n % kBlockKeys, to + kBlockKeys, int16_t{0});
      }
    }
    if (group_ > kMostGroup) candidates = kernels_.draw(candidates_at(room), logs, stride, offsets, group_, block, blocks, key);
    if (n % kBlockKeys == 0) return candidates;
    const Candidates last = candidates_at(room + static_cast<size_t>(candidates));
    const int32_t more = kernels_.draw(last, logs + blocks * kBlockKeys, stride, offsets, group_, block + blocks, 1, key);
    for (int32_t i = 0; i < more; i++) last.keys[i] += blocks * kBlockKeys;
    return candidates + more;
  }

  // Scores of any codes, or of the rows themselves, as floats first: right for all, and slower.
  void scan_floats() {
    const size_t rows = static_cast<size_t>(shape_.heads) * stride_;
    float* const floats = reinterpret_cast<float*>(place(rows * 6 + 64));
    logs_ = reinterpret_cast<int16_t*>(floats + rows);
    each_chunk([&](int32_t head, int32_t chunk, int32_t n, size_t&, int32_t) {
      float* scores = floats + at_row(head * group_, chunk);
      codes_.score_all(m_.prepared[static_cast<size_t>(head)], rows_, chunk * kChunk, chunk * kChunk + n, scores, stride_);
      for (int32_t g = 0; g < group_; g++, scores += stride_) {
        float most = -std::numeric_limits<float>::infinity();
        for (int32_t i = 0; i < n; i++) {
          if (shape_.softcap > 0) scores[i] = shape_.softcap * std::tanh(scores[i] / shape_.softcap);
          most = scores[i] > most ? scores[i] : most;
        }
        part(m_.parts, head, chunk)[g] = most;
      }
    });
    for (size_t h = 0; h < m_.ref.size(); h++) {
      m_.ref[h] = exact_of(h);
      for (size_t c = 0; c < static_cast<size_t>(chunks_); c++) m_.ref[h] = std::max(m_.ref[h], m_.parts[c * m_.sums.size() + h]);
    }
    each_chunk([&](int32_t head, int32_t chunk, int32_t n, size_t&, int32_t) {
      for (int32_t g = 0; g < group_; g++) {
        const size_t at = at_row(head * group_ + g, chunk);
        part(m_.parts, head, chunk)[g] = kernels_.fold(logs_ + at, floats + at, n, m_.ref[static_cast<size_t>(head * group_ + g)]);
        for (int32_t i = n; i % kBlockKeys != 0; i++) logs_[at + static_cast<size_t>(i)] = 0;
      }
    });
    add_parts();
  }

  // `candidates` of a chunk lie at `room`: now they are the chunk's.
  void list(int32_t head, int32_t chunk, size_t& room, int32_t candidates) {
    start(head, chunk) = room;
    found(head, chunk) = candidates;
    room += static_cast<size_t>(candidates);
  }

  // What is kept of a chunk's candidates stays where they were, numbered from key 0 on.
  void settle(int32_t head, int32_t chunk, const int16_t* offsets, bool sifted) {
    const size_t at = start(head, chunk);
    double* squares = part(m_.squares, head, chunk);
    std::fill(squares, squares + group_, 0.0);
    found(head, chunk) = kernels_.settle(candidates_at(at), tops_ + at, offsets, group_, chunk * kChunk, count_,
                                         found(head, chunk), draw_keys(head), sifted, squares);
  }

  DrawKeys draw_keys(int32_t head) const {
    const uint32_t key = draw_key(query_.goal.draw, names_[head]);
    return {key, lowbias32(key ^ 0x5bd1e995u)};
  }

  void finish(int32_t head, const Hits& hits, Report& report) {
    constexpr float kStep = 0.6931471805599453f / 128;
    int32_t total = 0;
    for (int32_t c = 0; c < chunks_; c++) total += found(head, c);
    const int32_t row = names_[head];
    hits.counts[row] = total;
    report.keys_kept += total;
    const bool fits = total <= hits.capacity;
    int32_t* tokens = hits.tokens + static_cast<size_t>(row) * static_cast<size_t>(fits ? hits.capacity : 0);
    float* bias = hits.bias + static_cast<size_t>(row) * static_cast<size_t>(fits ? hits.capacity : 0);
    for (int32_t c = 0; c < chunks_ && fits; c++) {
      const int32_t* keys = keys_ + start(head, c);
      const int16_t* tops = tops_ + start(head, c);
      const int32_t n = found(head, c);
      for (int32_t i = 0; i < n; i++) {
        tokens[i] = codes_.begin() + keys[i];
        bias[i] = static_cast<float>(std::max(0, kDrawOne - tops[i])) * kStep;
      }
      tokens += n, bias += n;
    }
    hits.errors[row] = estimate(head);
  }

  // Root of sum (1 - p) w^2 over what was kept, w = exp(s) / (Z p), as if values had the output's norm; the worst head's.
  float estimate(int32_t head) {
    double worst = 0;
    for (int32_t g = 0; g < group_; g++) {
      double squares = 0;
      for (int32_t c = 0; c < chunks_; c++) squares += part(m_.squares, head, c)[g];
      worst = std::max(worst, squares);
    }
    return static_cast<float>(tau_ * std::sqrt(worst));
  }

  const Environment& environment_;
  const LayerShape& shape_;
  const Codes& codes_;
  const int32_t* names_;  // KV heads by place
  const Rows& rows_;
  const Query& query_;
  const SampleKernels& kernels_;
  int32_t count_, group_, chunks_;
  size_t stride_, room_ = 0;
  double tau_;
  SampleMemory& m_;
  int32_t* keys_ = nullptr;        // [KV heads][chunks * (kChunk + kSlack)]: candidates, then what is kept
  int16_t* tops_ = nullptr;        // beside them: logarithms of p * 2^16
  int16_t* found_logs_ = nullptr;  // [group][KV heads][chunks * (kChunk + kSlack)]
  int16_t* refined_ = nullptr;     // the same, by both planes of 4-bit codes
  double sifted_ = 0;              // candidates by the offsets that hold
  int16_t* logs_ = nullptr;        // [query heads][stride], where they had to wait for the sum
};

// An error of 0: everything is kept.
void take_all(const int32_t* kv_heads, int32_t num_heads, int32_t begin, int32_t count, const Hits& hits, Report& report) {
  for (int32_t h = 0; h < num_heads; h++) {
    const int32_t head = kv_heads[h];
    hits.counts[head] = count;
    hits.errors[head] = 0;
    for (int32_t i = 0; i < count && count <= hits.capacity; i++) {
      const size_t at = static_cast<size_t>(head) * static_cast<size_t>(hits.capacity) + static_cast<size_t>(i);
      hits.tokens[at] = begin + i;
      hits.bias[at] = 0;
    }
    report.keys_kept += count;
  }
}

}  // namespace

void sample_by_error(const Environment& environment, const LayerShape& shape, const Codes& codes, const Rows& rows,
                     int32_t count, const int32_t* kv_heads, int32_t num_heads, const Query& query, const Hits& hits,
                     Report& report, SampleMemory& memory) {
  // So small an error is none in the floats that carry it.
  if (count == 0 || query.goal.value * query.goal.value < 1e-30) {
    return take_all(kv_heads, num_heads, codes.begin(), count, hits, report);
  }
  LayerShape named = shape;
  named.kv_heads = num_heads;
  named.heads = num_heads * shape.group();
  Sampling(environment, named, codes, rows, count, kv_heads, query, memory).run(hits, report);
}

}  // namespace kvasir
