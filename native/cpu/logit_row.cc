#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "context.h"
#include "parallel.h"
#include "sampling.h"

namespace kvasir {
namespace {

// Elements a worker should get at least; multiples of kMaximaBlock.
constexpr size_t kMaxGrain = 65536, kExpGrain = 8192;

// Runs body over [0, count) in blocks of kMaximaBlock, in parallel when there is a pool.
template <class F>
void for_blocks(Pool* pool, size_t count, size_t grain, F&& body) {
  const size_t blocks = (count + kMaximaBlock - 1) / kMaximaBlock;
  auto piece = [&](size_t from, size_t to) { body(from * kMaximaBlock, std::min(count, to * kMaximaBlock)); };
  if (pool == nullptr) piece(0, blocks);
  else parallel_for(*pool, blocks, grain / kMaximaBlock, piece);
}

// Conversion of what no float holds is undefined in C++.
float to_float(double x) {
  constexpr double kMost = 3.4028234663852886e38;
  return static_cast<float>(x > kMost ? HUGE_VAL : x < -kMost ? -HUGE_VAL : x);
}

// A temperature below 1e-300 would make the factor infinite, and 0 * infinity NaN; the weights are 0 or 1 either way.
double weight_factor(double temperature) { return 1 / std::max(temperature, 1e-300); }

}  // namespace

LogitRow::LogitRow(const VectorKernels& kernels, Pool* pool, const float* logits, size_t vocab, int32_t row)
    : kernels_(kernels), pool_(pool), logits_(logits), vocab_(vocab),
      maxima_((vocab + kMaximaBlock - 1) / kMaximaBlock) {
  if (vocab == 0) fail(KVASIR_ARGUMENT, "Cannot use row %d: the vocabulary is empty", row);
  std::vector<char> bad(maxima_.size(), 0);  // by first block of a piece: no two pieces write the same
  for_blocks(pool, vocab, kMaxGrain, [&](size_t from, size_t to) {
    bad[from / kMaximaBlock] = kernels.block_maxima(maxima_.data() + from / kMaximaBlock, logits + from, to - from);
  });
  for (char b : bad) {
    if (b != 0) fail(KVASIR_ARGUMENT, "Cannot use row %d: logits hold NaN", row);
  }
  max_ = *std::max_element(maxima_.begin(), maxima_.end());
}

int32_t LogitRow::best() const {
  const size_t block = static_cast<size_t>(std::find(maxima_.begin(), maxima_.end(), max_) - maxima_.begin());
  size_t id = block * kMaximaBlock;
  while (logits_[id] != max_) id++;
  return static_cast<int32_t>(id);
}

double LogitRow::sum_exp(double temperature) const {
  const double factor = weight_factor(temperature);
  // Per block group, then in order: the sum does not depend on which worker was faster.
  constexpr size_t kGroup = 32 * kMaximaBlock;
  std::vector<double> sums((vocab_ + kGroup - 1) / kGroup);
  auto group = [&](size_t from, size_t to) {
    for (; from < to; from++) {
      const size_t start = from * kGroup;
      sums[from] = kernels_.sum_exp(logits_ + start, std::min(kGroup, vocab_ - start), max_, factor);
    }
  };
  if (pool_ == nullptr) group(0, sums.size());
  else parallel_for(*pool_, sums.size(), kExpGrain / kGroup, group);
  double total = 0;
  for (double s : sums) total += s;
  return total;
}

double LogitRow::log_sum_exp() const {
  return std::isfinite(max_) ? static_cast<double>(max_) + std::log(sum_exp(1)) : static_cast<double>(max_);
}

uint64_t LogitRow::key(size_t id) const {
  const float logit = logits_[id] + 0.0f;  // -0 becomes 0, which it equals
  uint32_t bits;
  std::memcpy(&bits, &logit, 4);
  const uint32_t rising = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(~rising) << 32 | static_cast<uint32_t>(id);
}

double LogitRow::weight(uint64_t key, double temperature) const {
  const float logit = logits_[id_of(key)];
  // Equal to the largest weighs 1 even where both are infinite and their difference is not a number.
  if (logit == max_) return 1;
  return std::exp((static_cast<double>(logit) - static_cast<double>(max_)) / temperature);
}

void LogitRow::bucket_sums(double* sums, double temperature, double scale) const {
  constexpr size_t kPiece = 32768;  // fixed: sums must not depend on the number of threads
  const size_t pieces = (vocab_ + kPiece - 1) / kPiece;
  std::vector<double> parts(pieces * kBuckets);
  auto piece = [&](int p, int) {
    const size_t start = static_cast<size_t>(p) * kPiece;
    kernels_.bucket_sums(parts.data() + static_cast<size_t>(p) * kBuckets, logits_ + start,
                         std::min(kPiece, vocab_ - start), max_, weight_factor(temperature), scale);
  };
  if (pool_ != nullptr) pool_->run(static_cast<int>(pieces), piece);
  else for (size_t p = 0; p < pieces; p++) piece(static_cast<int>(p), 0);
  for (size_t b = 0; b < kBuckets; b++) {
    sums[b] = 0;
    for (size_t p = 0; p < pieces; p++) sums[b] += parts[p * kBuckets + b];
  }
}

std::vector<uint64_t> LogitRow::in_bucket(size_t bucket, double scale) const {
  const double max = max_, from = static_cast<double>(bucket);
  const double to = bucket == kBuckets - 1 ? HUGE_VAL : from + 1;
  // Floats a little beyond the bucket's ends; then the same arithmetic as in the kernel, so that each token is in
  // exactly one bucket.
  const float low = std::nextafter(to_float(max - to / scale), -HUGE_VALF);
  const float high = std::nextafter(to_float(max - from / scale), HUGE_VALF);
  std::vector<uint64_t> keys;
  constexpr size_t kPiece = 4096;
  uint32_t ids[kPiece];
  for (size_t start = 0; start < vocab_; start += kPiece) {
    const size_t count = kernels_.find_between(ids, logits_ + start, std::min(kPiece, vocab_ - start), low, high);
    for (size_t i = 0; i < count; i++) {
      const double at = (max - static_cast<double>(logits_[start + ids[i]])) * scale;
      if (at >= from && at < to) keys.push_back(key(start + ids[i]));
    }
  }
  return keys;
}

std::vector<uint64_t> LogitRow::at_least(double threshold, size_t most) const {
  std::vector<uint64_t> keys;
  for (size_t block = 0; block < maxima_.size() && keys.size() <= most; block++) {
    if (!(static_cast<double>(maxima_[block]) >= threshold)) continue;
    const size_t end = std::min(vocab_, (block + 1) * kMaximaBlock);
    for (size_t id = block * kMaximaBlock; id < end; id++) {
      if (static_cast<double>(logits_[id]) >= threshold) keys.push_back(key(id));
    }
  }
  return keys;
}

std::vector<uint64_t> LogitRow::top(size_t k) const {
  if (k == 0) return {};
  // The k-th largest of the block maxima bounds the k-th largest logit from below, and few others reach it.
  const bool by_blocks = k <= maxima_.size() / 2;
  std::vector<float> ranked = by_blocks ? maxima_ : std::vector<float>(logits_, logits_ + vocab_);
  std::nth_element(ranked.begin(), ranked.begin() + static_cast<long>(k - 1), ranked.end(), std::greater<float>());
  std::vector<uint64_t> keys = at_least(static_cast<double>(ranked[k - 1]));
  std::nth_element(keys.begin(), keys.begin() + static_cast<long>(k - 1), keys.end());
  keys.resize(k);
  std::sort(keys.begin(), keys.end());
  return keys;
}

}  // namespace kvasir
