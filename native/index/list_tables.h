// Lists of ids under centroids, in two forms: plain, and packed as the gaps between ids. Ids are positions less the index's first one.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "graph_codes.h"

namespace kvasir {

struct ListTable {
  Panels centroids;
  std::vector<int32_t> offsets;  // [count + 1]
  std::vector<int32_t> members;  // of list i: [offsets[i], offsets[i + 1]), ascending

  int32_t count() const { return centroids.count(); }
  size_t bytes() const { return centroids.bytes() + (offsets.size() + members.size()) * 4; }
  int32_t size(int32_t list) const { return offsets[static_cast<size_t>(list) + 1] - offsets[static_cast<size_t>(list)]; }
  size_t bytes_of(int32_t list) const { return static_cast<size_t>(size(list)) * 4; }
  int32_t id(int32_t list, int32_t i) const { return members[static_cast<size_t>(offsets[static_cast<size_t>(list)] + i)]; }
  template <class F>
  void each(int32_t list, F&& f) const {
    for (int32_t i = offsets[static_cast<size_t>(list)]; i < offsets[static_cast<size_t>(list) + 1]; i++) f(members[static_cast<size_t>(i)]);
  }
  // f(id) for the ids of several lists, four lists in turns: where f sets bits, neighbours in a list are often in one word, and a bit waits
  // for the one before it (planned, generated 128K: .92 of a search).
  template <class F>
  void each_of(const std::vector<int32_t>& which, F&& f) const {
    constexpr size_t kTurns = 4;
    size_t i = 0;
    for (; i + kTurns <= which.size(); i += kTurns) {
      const int32_t* at[kTurns];
      int32_t together = std::numeric_limits<int32_t>::max();
      for (size_t j = 0; j < kTurns; j++) {
        at[j] = members.data() + offsets[static_cast<size_t>(which[i + j])];
        together = std::min(together, size(which[i + j]));
      }
      for (int32_t k = 0; k < together; k++) {
        for (size_t j = 0; j < kTurns; j++) f(at[j][k]);
      }
      for (size_t j = 0; j < kTurns; j++) {
        for (int32_t k = together; k < size(which[i + j]); k++) f(at[j][k]);
      }
    }
    for (; i < which.size(); i++) each(which[i], f);
  }
  // Ids more[i], ascending and above those that are there, join list i.
  void append(const std::vector<std::vector<int32_t>>& more);
};

// A list's ids as their gaps, id - the one before - 1, the one before the first being -1: a byte below 240 is the gap; one below 254
// is 240 + 256 (byte - 240) + the next byte; 254 stands before 4 bytes, little-endian.
struct GapLists {
  static constexpr int32_t kPlain = 240, kWide = 254;

  std::shared_ptr<const GraphCodes> routers;  // what queries are compared with: a row a list
  std::vector<int32_t> offsets;               // [count + 1], in bytes; empty where there are no lists
  std::vector<int32_t> last;                  // [count]: the last id of each list, -1 where it has none
  std::vector<uint8_t> gaps;

  int32_t count() const { return routers == nullptr ? 0 : routers->nodes(); }
  size_t bytes() const { return (routers == nullptr ? 0 : routers->bytes()) + (offsets.size() + last.size()) * 4 + gaps.size(); }
  size_t bytes_of(int32_t list) const {
    return static_cast<size_t>(offsets[static_cast<size_t>(list) + 1] - offsets[static_cast<size_t>(list)]);
  }
  template <class F>
  void each(int32_t list, F&& f) const {
    const uint8_t* at = gaps.data() + offsets[static_cast<size_t>(list)];
    const uint8_t* const end = gaps.data() + offsets[static_cast<size_t>(list) + 1];
    for (int32_t id = -1; at < end;) {
      int32_t gap = *at++;
      if (gap >= kPlain) gap = wide_gap(gap, at);
      id += gap + 1;
      f(id);
    }
  }
  void append(const std::vector<std::vector<int32_t>>& more);
  // Whether every list is whole codes that ascend below `keys`; sets `last`. For what comes from a file.
  bool check(int32_t keys);

 private:
  static int32_t wide_gap(int32_t first, const uint8_t*& at) {
    if (first < kWide) return kPlain + 256 * (first - kPlain) + *at++;
    const uint32_t gap = at[0] | at[1] << 8 | at[2] << 16 | static_cast<uint32_t>(at[3]) << 24;
    at += 4;
    return static_cast<int32_t>(gap);
  }
};

}  // namespace kvasir
