// The emulation itself: that right kernels run, in any order of threads, and that wrong ones are caught and named.
#include <string>
#include <vector>

#include "harness.h"
#include "launch.h"
#include "options.h"
#include "tensor_core.h"

using namespace kvasir;

namespace {

// Runs body over every thread of the grid; the fault's sentence, or nothing.
template <class F>
std::string run(dim3 grid, dim3 block, size_t shared, uint64_t seed, F body) {
  const char* sentence = emulation::run({"test", grid, block, shared, seed}, body);
  return sentence == nullptr ? "" : sentence;
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST("emulation: barriers order shared memory in every order of threads") {
  for (uint64_t seed = 0; seed < 20; seed++) {
    std::vector<float> sums(6, 0.0f);
    const std::string fault = run(dim3(3, 2), dim3(70), 0, seed, [&] {
      KVASIR_SHARED(float, values, [70]);
      values[threadIdx.x] = static_cast<float>(threadIdx.x);
      __syncthreads();
      const float other = values[69 - threadIdx.x];
      __syncthreads();
      values[threadIdx.x] = other;
      __syncthreads();
      if (threadIdx.x == 0) {
        float sum = 0;
        for (int i = 0; i < 70; i++) sum += values[i] * static_cast<float>(i);
        sums[blockIdx.x + 3 * blockIdx.y] = sum;
      }
    });
    EXPECT_EQ(fault, "");
    float want = 0;
    for (int i = 0; i < 70; i++) want += static_cast<float>(i * (69 - i));
    for (float s : sums) EXPECT_EQ(s, want);
  }
}

TEST("emulation: a missing barrier shows") {
  int wrong = 0;
  for (uint64_t seed = 0; seed < 20; seed++) {
    bool right = true;
    run(dim3(1), dim3(64), 0, seed, [&] {
      KVASIR_SHARED(float, values, [64]);
      values[threadIdx.x] = 1.0f;
      if (!(values[63 - threadIdx.x] == 1.0f)) right = false;
    });
    wrong += !right;
  }
  EXPECT_EQ(wrong, 20);
}

TEST("emulation: barriers that not all threads reach are faults") {
  EXPECT(has(run(dim3(1), dim3(64), 0, 1, [] { if (threadIdx.x != 5) __syncthreads(); }), "thread 5 left"));
  const auto elsewhere = [] {
    if (threadIdx.x < 32) __syncthreads();
    else
      __syncthreads();
  };
  EXPECT(has(run(dim3(1), dim3(64), 0, 1, elsewhere), "waits at the one of line"));
  EXPECT(has(run(dim3(1), dim3(64), 0, 1, [] { if (threadIdx.x < 31) __syncwarp(); }), "which"));
  EXPECT(has(run(dim3(1), dim3(16), 0, 1, [] { __syncwarp(); }), "beyond the block"));
  EXPECT(has(run(dim3(1), dim3(32), 0, 1, [] { __syncwarp(0x0000ffff); }), "lacks the lane"));
}

TEST("emulation: writes outside of shared memory are faults") {
  EXPECT(has(run(dim3(1), dim3(32), 128, 1, [] {
    KVASIR_DYNAMIC_SHARED(float, values);
    values[threadIdx.x + 1] = 1;
  }), "dynamic shared memory"));
  EXPECT(has(run(dim3(1), dim3(32), 0, 1, [] {
    KVASIR_SHARED(float, first, [31]);
    first[threadIdx.x] = 1;
  }), "shared array"));
}

TEST("emulation: shuffles, votes and sums over a warp") {
  for (uint64_t seed = 0; seed < 20; seed++) {
    bool right = true;
    const std::string fault = run(dim3(1), dim3(96), 0, seed, [&] {
      const int lane = static_cast<int>(threadIdx.x % 32);
      right = right && __shfl_sync(kFullWarp, lane, 7) == 7;
      right = right && __shfl_xor_sync(kFullWarp, lane, 5) == (lane ^ 5);
      right = right && __shfl_down_sync(kFullWarp, lane, 3) == (lane < 29 ? lane + 3 : lane);
      right = right && __shfl_up_sync(kFullWarp, lane, 3, 8) == (lane % 8 >= 3 ? lane - 3 : lane);
      right = right && __ballot_sync(kFullWarp, lane % 3 == 0) == 0x49249249u;
      right = right && warp_sum(static_cast<float>(lane)) == 496.0f && warp_max(static_cast<float>(lane)) == 31.0f;
      if (lane < 16) right = right && __shfl_sync(0xffffu, lane, 15) == 15;
    });
    EXPECT_EQ(fault, "");
    EXPECT(right);
  }
}

TEST("emulation: tensor cores and matrices from shared memory") {
  std::vector<float> got(16 * 8);
  const std::string fault = run(dim3(1), dim3(32), 0, 3, [&] {
    KVASIR_SHARED(uint16_t, a, [16][24]);
    KVASIR_SHARED(uint16_t, b, [16][24]);  // [k][column]
    for (int i = 0; i < 8; i++) {
      const int at = static_cast<int>(threadIdx.x) * 8 + i;
      a[at / 16][at % 16] = float_to_half(static_cast<float>(at % 7));
      if (at < 128) b[at / 8][at % 8] = float_to_half(static_cast<float>(at % 5));
    }
    for (int i = static_cast<int>(threadIdx.x); i < 128; i += 32) b[i / 8][8 + i % 8] = 0;
    __syncwarp();
    const int lane = static_cast<int>(threadIdx.x);
    uint32_t fa[4], fb[4];
    load_matrices(fa, &a[lane % 16][lane / 16 * 8]);
    load_matrices_transposed(fb, &b[lane % 16][lane / 16 * 8]);
    float d[4] = {1, 1, 1, 1};
    const uint32_t first[2] = {fb[0], fb[1]};
    mma_f16(d, fa, first);
    for (int i = 0; i < 4; i++) got[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
  });
  EXPECT_EQ(fault, "");
  for (int row = 0; row < 16; row++) {
    for (int column = 0; column < 8; column++) {
      float want = 1;
      for (int k = 0; k < 16; k++) want += static_cast<float>((row * 16 + k) % 7 * ((k * 8 + column) % 5));
      EXPECT_EQ(got[row * 8 + column], want);
    }
  }
}

TEST("emulation: asynchronous copies arrive when they are waited for") {
  alignas(16) float source[128];
  for (int i = 0; i < 128; i++) source[i] = static_cast<float>(i);
  bool early = false, right = true;
  const auto body = [&](bool waits) {
    KVASIR_SHARED(float, tile, [128]);
    copy_async(&tile[4 * threadIdx.x], source + 4 * threadIdx.x);
    copies_commit();
    if (tile[4 * threadIdx.x] == source[4 * threadIdx.x]) early = true;
    if (waits) copies_wait<0>();
    __syncthreads();
    if (waits && tile[127 - threadIdx.x] != source[127 - threadIdx.x]) right = false;
  };
  EXPECT_EQ(run(dim3(1), dim3(32), 0, 1, [&] { body(true); }), "");
  EXPECT(right && !early);
  EXPECT(has(run(dim3(1), dim3(32), 0, 1, [&] { body(false); }), "asynchronous copies"));
}

TEST("emulation: 16-bit numbers round as the device's do") {
  for (int h = 0; h < 65536; h++) {
    const float value = half_to_float(static_cast<uint16_t>(h));
    if (value == value) EXPECT_EQ(float_to_half(value), static_cast<uint16_t>(h));
    const float wide = bfloat_to_float(static_cast<uint16_t>(h));
    if (wide == wide) EXPECT_EQ(float_to_bfloat(wide), static_cast<uint16_t>(h));
  }
  EXPECT_EQ(float_to_half(65519.0f), static_cast<uint16_t>(0x7bff));
  EXPECT_EQ(float_to_half(65520.0f), static_cast<uint16_t>(0x7c00));
  EXPECT_EQ(float_to_half(0x1p-25f), static_cast<uint16_t>(0));
  EXPECT_EQ(float_to_half(0x1.8p-24f), static_cast<uint16_t>(2));
  EXPECT_EQ(float_to_half(1.0f + 0x1p-11f), static_cast<uint16_t>(0x3c00));
  EXPECT_EQ(float_to_half(1.0f + 0x1.8p-10f), static_cast<uint16_t>(0x3c02));
}
