// Launches as graphs: steps that repeat are replayed, with the arguments of each, and give what launches one by one give.
#include "launch_queue.h"

#include <cmath>

#include "../context.h"
#include "fixture.h"

using namespace kvasir_test;
using kvasir::LaunchCounts;

namespace {

constexpr int32_t kLayers = 6, kHeads = 4, kKvHeads = 2, kDim = 64, kCapacity = 40;

std::vector<float> numbers(size_t count, uint32_t seed) {
  std::vector<float> x(count);
  for (size_t i = 0; i < count; i++) {
    seed = seed * 1664525 + 1013904223;
    x[i] = static_cast<float>(static_cast<int32_t>(seed)) / 2147483648.0f;
  }
  return x;
}

// Decode steps of something like a model: rows are appended at growing positions, looked at, and added to the stream.
class Steps {
 public:
  explicit Steps(const std::string& options) : ctx_(options) {
    for (int32_t layer = 0; layer < kLayers; layer++) {
      keys_.push_back(ctx_.make(KVASIR_F16, {kKvHeads, kCapacity, kDim}, KVASIR_SEQUENCE));
      values_.push_back(ctx_.make(KVASIR_F16, {kKvHeads, kCapacity, kDim}, KVASIR_SEQUENCE));
    }
    x_ = ctx_.make(KVASIR_F32, {1, kHeads, kDim}), o_ = ctx_.make(KVASIR_F32, {1, kHeads, kDim});
    k_ = ctx_.make(KVASIR_F32, {1, kKvHeads, kDim}), v_ = ctx_.make(KVASIR_F32, {1, kKvHeads, kDim});
  }
  std::vector<float> run(int32_t position, bool twice = false) {
    const uint32_t seed = static_cast<uint32_t>(position) * 3;
    ctx_.write(x_, numbers(kHeads * kDim, seed));
    ctx_.write(k_, numbers(kKvHeads * kDim, seed + 1));
    ctx_.write(v_, numbers(kKvHeads * kDim, seed + 2));
    if (twice) EXPECT_OK(kvasir_add(ctx_, x_, x_, x_));
    for (size_t layer = 0; layer < kLayers; layer++) {
      const int32_t segment[] = {0, position + 1, static_cast<int32_t>(keys_[layer]), static_cast<int32_t>(values_[layer]), 0, 0};
      EXPECT_OK(kvasir_append(ctx_, segment, position, k_, v_));
      EXPECT_OK(kvasir_attend_causal(ctx_, o_, x_, segment, 1, 0.125f, 0, 0));
      EXPECT_OK(kvasir_add(ctx_, x_, x_, o_));
    }
    return ctx_.read(x_, kHeads * kDim);
  }
  const LaunchCounts& counts() const { return ctx_.raw->runtime->launches(); }

 private:
  Context ctx_;
  std::vector<kvasir_tensor> keys_, values_;
  kvasir_tensor x_, o_, k_, v_;
};

}  // namespace

TEST("cuda graphs: steps at growing positions are replayed, with the bits of launches one by one") {
  Steps graphs("graphs=true"), direct("graphs=false");
  for (int32_t position = 0; position < kCapacity; position++) EXPECT(graphs.run(position) == direct.run(position));
  EXPECT_EQ(direct.counts().replayed, int64_t{0});
  const LaunchCounts& counts = graphs.counts();
  EXPECT_EQ(counts.launches, int64_t{3 * kLayers * kCapacity});
  EXPECT_EQ(counts.replayed, int64_t{3 * kLayers * (kCapacity - 1)});
  EXPECT_EQ(counts.graphs, int64_t{1});
  // What is added stays as it was; where rows go and how many there are does not.
  EXPECT_EQ(counts.set, int64_t{2 * kLayers * (kCapacity - 2)});
}

TEST("cuda graphs: other kernels between are another graph, and both stay") {
  Steps graphs("graphs=true"), direct("graphs=false");
  for (int32_t position = 0; position < 30; position++) {
    const bool twice = position % 7 == 3;
    EXPECT(graphs.run(position, twice) == direct.run(position, twice));
  }
  EXPECT_EQ(graphs.counts().graphs, int64_t{2});
}

TEST("cuda graphs: an option that is no truth is refused") {
  EXPECT(kvasir_context_create("graphs=maybe") == nullptr);
  EXPECT(last_error().find("expected true or false") != std::string::npos);
}
