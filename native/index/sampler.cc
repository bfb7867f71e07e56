#include "sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "draw.h"
#include "sample_kernels.h"

namespace kvasir {
namespace {

constexpr int32_t kRange = 4 * Codes::kChunkKeys;  // keys of a task: borders depend on the number of keys only

float log_value(int32_t log) {
  const uint32_t bits = static_cast<uint32_t>(log) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Second stage: a survivor at log top < kDrawOne stays when 32 bits are below this. Its first stage let through the 16-bit
// uniforms below the float whose bits follow top's.
const uint32_t* second_stage() {
  static const auto table = [] {
    std::array<uint32_t, kDrawOne - kDrawLeast> t{};
    for (int32_t i = 0; i < kDrawOne - kDrawLeast; i++) {
      const double passed = std::min(65536.0, std::ceil(static_cast<double>(log_value(kDrawLeast + i + 1))));
      t[static_cast<size_t>(i)] = static_cast<uint32_t>(
          std::min(4294967295.0, std::exp2((kDrawLeast + i - kDrawOne) / 128.0) * 65536 / passed * 0x1p32));
    }
    return t;
  }();
  return table.data();
}

class Sampling {
 public:
  // shape: of the KV heads named alone; their places in it are what `head` means here.
  Sampling(const Environment& environment, const LayerShape& shape, const Codes& codes, const Rows& rows, int32_t count,
           const int32_t* kv_heads, const Query& query, SampleMemory& memory)
      : environment_(environment), shape_(shape), codes_(codes), names_(kv_heads), rows_(rows), query_(query), kernels_(*environment.isa->sample),
        count_(count), group_(shape.group()), ranges_((count + kRange - 1) / kRange),
        // Rows that start at the same place of a page would fight for the same lines of L1.
        stride_(static_cast<size_t>((count + 31) / 32 * 32) + 96), tau_(query.goal.value * query.goal.value),
        prepared_(memory.prepared), ref_(memory.ref), sums_(memory.sums),
        offsets_(memory.offsets), parts_(memory.parts), found_(memory.found) {
    const size_t heads = static_cast<size_t>(shape.heads), num_kv_heads = static_cast<size_t>(shape.kv_heads);
    const size_t room = stride_ + 64 * static_cast<size_t>(ranges_);  // survivors of a KV head, each range with its slack
    const bool fast = codes.kind() == Codes::kInt4 && shape.softcap == 0;
    bytes_ = heads * stride_ * 2 + num_kv_heads * room * 6 + 256;
    const size_t floats = heads * stride_ * 4;
    char* at = static_cast<char*>((*environment.scratch)[0].get(bytes_ + (fast ? 0 : floats)));
    place(at, fast ? nullptr : at + bytes_);
    prepared_.resize(num_kv_heads);
    ref_.resize(heads), sums_.resize(heads), offsets_.resize(heads);
    parts_.resize(static_cast<size_t>(ranges_) * heads);
    found_.resize(static_cast<size_t>(ranges_) * num_kv_heads);
    environment_.pool->run(shape.kv_heads, [&](int32_t head, int) {
      const float* q = query.q + static_cast<size_t>(names_[head] * group_ * shape.head_dim);
      codes_.prepare(prepared_[static_cast<size_t>(head)], names_[head], q, group_, shape.scale, 1, Codes::kPlain);
    });
  }

  void run(const Hits& hits, Report& report) {
    if (!scan_logs()) scan_floats();
    for (size_t h = 0; h < sums_.size(); h++) {
      const double exact = static_cast<double>(exact_of(h)), ref = static_cast<double>(ref_[h]);
      const double z = sums_[h] / static_cast<double>(kLogExcess) + (exact == -INFINITY ? 0 : std::exp(exact - ref));
      // Scores become logarithms of p * 2^16, rounded up.
      const double offset = std::ceil(16 * 128 - 128 * std::log2(tau_ * z));
      offsets_[h] = static_cast<int16_t>(std::clamp(offset, -32767.0, 32767.0));
    }
    each_range([&](int32_t head, int32_t range, int32_t) { draw(head, range); });
    for (int32_t head = 0; head < shape_.kv_heads; head++) finish(head, hits, report);
    report.keys_scored += static_cast<double>(count_) * shape_.kv_heads;
    report.bytes_read += static_cast<double>(count_) * shape_.kv_heads * key_bytes();
  }

 private:
  void place(char* at, char* floats) {
    const size_t heads = static_cast<size_t>(shape_.heads), kv_heads = static_cast<size_t>(shape_.kv_heads);
    const size_t room = stride_ + 64 * static_cast<size_t>(ranges_);
    logs_ = reinterpret_cast<int16_t*>(at);
    keys_ = reinterpret_cast<int32_t*>(at + heads * stride_ * 2);
    tops_ = reinterpret_cast<int16_t*>(keys_ + kv_heads * room);
    floats_ = reinterpret_cast<float*>(floats);
  }

  template <class F>
  void each_range(F&& body) {
    environment_.pool->run(shape_.kv_heads * ranges_, [&](int32_t task, int32_t) {
      const int32_t head = task / ranges_, range = task % ranges_;
      body(head, range, std::min(kRange, count_ - range * kRange));
    });
  }
  int16_t* logs(int32_t head, int32_t range) const {
    return logs_ + static_cast<size_t>(head * group_) * stride_ + static_cast<size_t>(range) * kRange;
  }
  float* floats(int32_t head, int32_t range) const {
    return floats_ + static_cast<size_t>(head * group_) * stride_ + static_cast<size_t>(range) * kRange;
  }
  float exact_of(size_t h) const {
    const size_t group = static_cast<size_t>(group_);
    return query_.exact[static_cast<size_t>(names_[h / group]) * group + h % group];
  }
  float* part(int32_t head, int32_t range) {
    return parts_.data() + static_cast<size_t>(range) * sums_.size() + static_cast<size_t>(head * group_);
  }
  size_t survivors_at(int32_t head, int32_t range) const {
    return static_cast<size_t>(head) * (stride_ + 64 * static_cast<size_t>(ranges_)) +
           static_cast<size_t>(range) * (kRange + 64);
  }
  double key_bytes() const {
    if (codes_.kind() != Codes::kNone) return codes_.key_bytes();
    return rows_.segments().empty() ? 0 : static_cast<double>(rows_.segments().front()->row_bytes());
  }

  // Sums of parts in order; false where one is no number.
  bool add_parts() {
    bool finite = true;
    for (size_t h = 0; h < sums_.size(); h++) {
      sums_[h] = 0;
      for (int32_t r = 0; r < ranges_; r++) sums_[h] += static_cast<double>(parts_[static_cast<size_t>(r) * sums_.size() + h]);
      finite = finite && sums_[h] < 1e30;
    }
    return finite;
  }

  // Scores of 4-bit codes straight to logarithms; false where that cannot be: no reference, scores far above it, or a softcap.
  bool scan_logs() {
    if (codes_.kind() != Codes::kInt4 || shape_.softcap != 0) return false;
    double reach = 0, far = 0;
    for (const PreparedQuery& p : prepared_) reach = std::max(reach, p.reach());
    for (size_t h = 0; h < ref_.size(); h++) {
      ref_[h] = exact_of(h);
      far = std::max(far, std::fabs(static_cast<double>(ref_[h])));
    }
    if (!(reach + far < 1e6)) return false;
    each_range([&](int32_t head, int32_t range, int32_t n) {
      float* sums = part(head, range);
      std::fill(sums, sums + group_, 0.0f);
      for (int32_t at = 0; at < n; at += Codes::kChunkKeys) {
        scan_chunk(head, range * (kRange / Codes::kChunkKeys) + at / Codes::kChunkKeys, std::min(Codes::kChunkKeys, n - at),
                   logs(head, range) + at, sums);
      }
    });
    return add_parts();
  }

  void scan_chunk(int32_t head, int32_t chunk, int32_t n, int16_t* out, float* sums) {
    const CodeShape& shape = codes_.shape();
    const CodeQuery& query = prepared_[static_cast<size_t>(head)].codes();
    const float* base = prepared_[static_cast<size_t>(head)].base(chunk);
    float gains[kMostGroup], bases[kMostGroup];
    for (int32_t first = 0; first < group_; first += kMostGroup) {
      CodeQuery some = query;
      some.group = std::min(group_ - first, kMostGroup);
      some.rows += static_cast<size_t>(first) * query.row_bytes;
      some.offsets += first * shape.bands;
      for (int32_t g = 0; g < some.group; g++) {
        gains[g] = query.factors[first + g] * kLogUnit;
        bases[g] = (base[first + g] - ref_[static_cast<size_t>(head * group_ + first + g)]) * kLogUnit + kLogOne;
      }
      const int32_t blocks = n / kBlockKeys;
      const uint8_t* codes = codes_.blocks(names_[head], chunk);
      int16_t* to = out + static_cast<size_t>(first) * stride_;
      const uint8_t* next = (chunk + 1) * Codes::kChunkKeys < count_ ? codes_.blocks(names_[head], chunk + 1) : nullptr;
      kernels_.scan(to, stride_, shape, some, gains, bases, codes, blocks, next, sums + first);
      if (n % kBlockKeys == 0) continue;
      // The last block has room for keys that are not there.
      float ignored[kMostGroup] = {};
      to += blocks * kBlockKeys;
      kernels_.scan(to, stride_, shape, some, gains, bases, codes + static_cast<size_t>(blocks) * shape.block_bytes, 1, nullptr,
                    ignored);
      for (int32_t g = 0; g < some.group; g++) {
        for (int32_t i = 0; i < kBlockKeys; i++) {
          int16_t& log = to[static_cast<size_t>(g) * stride_ + static_cast<size_t>(i)];
          if (i < n % kBlockKeys) sums[first + g] += log_value(log);
          else log = 0;
        }
      }
    }
  }

  // Scores of any codes, or of the rows themselves, as floats first: right for all, and slower.
  void scan_floats() {
    const size_t bytes = static_cast<size_t>(shape_.heads) * stride_ * 4;
    if (floats_ == nullptr) {
      char* at = static_cast<char*>((*environment_.scratch)[0].get(bytes_ + bytes));
      place(at, at + bytes_);
    }
    each_range([&](int32_t head, int32_t range, int32_t n) {
      float* scores = floats(head, range);
      codes_.score_all(prepared_[static_cast<size_t>(head)], rows_, range * kRange, range * kRange + n, scores, stride_);
      for (int32_t g = 0; g < group_; g++, scores += stride_) {
        float most = -std::numeric_limits<float>::infinity();
        for (int32_t i = 0; i < n; i++) {
          if (shape_.softcap > 0) scores[i] = shape_.softcap * std::tanh(scores[i] / shape_.softcap);
          most = scores[i] > most ? scores[i] : most;
        }
        part(head, range)[g] = most;
      }
    });
    for (size_t h = 0; h < ref_.size(); h++) {
      ref_[h] = exact_of(h);
      for (int32_t r = 0; r < ranges_; r++) ref_[h] = std::max(ref_[h], parts_[static_cast<size_t>(r) * sums_.size() + h]);
    }
    each_range([&](int32_t head, int32_t range, int32_t n) {
      for (int32_t g = 0; g < group_; g++) {
        int16_t* to = logs(head, range) + static_cast<size_t>(g) * stride_;
        part(head, range)[g] = kernels_.fold(to, floats(head, range) + static_cast<size_t>(g) * stride_, n,
                                             ref_[static_cast<size_t>(head * group_ + g)]);
        for (int32_t i = n; i % kBlockKeys != 0; i++) to[i] = 0;
      }
    });
    add_parts();
  }

  // Both stages; what is kept stays in the range's room.
  void draw(int32_t head, int32_t range) {
    const uint32_t key = draw_key(query_.goal.draw, names_[head]), again = lowbias32(key ^ 0x5bd1e995u);
    const int32_t first = range * kRange, n = std::min(kRange, count_ - first);
    int32_t* keys = keys_ + survivors_at(head, range);
    int16_t* tops = tops_ + survivors_at(head, range);
    const int32_t survivors =
        kernels_.draw(keys, tops, logs(head, range), stride_, offsets_.data() + head * group_, group_,
                      first / kBlockKeys, (n + kBlockKeys - 1) / kBlockKeys, key);
    const uint32_t* below = second_stage();
    int32_t kept = 0;
    for (int32_t i = 0; i < survivors; i++) {
      const int32_t position = first + keys[i], top = tops[i];
      const uint32_t limit = below[std::min<int32_t>(top, kDrawOne - 1) - kDrawLeast];
      const bool stays = (top >= kDrawOne || draw_bits(again, position) < limit) && position < count_;
      keys[kept] = position, tops[kept] = static_cast<int16_t>(top);
      kept += stays;
    }
    found_[static_cast<size_t>(head * ranges_ + range)] = kept;
  }

  void finish(int32_t head, const Hits& hits, Report& report) {
    constexpr float kStep = 0.6931471805599453f / 128;
    int32_t total = 0;
    for (int32_t r = 0; r < ranges_; r++) total += found_[static_cast<size_t>(head * ranges_ + r)];
    const int32_t row = names_[head];
    hits.counts[row] = total;
    report.keys_kept += total;
    const bool fits = total <= hits.capacity;
    int32_t* tokens = hits.tokens + static_cast<size_t>(row) * static_cast<size_t>(fits ? hits.capacity : 0);
    float* bias = hits.bias + static_cast<size_t>(row) * static_cast<size_t>(fits ? hits.capacity : 0);
    int32_t at = 0;
    for (int32_t r = 0; r < ranges_; r++) {
      const int32_t* keys = keys_ + survivors_at(head, r);
      const int16_t* tops = tops_ + survivors_at(head, r);
      const int32_t n = found_[static_cast<size_t>(head * ranges_ + r)];
      for (int32_t i = 0; i < n && fits; i++, at++) {
        tokens[at] = codes_.begin() + keys[i];
        bias[at] = static_cast<float>(std::max(0, kDrawOne - tops[i])) * kStep;
      }
    }
    hits.errors[row] = estimate(head);
  }

  // Root of sum (1 - p) w^2 over what was kept, w = exp(s) / (Z p), as if values had the output's norm; the worst head's.
  float estimate(int32_t head) const {
    float worst = 0;
    for (int32_t first = 0; first < group_; first += kMostGroup) {
      const int32_t some = std::min(group_ - first, kMostGroup);
      const int16_t* offsets = offsets_.data() + head * group_ + first;
      float squares[kMostGroup] = {};
      for (int32_t r = 0; r < ranges_; r++) {
        const int32_t* keys = keys_ + survivors_at(head, r);
        const int16_t* tops = tops_ + survivors_at(head, r);
        const int16_t* logs = logs_ + static_cast<size_t>(head * group_ + first) * stride_;
        const int32_t n = found_[static_cast<size_t>(head * ranges_ + r)];
        for (int32_t i = 0; i < n; i++) {
          if (tops[i] >= kDrawOne) continue;  // kept for certain
          const float p = log_value(tops[i]) * 0x1p-16f;
          for (int32_t g = 0; g < some; g++) {
            // exp(s) / (tau Z p): the difference of logarithms, never above 0.
            const int32_t log = logs[static_cast<size_t>(g) * stride_ + static_cast<size_t>(keys[i])] + offsets[g] - tops[i];
            const float w = log_value(std::max(0, log + kLogOne));
            squares[g] += (1 - p) * w * w;
          }
        }
      }
      worst = std::max(worst, *std::max_element(squares, squares + some));
    }
    return static_cast<float>(tau_) * std::sqrt(worst);
  }

  static constexpr int32_t kMostGroup = 8;  // heads that one scan takes

  const Environment& environment_;
  const LayerShape& shape_;
  const Codes& codes_;
  const int32_t* names_;  // KV heads by place
  const Rows& rows_;
  const Query& query_;
  const SampleKernels& kernels_;
  int32_t count_, group_, ranges_;
  size_t stride_;
  double tau_;
  size_t bytes_ = 0;
  std::vector<PreparedQuery>& prepared_;
  std::vector<float>& ref_;
  std::vector<double>& sums_;
  std::vector<int16_t>& offsets_;
  std::vector<float>& parts_;
  std::vector<int32_t>& found_;
  int16_t* logs_ = nullptr;     // [query heads][stride]
  int32_t* keys_ = nullptr;
  int16_t* tops_ = nullptr;
  float* floats_ = nullptr;  // [query heads][stride]
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
