// Products of warpgroups and phases in emulation: what they compute, from operands as the device wants them, and what they report.
#include "hopper.h"

#include <random>
#include <string>
#include <vector>

#include "harness.h"
#include "half.h"
#include "options.h"
#include "runtime.h"

using namespace kvasir;

namespace {

constexpr uint32_t kBlocks = 2, kRows = 128, kBlock = kRows * kOperandRow;

// Halves [rows][128 columns] as an operand of two blocks.
void store(uint8_t* to, const std::vector<uint16_t>& from, uint32_t rows, uint32_t block) {
  for (uint32_t i = threadIdx.x; i < rows * 16; i += blockDim.x) {
    const uint32_t row = i / 16, piece = i % 16;
    uint4 eight;
    std::memcpy(&eight, &from[row * 128 + piece * 8], 16);
    store_piece(to + piece / 8 * block + piece_of(row, piece % 8), eight);
  }
}

std::vector<uint16_t> halves(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint16_t> x(count);
  for (uint16_t& h : x) h = float_to_half(static_cast<float>(static_cast<int32_t>(random() % 17) - 8));
  return x;
}

struct Result {
  std::string fault;
  std::vector<float> sums;  // [64][128]
};

enum class Bug { kNone, kNoFence, kNoBegin, kNoWait };

// sums = A B: A [64][128]; B by rows [128 columns of the result][128], or, with A held in registers, by columns [128 that are summed
// over][128].
Result multiply(const std::vector<uint16_t>& a, const std::vector<uint16_t>& b, bool held, uint64_t seed, Bug bug = Bug::kNone) {
  Result result;
  result.sums.assign(64 * 128, -1.0f);
  const auto kernel = [&] {
    KVASIR_DYNAMIC_SHARED(uint8_t, shared);
    uint8_t* left = shared + (0u - operand_address(shared)) % kOperandAligned;
    uint8_t* right = left + kBlocks * 64 * kOperandRow;
    store(left, a, 64, 64 * kOperandRow), store(right, b, kRows, kBlock);
    if (bug != Bug::kNoFence) fence_operands();
    __syncthreads();
    const uint32_t thread = threadIdx.x, row = thread / 32 * 16 + thread % 32 / 4;
    float d[64];
    for (float& x : d) x = 0.0f;
    if (bug != Bug::kNoBegin) products_begin();
    for (uint32_t k = 0; k < 8; k++) {
      const uint32_t at = operand_address(right);
      const uint64_t rows = describe_rows(at + k / 4 * kBlock + k % 4 * 32), columns = describe_columns(at + k * 16 * kOperandRow, kBlock);
      if (!held) {
        multiply_shared<128>(d, describe_rows(operand_address(left) + k / 4 * 64 * kOperandRow + k % 4 * 32), rows, k > 0);
        continue;
      }
      uint32_t fragment[4];
      for (uint32_t i = 0; i < 4; i++) {
        std::memcpy(&fragment[i], &a[(row + i % 2 * 8) * 128 + k * 16 + thread % 4 * 2 + i / 2 * 8], 4);
      }
      multiply_held<128>(d, fragment, columns);
    }
    products_commit();
    if (bug == Bug::kNoWait) return;
    products_wait<0>();
    for (uint32_t j = 0; j < 64; j++) result.sums[(row + j % 4 / 2 * 8) * 128 + j / 4 * 8 + thread % 4 * 2 + j % 2] = d[j];
  };
  const char* sentence = emulation::run({"test", dim3(1), dim3(128), kOperandAligned + kBlocks * (64 + kRows) * kOperandRow, seed}, kernel);
  if (sentence != nullptr) result.fault = sentence;
  return result;
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST("hopper: products of operands by rows and by columns, in any order of threads") {
  const std::vector<uint16_t> a = halves(64 * 128, 1), b = halves(128 * 128, 2);
  for (uint64_t seed = 0; seed < 5; seed++) {
    for (const bool held : {false, true}) {
      const Result got = multiply(a, b, held, seed);
      EXPECT_EQ(got.fault, "");
      bool same = true;
      for (size_t r = 0; r < 64; r++) {
        for (size_t c = 0; c < 128; c++) {
          float want = 0;
          // By rows B is transposed: its row is the result's column.
          for (size_t k = 0; k < 128; k++) want += half_to_float(a[r * 128 + k]) * half_to_float(held ? b[k * 128 + c] : b[c * 128 + k]);
          same = same && got.sums[r * 128 + c] == want;
        }
      }
      EXPECT(same);
    }
  }
}

TEST("hopper: what is not fenced, begun or waited for is reported") {
  const std::vector<uint16_t> a = halves(64 * 128, 1), b = halves(128 * 128, 2);
  EXPECT(has(multiply(a, b, false, 1, Bug::kNoFence).fault, "has not fenced"));
  EXPECT(has(multiply(a, b, false, 1, Bug::kNoBegin).fault, "no fence came before"));
  EXPECT(has(multiply(a, b, false, 1, Bug::kNoWait).fault, "asynchronous products"));
}

TEST("hopper: phases hand a stage back and forth, and one that nobody completes is reported") {
  for (uint64_t seed = 0; seed < 20; seed++) {
    std::vector<int> seen;
    const auto kernel = [&](bool arrives) {
      KVASIR_SHARED(uint64_t, full, [1]);
      KVASIR_SHARED(uint64_t, empty, [1]);
      KVASIR_SHARED(int, stage, [1]);
      if (threadIdx.x == 0) phase_make(&full[0], 1), phase_make(&empty[0], 1);
      __syncthreads();
      for (int i = 0; i < 7; i++) {
        const uint32_t parity = static_cast<uint32_t>(i & 1);
        if (threadIdx.x == 0) {
          phase_wait(&empty[0], parity ^ 1);
          stage[0] = i;
          if (arrives) phase_arrive(&full[0]);
        } else if (threadIdx.x == 40) {
          phase_wait(&full[0], parity);
          seen.push_back(stage[0]);
          phase_arrive(&empty[0]);
        }
      }
    };
    EXPECT(emulation::run({"test", dim3(1), dim3(64), 0, seed}, [&] { kernel(true); }) == nullptr);
    EXPECT(seen == std::vector<int>({0, 1, 2, 3, 4, 5, 6}));
    const char* sentence = emulation::run({"test", dim3(1), dim3(64), 0, seed}, [&] { kernel(false); });
    EXPECT(sentence != nullptr && has(sentence, "phase"));
  }
}

namespace {

// Boxes of 8 rows of 64 halves out of [heads][capacity][128], of which `count` rows are there.
constexpr int32_t kHeads = 2, kCapacity = 11, kCount = 9, kBox = 8;
constexpr uint32_t kBoxBytes = kBox * kOperandRow;

enum class BoxBug { kNone, kNoMap, kNoFence, kNoWait, kBytes, kUnfenced, kPlace };

struct Boxes {
  std::string fault;
  std::vector<uint16_t> left, right;  // as they were asked for: elements 0 and 64 on
};

Boxes copy_boxes(const std::vector<uint16_t>& rows, int32_t row, int32_t head, uint64_t seed, BoxBug bug = BoxBug::kNone) {
  TensorMap map{};
  if (bug != BoxBug::kNoMap) EXPECT(make_tensor_map(map, {rows.data(), kHeads, kCapacity, kCount, 128, kBox}));
  Boxes result;
  const auto kernel = [&] {
    KVASIR_DYNAMIC_SHARED(uint8_t, shared);
    KVASIR_SHARED(uint64_t, full, [1]);
    uint8_t* to = shared + (0u - operand_address(shared)) % kOperandAligned;
    if (bug == BoxBug::kPlace) to += 64;
    if (threadIdx.x == 0) {
      phase_make(&full[0], 2);
      if (bug != BoxBug::kNoFence) fence_operands();
      if (bug == BoxBug::kUnfenced) store_piece(to + 16, make_uint4(0, 0, 0, 0));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      phase_arrive_expecting(&full[0], bug == BoxBug::kBytes ? kBoxBytes : 2 * kBoxBytes);
      copy_box(to, map, 0, row, head, &full[0]);
      copy_box(to + kBoxBytes, map, 64, row, head, &full[0]);
    }
    if (threadIdx.x == 1) phase_arrive(&full[0]);
    if (bug == BoxBug::kNoWait) return;
    phase_wait(&full[0], 0);
    if (threadIdx.x != 2) return;
    for (uint32_t block = 0; block < 2; block++) {
      std::vector<uint16_t>& halves = block == 0 ? result.left : result.right;
      halves.resize(kBox * 64);
      for (uint32_t r = 0; r < kBox; r++) {
        for (uint32_t piece = 0; piece < 8; piece++) std::memcpy(&halves[r * 64 + piece * 8], to + block * kBoxBytes + piece_of(r, piece), 16);
      }
    }
  };
  const char* sentence = emulation::run({"test", dim3(1), dim3(64), kOperandAligned + 2 * kBoxBytes, seed}, kernel);
  if (sentence != nullptr) result.fault = sentence;
  return result;
}

}  // namespace

TEST("hopper: boxes of a tensor map are what lies there, swizzled, and zeros outside") {
  const std::vector<uint16_t> rows = halves(static_cast<size_t>(kHeads * kCapacity) * 128, 3);
  for (uint64_t seed = 0; seed < 20; seed++) {
    for (const auto& [row, head] : {std::pair{0, 0}, {1, 1}, {4, 1}, {-3, 0}, {kCount, 1}, {0, kHeads}}) {
      const Boxes got = copy_boxes(rows, row, head, seed);
      EXPECT_EQ(got.fault, "");
      bool same = got.left.size() == kBox * 64;
      for (int32_t r = 0; same && r < kBox; r++) {
        const bool inside = row + r >= 0 && row + r < kCount && head < kHeads;
        for (int32_t i = 0; i < 128; i++) {
          const uint16_t want = inside ? rows[static_cast<size_t>((head * kCapacity + row + r) * 128 + i)] : 0;
          same = same && (i < 64 ? got.left : got.right)[static_cast<size_t>(r * 64 + i % 64)] == want;
        }
      }
      EXPECT(same);
    }
  }
}

TEST("hopper: boxes of no map, to wrong places, not waited for or counted wrongly are reported") {
  const std::vector<uint16_t> rows = halves(static_cast<size_t>(kHeads * kCapacity) * 128, 3);
  EXPECT(has(copy_boxes(rows, 0, 0, 1, BoxBug::kNoMap).fault, "a tensor map that was not made"));
  EXPECT(has(copy_boxes(rows, 0, 0, 1, BoxBug::kNoFence).fault, "made and not fenced"));
  EXPECT(has(copy_boxes(rows, 0, 0, 1, BoxBug::kUnfenced).fault, "has not fenced"));
  EXPECT(has(copy_boxes(rows, 0, 0, 1, BoxBug::kPlace).fault, "where 128 bytes do not begin"));
  // Whoever does not wait may have left before they land; a phase of half the bytes may be complete after one of two, or never.
  const Boxes whole = copy_boxes(rows, 0, 0, 1);
  int late = 0, torn = 0;
  for (uint64_t seed = 0; seed < 20; seed++) {
    late += has(copy_boxes(rows, 0, 0, seed, BoxBug::kNoWait).fault, "before a copy by tensor map had landed");
    const Boxes half = copy_boxes(rows, 0, 0, seed, BoxBug::kBytes);
    torn += has(half.fault, "phase") || has(half.fault, "had landed") || half.left != whole.left || half.right != whole.right;
  }
  EXPECT(late > 0);
  EXPECT(torn > 0);
}

TEST("hopper: maps that the driver refuses are refused") {
  const std::vector<uint16_t> rows = halves(1024, 3);
  TensorMap map{};
  EXPECT(make_tensor_map(map, {rows.data(), 1, 8, 8, 128, 8}));
  EXPECT(!make_tensor_map(map, {rows.data() + 1, 1, 8, 8, 64, 8}));  // not at 16 bytes
  EXPECT(!make_tensor_map(map, {rows.data(), 1, 8, 8, 60, 8}));      // rows are not
  EXPECT(!make_tensor_map(map, {rows.data(), 1, 8, 8, 128, 257}));
  EXPECT(!make_tensor_map(map, {rows.data(), 1, 8, 0, 128, 8}));
  const auto runtime = Runtime::open({});
  EXPECT(runtime->facts().tma);
  EXPECT(runtime->describe_rows(map, {rows.data(), 1, 8, 8, 128, 8}));
  EXPECT(!runtime->describe_rows(map, {rows.data(), 1, 8, 8, 60, 8}));
  EXPECT(!runtime->facts().tma);  // and from then on none is asked for
  EXPECT(!runtime->describe_rows(map, {rows.data(), 1, 8, 8, 128, 8}));
}
