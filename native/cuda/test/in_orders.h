// The emulation's threads in an order of one's choice; a device has its own.
#pragma once
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "fixture.h"

namespace kvasir_test {

constexpr int kOrders = 20;

inline std::string in_order(uint64_t seed) {
#ifdef KVASIR_EMULATION
  return "seed=" + std::to_string(seed);
#else
  (void)seed;
  return "";
#endif
}

// body(context) in twenty orders of threads gives the same numbers; those of the first are returned.
inline std::vector<float> in_all_orders(const std::function<std::vector<float>(Context&)>& body) {
  std::vector<float> first;
  for (int seed = 0; seed < kOrders; seed++) {
    Context ctx(in_order(static_cast<uint64_t>(seed)));
    const std::vector<float> got = body(ctx);
    if (seed == 0) first = got;
    EXPECT(got.size() == first.size() && std::memcmp(got.data(), first.data(), got.size() * sizeof(float)) == 0);
  }
  return first;
}

}  // namespace kvasir_test
