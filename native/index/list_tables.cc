#include "list_tables.h"

#include <algorithm>

namespace kvasir {

void ListTable::append(const std::vector<std::vector<int32_t>>& more) {
  size_t added = 0;
  for (const auto& ids : more) added += ids.size();
  std::vector<int32_t> all, at;
  all.reserve(members.size() + added);
  at.reserve(more.size() + 1);
  for (size_t list = 0; list < more.size(); list++) {
    at.push_back(static_cast<int32_t>(all.size()));
    if (!offsets.empty()) all.insert(all.end(), members.begin() + offsets[list], members.begin() + offsets[list + 1]);
    all.insert(all.end(), more[list].begin(), more[list].end());
  }
  at.push_back(static_cast<int32_t>(all.size()));
  offsets = std::move(at);
  members = std::move(all);
}

void GapLists::append(const std::vector<std::vector<int32_t>>& more) {
  last.resize(more.size(), -1);
  size_t bytes = gaps.size();
  for (size_t list = 0; list < more.size(); list++) {
    int32_t before = last[list];
    for (int32_t id : more[list]) {
      const int32_t gap = id - before - 1;
      bytes += gap < kPlain ? 1 : gap < kPlain + 256 * (kWide - kPlain) ? 2 : 5;
      before = id;
    }
  }
  std::vector<uint8_t> all(bytes);
  std::vector<int32_t> at;
  at.reserve(more.size() + 1);
  uint8_t* to = all.data();
  for (size_t list = 0; list < more.size(); list++) {
    at.push_back(static_cast<int32_t>(to - all.data()));
    if (!offsets.empty()) to = std::copy(gaps.data() + offsets[list], gaps.data() + offsets[list + 1], to);
    int32_t before = last[list];
    for (int32_t id : more[list]) {
      const int32_t gap = id - before - 1, over = gap - kPlain;
      before = id;
      if (over < 0) {
        *to++ = static_cast<uint8_t>(gap);
      } else if (over < 256 * (kWide - kPlain)) {
        *to++ = static_cast<uint8_t>(kPlain + over / 256);
        *to++ = static_cast<uint8_t>(over % 256);
      } else {
        *to++ = static_cast<uint8_t>(kWide);
        for (int32_t shift = 0; shift < 32; shift += 8) *to++ = static_cast<uint8_t>(gap >> shift);
      }
    }
    last[list] = before;
  }
  at.push_back(static_cast<int32_t>(to - all.data()));
  offsets = std::move(at);
  gaps = std::move(all);
}

bool GapLists::check(int32_t keys) {
  last.assign(static_cast<size_t>(count()), -1);
  for (size_t list = 0; list < last.size(); list++) {
    const uint8_t* at = gaps.data() + offsets[list];
    const uint8_t* const end = gaps.data() + offsets[list + 1];
    int64_t id = -1;
    while (at < end) {
      int32_t gap = *at++;
      if (gap > kWide || end - at < (gap == kWide ? 4 : gap >= kPlain ? 1 : 0)) return false;
      if (gap >= kPlain) gap = wide_gap(gap, at);
      if (gap < 0) return false;
      id += int64_t{gap} + 1;
      if (id >= keys) return false;
    }
    last[list] = static_cast<int32_t>(id);
  }
  return true;
}

}  // namespace kvasir
