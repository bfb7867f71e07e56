// One threshold sample while it is drawn: what sampler.cc and sampler_scan.cc share. See sampler.h for what it does.
#pragma once
#include <algorithm>

#include "draw.h"
#include "sample_kernels.h"
#include "sampler.h"

namespace kvasir {

class Sampling {
 public:
  // shape: of the KV heads named alone; their places in it are what `head` means here.
  Sampling(const Environment& environment, const LayerShape& shape, const Codes& codes, const Rows& rows, int32_t count,
           const int32_t* kv_heads, const Query& query, SampleMemory& memory);

  void run(const Hits& hits, Report& report);

 private:
  static constexpr int32_t kChunk = Codes::kChunkKeys;
  static constexpr int32_t kMostGroup = 8;  // heads that one scan takes
  static constexpr int32_t kPiece = 256;    // keys that are scored as floats before they are drawn from
  // Rows that start at the same place of a page would fight for the same lines of L1.
  static constexpr size_t kPad = 32;
  // Candidates may be followed by that many entries that do not count.
  static constexpr int32_t kSlack = 64;

  void place();
  size_t logs_bytes() const { return (static_cast<size_t>(group_) * (kChunk + kPad + 1) * sizeof(int16_t) + 63) / 64 * 64; }
  double key_bytes() const;

  // The first stage (sampler_scan.cc).
  bool known_references();
  void find_references();
  bool scan_and_draw();
  int32_t sweep_planes(size_t room, int32_t head, int32_t chunk, int32_t n, int16_t* logs, const int16_t* offsets, float* sums,
                       FineRows* fine);
  void fetch_fine(int32_t head, int32_t chunk, int32_t first);
  void refine(int32_t place);
  int32_t sweep_bytes(size_t room, int32_t head, int32_t chunk, int32_t blocks, int16_t* logs, const int16_t* offsets, float* folded);
  // Whether whole blocks are scored and drawn from without floats in memory between.
  bool in_one_pass(int32_t head) const {
    return kernels_.sweep_bytes != nullptr && codes_.kind() == Codes::kInt8 && group_ <= 4 && shape_.softcap == 0 && !prepared(head).risky();
  }
  int32_t sweep_floats(size_t room, int32_t head, int32_t chunk, int32_t n, int16_t* logs, const int16_t* offsets, float* sums);
  // The codes that are scanned after a head's last; null: none.
  const uint8_t* behind(int32_t head) const {
    return codes_.kind() == Codes::kNone || head + 1 == shape_.kv_heads ? nullptr : codes_.blocks(names_[head + 1], 0);
  }
  float* score(int32_t head, int32_t from, int32_t n, int16_t* logs);
  float* floats(int16_t* logs) const { return reinterpret_cast<float*>(reinterpret_cast<char*>(logs) + logs_bytes()); }

  // What holds when all keys were seen (sampler.cc).
  void set_offsets();
  bool add_parts();
  bool sift();
  void settle(int32_t head, int32_t chunk, const int16_t* offsets);
  void finish(int32_t head, const Hits& hits, Report& report);
  float estimate(int32_t head);

  // Calls body(head, chunk, keys, room, worker); one task takes neighbouring chunks of a head, and `room` is where their
  // candidates go, one chunk's behind the other's. What is found does not depend on who takes what.
  template <class F>
  void each_chunk(F&& body) {
    each_chunk(body, [](int32_t) {});
  }
  // And then after(worker) behind the last chunk of a task.
  template <class F, class After>
  void each_chunk(F&& body, After&& after) {
    const int32_t threads = environment_.pool->threads(), all = shape_.kv_heads * chunks_;
    const int32_t some = threads == 1 ? chunks_ : std::clamp(all / (6 * threads), 1, chunks_), tasks = (chunks_ + some - 1) / some;
    environment_.pool->run_shares(shape_.kv_heads * tasks, [&](int32_t task, int32_t worker) {
      const int32_t head = task / tasks, first = task % tasks * some, end = std::min(chunks_, first + some);
      size_t room = static_cast<size_t>(head * chunks_ + first) * (kChunk + kSlack);
      for (int32_t chunk = first; chunk < end; chunk++) {
        body(head, chunk, std::min(kChunk, count_ - chunk * kChunk), room, worker);
      }
      after(worker);
    });
  }

  Candidates candidates_at(size_t room) const { return {keys_ + room, found_logs_ + room, room_}; }
  size_t& start(int32_t head, int32_t chunk) { return m_.starts[static_cast<size_t>(head * chunks_ + chunk)]; }
  int32_t& found(int32_t head, int32_t chunk) { return m_.found[static_cast<size_t>(head * chunks_ + chunk)]; }
  const PreparedQuery& prepared(int32_t head) const { return m_.prepared[static_cast<size_t>(head)]; }
  float exact_of(size_t h) const {
    const size_t group = static_cast<size_t>(group_);
    return query_.exact[static_cast<size_t>(names_[h / group]) * group + h % group];
  }
  // Sums so far of KV heads lie in lines of their own, two for each sixteen heads of a group, as threads scan different ones.
  size_t apart() const { return (static_cast<size_t>(group_) + 15) / 16 * 32; }
  std::atomic<float>& so_far(int32_t head, int32_t g) {
    return m_.so_far[static_cast<size_t>(head) * apart() + static_cast<size_t>(g)];
  }
  // Of a chunk, one number a head of the group.
  template <class T>
  T* part(std::vector<T>& of, int32_t head, int32_t chunk) {
    return of.data() + static_cast<size_t>(chunk) * m_.sums.size() + static_cast<size_t>(head * group_);
  }
  // An offset as it decides about candidates: by coarse scores, with a margin.
  int16_t for_candidates(int16_t offset, int32_t head, int32_t chunk, int32_t g) const;
  DrawKeys draw_keys(int32_t head) const {
    const uint32_t key = draw_key(query_.goal.draw, names_[head]);
    return {key, lowbias32(key ^ 0x5bd1e995u)};
  }

  const Environment& environment_;
  const LayerShape& shape_;
  const Codes& codes_;
  const int32_t* names_;  // KV heads by place
  const Rows& rows_;
  const Query& query_;
  const SampleKernels& kernels_;
  int32_t count_, group_, chunks_;
  bool planes_;  // 4-bit codes go straight to logarithms, by their coarse plane
  double tau_;
  SampleMemory& m_;
  size_t room_ = 0;
  int32_t* keys_ = nullptr;        // [KV heads][chunks * (kChunk + kSlack)]: candidates, then what is kept
  int16_t* tops_ = nullptr;        // beside them: logarithms of p * 2^16
  int16_t* found_logs_ = nullptr;  // [group][KV heads][chunks * (kChunk + kSlack)]
  int16_t* refined_ = nullptr;     // the same, by both planes of 4-bit codes
  double sifted_ = 0;              // candidates by the offsets that hold
  double scored_ = 0, read_ = 0;   // keys, and bytes of codes or rows
};

}  // namespace kvasir
