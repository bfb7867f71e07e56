// The first stage of a threshold sample: every key is scored, and drawn from while its score lies in L1.
#include <cmath>
#include <limits>

#include "draw_offsets.h"
#include "prefetch.h"
#include "sampling.h"

namespace kvasir {

// Scratch: a chunk's logarithms and offsets, a piece's floats and their sums for every worker, and candidates.
void Sampling::place() {
  std::vector<Scratch>& scratch = *environment_.scratch;
  const size_t group = static_cast<size_t>(group_), chunk = logs_bytes() + group * (kPiece + kPad + kFoldSums) * sizeof(float);
  const size_t room = room_ = static_cast<size_t>(shape_.kv_heads * chunks_) * (kChunk + kSlack) + kSlack;
  m_.logs.resize(scratch.size());
  for (size_t w = 0; w < scratch.size(); w++) {
    m_.logs[w] = static_cast<int16_t*>(scratch[w].get(w == 0 ? chunk + room * (6 + 4 * group) : chunk));
  }
  keys_ = reinterpret_cast<int32_t*>(reinterpret_cast<char*>(m_.logs[0]) + chunk);
  tops_ = reinterpret_cast<int16_t*>(keys_ + room);
  found_logs_ = tops_ + room;
  refined_ = found_logs_ + room * group;
}

// What scoring a key as floats reads.
double Sampling::key_bytes() const {
  if (codes_.kind() != Codes::kNone) return codes_.key_bytes();
  return rows_.segments().empty() ? 0 : static_cast<double>(rows_.segments().front()->row_bytes());
}

// Logarithms are relative to what is attended exactly; false where that is nothing.
bool Sampling::known_references() {
  bool known = true;
  for (size_t h = 0; h < m_.ref.size(); h++) {
    m_.ref[h] = exact_of(h);
    known = known && std::isfinite(m_.ref[h]);
  }
  return known;
}

// Or to the largest score, where that is more: one scan only to find it.
void Sampling::find_references() {
  each_chunk([&](int32_t head, int32_t chunk, int32_t n, size_t&, int32_t worker) {
    float* const most = part(m_.parts, head, chunk);
    std::fill(most, most + group_, -std::numeric_limits<float>::infinity());
    for (int32_t from = 0; from < n; from += kPiece) {
      const int32_t some = std::min(kPiece, n - from);
      const float* scores = score(head, chunk * kChunk + from, some, m_.logs[static_cast<size_t>(worker)]);
      for (int32_t g = 0; g < group_; g++, scores += kPiece + kPad) most[g] = std::max(most[g], *std::max_element(scores, scores + some));
    }
  });
  for (size_t h = 0; h < m_.ref.size(); h++) {
    m_.ref[h] = exact_of(h);
    for (size_t c = 0; c < static_cast<size_t>(chunks_); c++) m_.ref[h] = std::max(m_.ref[h], m_.parts[c * m_.sums.size() + h]);
  }
  scored_ += static_cast<double>(count_) * shape_.kv_heads;
  read_ += static_cast<double>(count_) * shape_.kv_heads * key_bytes();
}

// Scores of keys [from, from + n) of any codes, or by the rows themselves, in the floats behind a worker's logarithms:
// [group][kPiece + kPad].
float* Sampling::score(int32_t head, int32_t from, int32_t n, int16_t* logs) {
  float* const scores = floats(logs);
  codes_.score_all(prepared(head), rows_, from, from + n, scores, kPiece + kPad, behind(head));
  for (int32_t g = 0; g < group_ && shape_.softcap > 0; g++) {
    float* const row = scores + static_cast<size_t>(g) * (kPiece + kPad);
    for (int32_t i = 0; i < n; i++) row[i] = shape_.softcap * std::tanh(row[i] / shape_.softcap);
  }
  return scores;
}

// What p needs to know, the sum over all keys, is known at the end only; what is known of it by then makes p too large, so that
// candidates are more than what is kept and no kept key is missing. 4-bit codes are scored by their coarse plane, and candidates
// by both. False where a score was so far above the references that sums are no numbers.
bool Sampling::scan_and_draw() {
  for (int32_t head = 0; head < shape_.kv_heads; head++) {
    for (int32_t g = 0; g < group_; g++) so_far(head, g).store(0, std::memory_order_relaxed);
  }
  each_chunk([&](int32_t head, int32_t chunk, int32_t n, size_t& room, int32_t worker) {
    int16_t* const logs = m_.logs[static_cast<size_t>(worker)];
    float* const sums = part(m_.parts, head, chunk);
    int16_t* const offsets = logs + static_cast<size_t>(group_) * (kChunk + kPad);
    for (int32_t g = 0; g < group_; g++) {
      const size_t h = static_cast<size_t>(head * group_ + g);
      const int16_t offset = draw_offset_so_far(so_far(head, g).load(std::memory_order_relaxed), exact_of(h), m_.ref[h], tau_);
      offsets[g] = for_candidates(offset, head, chunk, g);
      sums[g] = 0;
    }
    int32_t candidates;
    FineRows fine{};
    if (planes_) {
      fine = {codes_.fine(names_[head], chunk), codes_.fine_bytes()};
      candidates = sweep_planes(room, head, chunk, n, logs, offsets, sums, &fine);
    } else {
      candidates = sweep_floats(room, head, chunk, n, logs, offsets, sums);
    }
    start(head, chunk) = room;
    found(head, chunk) = candidates;
    if (planes_) {
      fetch_fine(head, chunk, fine.fetched);
      int32_t& before = m_.unrefined[static_cast<size_t>(worker)];
      if (before >= 0) refine(before);
      before = head * chunks_ + chunk;
    }
    room += static_cast<size_t>(candidates);
    for (int32_t g = 0; g < group_; g++) {
      // What two threads add at once may be lost, which leaves less than the sum so far; an exchange would wait for all stores before it.
      std::atomic<float>& sum = so_far(head, g);
      sum.store(sum.load(std::memory_order_relaxed) + sums[g], std::memory_order_relaxed);
    }
  }, [&](int32_t worker) {
    int32_t& last = m_.unrefined[static_cast<size_t>(worker)];
    if (last >= 0) refine(last);
    last = -1;
  });
  scored_ += static_cast<double>(count_) * shape_.kv_heads;
  read_ += static_cast<double>(count_) * shape_.kv_heads * (planes_ ? codes_.kept_key_bytes() : key_bytes());
  return add_parts();
}

// Fine rows of a chunk's candidates lie anywhere in their plane: they are on their way while the next chunk is scanned. A row within one
// line asks for it twice, which is no mistake: AMD's caches ignore some of what they are asked for while they are busy (Zen 5, once: a
// sample takes 1.06, from L3 as well; loads in place of that: 1.06; three times: no change).
void Sampling::fetch_fine(int32_t head, int32_t chunk, int32_t first) {
  const int32_t* keys = keys_ + start(head, chunk);
  const uint8_t* fine = codes_.fine(names_[head], chunk);
  const size_t bytes = codes_.fine_bytes();
  const int32_t n = found(head, chunk);
  for (int32_t i = first; i < n; i++) {
    const uint8_t* row = fine + static_cast<size_t>(keys[i]) * bytes;
    prefetch_line(row);
    prefetch_line(row + bytes - 1);
  }
}

// Scores a chunk's candidates by both planes.
void Sampling::refine(int32_t place) {
  const int32_t head = place / chunks_, chunk = place % chunks_;
  const size_t at = start(head, chunk);
  kernels_.refine(refined_ + at, candidates_at(at), found(head, chunk), codes_.kept_shape(), prepared(head).codes(),
                  m_.gains.data() + head * group_, codes_.blocks(names_[head], chunk), codes_.fine(names_[head], chunk));
}

// Scores one chunk by the coarse plane of 4-bit codes, as logarithms, and draws its candidates; returns how many.
int32_t Sampling::sweep_planes(size_t room, int32_t head, int32_t chunk, int32_t n, int16_t* logs, const int16_t* offsets, float* sums,
                               FineRows* fine) {
  constexpr size_t stride = kChunk + kPad;
  const CodeShape& shape = codes_.kept_shape();
  const CodeQuery& query = prepared(head).codes();
  const float* base = prepared(head).base(chunk);
  const int32_t blocks = n / kBlockKeys, block = chunk * (kChunk / kBlockKeys);
  const uint8_t* codes = codes_.blocks(names_[head], chunk);
  const ScanAhead ahead = codes_.ahead(names_[head], chunk, behind(head));
  const uint32_t key = draw_keys(head).first;
  int32_t candidates = 0;
  for (int32_t first = 0; first < group_; first += kMostGroup) {
    CodeQuery some = query;
    some.group = std::min(group_ - first, kMostGroup);
    some.rows += static_cast<size_t>(first) * query.row_bytes;
    some.coarse += first * shape.bands;
    some.tables += static_cast<size_t>(first) * static_cast<size_t>(shape.bands) * kernels_.table_bytes;
    float gains[kMostGroup], bases[kMostGroup], ignored[kMostGroup] = {};
    for (int32_t g = 0; g < some.group; g++) {
      gains[g] = query.coarse_factors[first + g] * kLogUnit;
      bases[g] = (base[first + g] - m_.ref[static_cast<size_t>(head * group_ + first + g)]) * kLogUnit + kLogOne;
    }
    int16_t* to = logs + static_cast<size_t>(first) * stride;
    if (group_ <= kMostGroup) {
      candidates = kernels_.sweep(candidates_at(room), to, stride, shape, some, gains, bases, offsets, codes, block, blocks, ahead, key, sums, fine);
    } else {
      kernels_.scan(to, stride, shape, some, gains, bases, codes, blocks, ahead, sums + first);
    }
    if (n % kBlockKeys == 0) continue;
    // The last block has room for keys that are not there.
    to += blocks * kBlockKeys;
    kernels_.scan(to, stride, shape, some, gains, bases, codes + static_cast<size_t>(blocks) * shape.block_bytes, 1,
                  ScanAhead(), ignored);
    for (int32_t g = 0; g < some.group; g++, to += stride) {
      for (int32_t i = 0; i < n % kBlockKeys; i++) sums[first + g] += widen_bfloat(static_cast<uint16_t>(to[i]));
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

// Whole blocks of int8 codes in one pass, what sweep_floats does in several; returns how many candidates there are. folded: as fold's sums.
int32_t Sampling::sweep_bytes(size_t room, int32_t head, int32_t chunk, int32_t blocks, int16_t* logs, const int16_t* offsets, float* folded) {
  const PreparedQuery& query = prepared(head);
  return kernels_.sweep_bytes(candidates_at(room), logs, kChunk + kPad, codes_.kept_shape(), query.codes(), query.base(chunk),
                              m_.ref.data() + head * group_, offsets, codes_.blocks(names_[head], chunk), chunk * (kChunk / kBlockKeys),
                              blocks, codes_.ahead(names_[head], chunk, behind(head)), draw_keys(head).first, folded);
}

// What sweep_planes does, by scores as floats, a piece at a time: right for any codes.
int32_t Sampling::sweep_floats(size_t room, int32_t head, int32_t chunk, int32_t n, int16_t* logs, const int16_t* offsets, float* sums) {
  constexpr size_t stride = kChunk + kPad;
  const uint32_t key = draw_keys(head).first;
  float* const folded = floats(logs) + static_cast<size_t>(group_) * (kPiece + kPad);
  std::fill(folded, folded + group_ * kFoldSums, 0.0f);
  int32_t candidates = 0, begin = 0;
  if (in_one_pass(head)) {
    candidates = sweep_bytes(room, head, chunk, n / kBlockKeys, logs, offsets, folded);
    begin = n / kBlockKeys * kBlockKeys;
  }
  for (int32_t from = begin; from < n; from += kPiece) {
    const int32_t some = std::min(kPiece, n - from), blocks = (some + kBlockKeys - 1) / kBlockKeys;
    const float* scores = score(head, chunk * kChunk + from, some, logs);
    for (int32_t g = 0; g < group_; g++, scores += kPiece + kPad) {
      int16_t* const row = logs + static_cast<size_t>(g) * stride;
      kernels_.fold(row, scores, some, m_.ref[static_cast<size_t>(head * group_ + g)], folded + g * kFoldSums);
      std::fill(row + some, row + blocks * kBlockKeys, int16_t{0});
    }
    const Candidates to = candidates_at(room + static_cast<size_t>(candidates));
    const int32_t more = kernels_.draw(to, logs, stride, offsets, group_, (chunk * kChunk + from) / kBlockKeys, blocks, key);
    for (int32_t i = 0; i < more; i++) to.keys[i] += from;
    candidates += more;
  }
  for (int32_t i = 0; i < group_ * kFoldSums; i++) sums[i / kFoldSums] += folded[i];
  return candidates;
}

}  // namespace kvasir
