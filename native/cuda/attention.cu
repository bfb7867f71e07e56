#include "attention.h"

#include <algorithm>
#include <type_traits>

#include "attention_best.cuh"
#include "attention_keys.cuh"
#include "attention_merge.cuh"
#include "attention_plain.cuh"
#include "attention_tiles.h"
#include "attention_wgmma.h"
#include "error.h"
#include "launch.h"

namespace kvasir {
namespace {

// A share of the keys shorter than this costs more to merge than it hides.
constexpr int32_t kLeastKeys = 256;
// How many keys a list has only the device knows: shares are as for so many, however much room it has, so that hits attended to where they were
// found give the bits of hits that were handed over.
constexpr int32_t kListKeys = 16 * kLeastKeys;
// Blocks that a processor has room for, at most: shares beyond them only wait.
constexpr int32_t kBlocksPerProcessor = 3;

// One launch: a piece of the cache that its arguments have room for, and what of it is looked at.
template <class Keys>
struct Piece {
  KeyTable table;
  Keys keys;
  int32_t most_keys;  // of a list
};

int32_t element_bytes(int32_t dtype) { return dtype == KVASIR_F32 ? 4 : dtype == KVASIR_F16 ? 2 : 1; }

// Segments by as many as a launch takes; body(table, start, end).
template <class F>
void each_table(const Attention& call, F&& body) {
  const int32_t all = static_cast<int32_t>(call.segments.size());
  for (int32_t first = 0; first < all; first += kMostSegments) {
    KeyTable table{};
    table.dtype = call.dtype, table.head_dim = call.head_dim, table.row_bytes = call.head_dim * element_bytes(call.dtype);
    table.count = std::min(kMostSegments, all - first);
    std::copy_n(call.segments.data() + first, table.count, table.segments);
    const KeySegment& last = table.segments[table.count - 1];
    body(table, table.segments[0].start, last.start + last.count);
  }
}

bool on_16_bytes(const Attention& call) {
  for (const KeySegment& s : call.segments) {
    if (reinterpret_cast<uintptr_t>(s.keys) % 16 != 0 || reinterpret_cast<uintptr_t>(s.values) % 16 != 0) return false;
  }
  return true;
}

// Prompts, where the device has products of warpgroups.
template <class Keys>
bool try_wgmma(DeviceScratch& work, const TileLaunch& of, const Keys& keys) {
  return !of.few_rows && launch_wgmma(work, of.args, keys, of.lists);
}
bool try_wgmma(DeviceScratch&, const TileLaunch&, const ListedKeys&) { return false; }

// body(std::integral_constant<int, dim>) of a head size that fragments divide; else false.
template <class F>
bool by_dim(int32_t dim, F&& body) {
  switch (dim) {
    case 64: return body(std::integral_constant<int, 64>());
    case 80: return body(std::integral_constant<int, 80>());
    case 96: return body(std::integral_constant<int, 96>());
    case 128: return body(std::integral_constant<int, 128>());
    case 256: return body(std::integral_constant<int, 256>());
    default: return false;
  }
}

// Whether tiles can: fragments divide aligned rows, and the device has the shared memory.
bool has_tiles(Runtime& runtime, const Attention& call, bool few_rows) {
  return call.dtype != KVASIR_F32 && on_16_bytes(call) &&
         by_dim(call.head_dim, [&](auto dim) { return tiles_shared_bytes<dim()>(few_rows) <= runtime.facts().block_shared; });
}

template <class Keys>
void launch_tiles_by_dim(DeviceScratch& work, const TileLaunch& of, const Keys& keys) {
  if (try_wgmma(work, of, keys)) return;
  by_dim(of.args.table.head_dim, [&](auto dim) {
    launch_tiles<dim()>(work, of, keys);
    return true;
  });
}

// How a call is launched: how many splits each piece has, and of all together.
struct Plan {
  bool few_rows, tiles;
  std::vector<int32_t> splits;
  int32_t parts;
};

template <class Keys>
Plan plan_of(Runtime& runtime, const Attention& call, int32_t lists, const std::vector<Piece<Keys>>& pieces) {
  const int32_t rows = call.n * (call.heads / lists);
  Plan plan{};
  plan.few_rows = rows <= kFewRows, plan.tiles = has_tiles(runtime, call, plan.few_rows);
  const int32_t block = plan.few_rows ? kFewRows : kManyRows, blocks = lists * ((rows + block - 1) / block);
  for (const Piece<Keys>& piece : pieces) {
    const int32_t room = std::max(1, runtime.facts().processors * kBlocksPerProcessor / std::max(1, blocks));
    plan.splits.push_back(std::clamp(piece.most_keys / kLeastKeys, 1, room));
    plan.parts += plan.splits.back();
  }
  return plan;
}

// lists: of keys; each has heads / lists query heads.
template <class Keys>
void attend(DeviceScratch& work, const Attention& call, int32_t lists, const std::vector<Piece<Keys>>& pieces) {
  const int32_t d = call.head_dim, rows = call.n * call.heads, group = call.heads / lists;
  const int32_t most_rows = call.n * group;
  const Plan plan = plan_of(work.runtime, call, lists, pieces);
  const int32_t parts = plan.parts;
  AttentionPart to{call.o, call.lse};
  const size_t part_floats = static_cast<size_t>(rows) * static_cast<size_t>(d);
  if (parts != 1) {
    to.o = static_cast<float*>(work.get((part_floats + static_cast<size_t>(rows)) * static_cast<size_t>(parts) * sizeof(float)));
    to.lse = to.o + part_floats * static_cast<size_t>(parts);
  }
  int32_t before = 0;
  for (size_t i = 0; i < pieces.size(); i++) {
    TileLaunch of{};
    of.lists = lists, of.few_rows = plan.few_rows;
    AttendArguments& args = of.args;
    args.table = pieces[i].table;
    args.q = call.q;
    args.o = to.o + part_floats * static_cast<size_t>(before);
    args.lse = to.lse == nullptr ? nullptr : to.lse + static_cast<size_t>(rows) * static_cast<size_t>(before);
    args.n = call.n, args.heads = call.heads, args.group = group, args.kv_heads = call.kv_heads;
    args.splits = plan.splits[i];
    args.scale = call.scale, args.softcap = call.softcap;
    Keys keys = pieces[i].keys;
    if constexpr (Keys::kSampled) keys.part = before;
    if (Keys::kSampled || plan.tiles) {
      launch_tiles_by_dim(work, of, keys);
    } else if constexpr (!Keys::kSampled) {
      const dim3 grid(static_cast<uint32_t>((most_rows + kPlainRows - 1) / kPlainRows), static_cast<uint32_t>(lists),
                      static_cast<uint32_t>(plan.splits[i]));
      const size_t bytes = plain_shared_bytes(d);
      if (bytes > work.runtime.facts().block_shared) {
        fail(KVASIR_UNSUPPORTED, "Cannot attend: heads of %d dimensions need %zu bytes of shared memory, the device has %zu", d,
             bytes, work.runtime.facts().block_shared);
      }
      launch(work.runtime, "attend_plain", attend_plain<Keys>, grid, dim3(kPlainThreads), bytes, args, keys);
    }
    before += plan.splits[i];
  }
  if (parts == 1) return;
  const MergeSplits from{to.o, to.lse, parts, rows};
  launch(work.runtime, "merge_rows", merge_rows<MergeSplits>, dim3(static_cast<uint32_t>((rows + kMergeWarps - 1) / kMergeWarps)),
                dim3(32 * kMergeWarps), 0, from, call.o, call.lse, rows, d);
}

std::vector<Piece<CausalKeys>> causal_pieces(const Attention& call, int32_t window) {
  std::vector<Piece<CausalKeys>> pieces;
  const int32_t first = call.end - call.n;
  each_table(call, [&](const KeyTable& table, int32_t start, int32_t end) {
    if (window != 0 && end <= first - window + 1 && end < call.end) return;  // before all windows
    const int32_t seen = window == 0 ? end - start : std::min(end - start, call.n + window);
    pieces.push_back({table, {start, end, first, window}, seen});
  });
  return pieces;
}

}  // namespace

void attend_causal(DeviceScratch& work, const Attention& call, int32_t window) {
  attend(work, call, call.kv_heads, causal_pieces(call, window));
}

int32_t sampled_parts(Runtime& runtime, const Attention& call, int32_t window) {
  const Plan plan = plan_of(runtime, call, call.kv_heads, causal_pieces(call, window));
  return plan.tiles && !plan.few_rows ? plan.parts : 0;
}

void attend_sampled(DeviceScratch& work, const Attention& call, int32_t window, const SampledKeys& sampled) {
  std::vector<Piece<SampledKeys>> pieces;
  for (const Piece<CausalKeys>& piece : causal_pieces(call, window)) {
    pieces.push_back({piece.table, sampled, piece.most_keys});
    static_cast<CausalKeys&>(pieces.back().keys) = piece.keys;
  }
  attend(work, call, call.kv_heads, pieces);
}

void attend_spans(DeviceScratch& work, const Attention& call, const int32_t* spans, int32_t count) {
  std::vector<Piece<ListedKeys>> pieces;
  each_table(call, [&](const KeyTable& table, int32_t start, int32_t end) {
    ListedKeys keys{};
    int32_t taken = 0;
    const auto close = [&] {
      if (taken > 0 || pieces.empty()) pieces.push_back({table, keys, keys.keys});
      keys = {}, taken = 0;
    };
    for (int32_t i = 0; i < count; i++) {
      const int32_t from = std::max(start, spans[2 * i]), to = std::min(end, spans[2 * i + 1]);
      if (from >= to) continue;
      keys.starts[taken] = from;
      keys.keys += to - from;
      keys.ends[taken] = keys.keys;
      if (++taken == kMostSpans) close();
    }
    if (taken > 0) close();
  });
  if (pieces.empty()) {
    // No keys at all: a table that nothing is read of.
    Piece<ListedKeys> none{};
    none.table.dtype = call.dtype, none.table.head_dim = call.head_dim;
    pieces.push_back(none);
  }
  attend(work, call, call.kv_heads, pieces);
}

void attend_hits(DeviceScratch& work, const Attention& call, const HitLists& hits) {
  std::vector<Piece<ListedKeys>> pieces;
  each_table(call, [&](const KeyTable& table, int32_t start, int32_t end) {
    ListedKeys keys{};
    keys.tokens = hits.tokens, keys.counts = hits.counts, keys.biases = hits.biases;
    keys.capacity = hits.capacity, keys.start = start, keys.end = end;
    pieces.push_back({table, keys, kListKeys});
  });
  if (pieces.empty() || hits.capacity == 0) {
    Piece<ListedKeys> none{};
    none.table.dtype = call.dtype, none.table.head_dim = call.head_dim;
    pieces.assign(1, none);
  }
  attend(work, call, hits.lists, pieces);
}

void merge_parts(DeviceScratch& work, const AttentionPart& out, const AttentionPart* parts, int32_t count, int32_t rows, int32_t d) {
  if (rows == 0 || d == 0) return;
  const dim3 grid(static_cast<uint32_t>((rows + kMergeWarps - 1) / kMergeWarps));
  MergeParts from{};
  from.count = std::min(count, kMostParts);
  for (int32_t i = 0; i < from.count; i++) from.o[i] = parts[i].o, from.lse[i] = parts[i].lse;
  if (count <= kMostParts) {
    launch(work.runtime, "merge_rows", merge_rows<MergeParts>, grid, dim3(32 * kMergeWarps), 0, from, out.o, out.lse, rows, d);
    return;
  }
  // In turns, beside the parts: `out` may be one that is merged later.
  const size_t floats = static_cast<size_t>(rows) * static_cast<size_t>(d);
  AttentionPart sum{static_cast<float*>(work.get((floats + static_cast<size_t>(rows)) * sizeof(float))), nullptr};
  sum.lse = sum.o + floats;
  launch(work.runtime, "merge_rows", merge_rows<MergeParts>, grid, dim3(32 * kMergeWarps), 0, from, sum.o, sum.lse, rows, d);
  for (int32_t done = kMostParts; done < count;) {
    from.count = std::min(count - done, kMostParts - 1) + 1;
    from.o[0] = sum.o, from.lse[0] = sum.lse;
    for (int32_t i = 1; i < from.count; i++) from.o[i] = parts[done + i - 1].o, from.lse[i] = parts[done + i - 1].lse;
    done += from.count - 1;
    const AttentionPart& to = done < count ? sum : out;
    launch(work.runtime, "merge_rows", merge_rows<MergeParts>, grid, dim3(32 * kMergeWarps), 0, from, to.o, to.lse, rows, d);
  }
}

}  // namespace kvasir
