// Drawing a token and ranking logits; the rule is native/cpu/sampling.h's. A block a row of logits.
//
// A place in the order (falling logit, lower ids first) is found by its digits: a pass over the row adds up, for each of the 256
// values of the key's next digit, how many candidates have it and what they weigh; the digit in which the sum reaches the bound is
// taken, and the next pass looks inside. Seven passes find one of 2^56 keys. Weights are summed as multiples of 2^-45, in integers:
// sums do not depend on the order of threads, and differ from exact ones by less than 2^-27 of the largest weight.
//
// Ladder (not measured: no device at hand)
//   1  one block of 512 threads a row (with 1024 ptxas spilled): a pass over 128K logits is half a megabyte out of L2. Several blocks a row would need passes
//      to be launches.
#include "kernels.h"
#include "launch.h"
#include "mutants.h"
#include "vocab.cuh"

namespace kvasir {
namespace {

constexpr double kUnit = 35184372088832.0;  // 2^45: 2^18 weights of 1 fit 64 bits, and 2^24 weights leave a digit
constexpr int kDigits = 7;                  // of 8 bits: 32 of the logit, 24 of the id

// Rising keys are falling logits, then rising ids.
__device__ __forceinline__ uint64_t sort_key(float logit, int32_t id) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);  // -0 becomes 0, which it equals
  const uint32_t rising = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  const uint32_t low = static_cast<uint32_t>(id) & 0xffffffu;
  return static_cast<uint64_t>(~rising) << 24 | (is_seeded(Mutant::kSampleTie) ? 0xffffffu - low : low);
}

__device__ __forceinline__ unsigned long long fixed(double weight) {
  return static_cast<unsigned long long>(weight * kUnit + 0.5);
}

struct Place {
  uint64_t key;              // of the last candidate inside
  unsigned long long sum;    // of the weights up to it
  unsigned long long count;  // candidates up to it
};

struct Histogram {
  unsigned long long sums[256];
  uint32_t counts[256];
  Place found;
};

enum class Reach { kCount, kAtLeast, kAbove };

// The first candidate, among those with keys up to `end`, at which the running count reaches, or the running sum reaches or exceeds,
// the bound; the last of them if none does. weights null: counts only. All threads get it.
__device__ Place find_place(Histogram& h, const float* logits, const double* weights, int32_t vocab, uint64_t end, Reach reach,
                            double bound) {
  uint64_t prefix = 0;
  unsigned long long sum = 0, count = 0;
  for (int digit = kDigits - 1; digit >= 0; digit--) {
    for (int i = static_cast<int>(threadIdx.x); i < 256; i += kVocabThreads) h.sums[i] = 0, h.counts[i] = 0;
    __syncthreads();
    for (int32_t id = static_cast<int32_t>(threadIdx.x); id < vocab; id += kVocabThreads) {
      const uint64_t key = sort_key(logits[id], id);
      if (key > end || key >> (8 * digit + 8) != prefix) continue;
      const int value = static_cast<int>(key >> 8 * digit & 255);
      atomicAdd(&h.counts[value], 1u);
      if (weights != nullptr) atomicAdd(&h.sums[value], fixed(weights[id]));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int chosen = -1;
      unsigned long long before_sum = sum, before_count = count, chosen_sum = 0, chosen_count = 0;
      for (int value = 0; value < 256; value++) {
        if (h.counts[value] == 0) continue;
        chosen = value, chosen_sum = before_sum, chosen_count = before_count;
        before_sum += h.sums[value], before_count += h.counts[value];
        const double reached = reach == Reach::kCount ? static_cast<double>(before_count) : static_cast<double>(before_sum);
        if (reach == Reach::kAbove ? reached > bound : reached >= bound) break;
      }
      h.found.key = prefix << 8 | static_cast<uint64_t>(chosen);
      h.found.sum = digit == 0 ? chosen_sum + h.sums[chosen] : chosen_sum;
      h.found.count = digit == 0 ? chosen_count + h.counts[chosen] : chosen_count;
    }
    __syncthreads();
    prefix = h.found.key, sum = h.found.sum, count = h.found.count;
    __syncthreads();
  }
  return {prefix, sum, count};
}

__device__ __forceinline__ int32_t id_of(uint64_t key) {
  const int32_t low = static_cast<int32_t>(key & 0xffffffu);
  return is_seeded(Mutant::kSampleTie) ? 0xffffff - low : low;
}

__global__ void __launch_bounds__(kVocabThreads) sample_kernel(int32_t* out, Logits logits, const SampleParams* all, double* scratch,
                                                                uint32_t* problem) {
  KVASIR_SHARED(Histogram, h, [1]);
  KVASIR_SHARED(double, parts, [kVocabThreads / 32]);
  const int32_t row = static_cast<int32_t>(blockIdx.x), vocab = logits.vocab;
  const float* from = logits.data + static_cast<size_t>(row) * vocab;
  double* weights = scratch + static_cast<size_t>(row) * vocab;
  const SampleParams p = all[row];
  const double most = row_max(parts, from, vocab);
  note_problem(problem, most);
  if (most != most) {
    if (threadIdx.x == 0) out[row] = -1;
    return;
  }
  if (p.temperature == 0) {
    const Place best = find_place(h[0], from, nullptr, vocab, ~uint64_t{0}, Reach::kCount, 1);
    if (threadIdx.x == 0) out[row] = id_of(best.key);
    return;
  }
  double sum = 0;
  int32_t heavy = 0;
  for (int32_t id = static_cast<int32_t>(threadIdx.x); id < vocab; id += kVocabThreads) {
    const double logit = static_cast<double>(from[id]);
    // Equal to the largest weighs 1 also where both are infinite and their difference is no number.
    const double weight = logit == most ? 1.0 : exp((logit - most) / p.temperature);
    weights[id] = weight;
    sum += static_cast<double>(fixed(weight));
    heavy += weight >= p.min_p ? 1 : 0;
  }
  Place end = {~uint64_t{0}, static_cast<unsigned long long>(block_sum(parts, sum)), static_cast<unsigned long long>(vocab)};
  const double likely = block_sum(parts, static_cast<double>(heavy));
  if (p.top_k > 0 && p.top_k < static_cast<double>(vocab)) {
    end = find_place(h[0], from, weights, vocab, end.key, Reach::kCount, p.top_k);
  }
  if (p.top_p < 1) {
    end = find_place(h[0], from, weights, vocab, end.key, Reach::kAtLeast, p.top_p * static_cast<double>(end.sum));
  }
  // Weights fall along the order: what is heavy enough comes first.
  if (p.min_p > 0 && likely < static_cast<double>(end.count)) {
    end = find_place(h[0], from, weights, vocab, end.key, Reach::kCount, likely < 1 ? 1 : likely);
  }
  const Place drawn = find_place(h[0], from, weights, vocab, end.key, Reach::kAbove, p.uniform * static_cast<double>(end.sum));
  if (threadIdx.x == 0) out[row] = id_of(drawn.key);
}

__global__ void __launch_bounds__(kVocabThreads) top_logprobs_kernel(TopCall c, Logits logits, uint32_t* problem) {
  KVASIR_SHARED(Histogram, h, [1]);
  KVASIR_SHARED(double, parts, [kVocabThreads / 32]);
  KVASIR_SHARED(int32_t, taken, [1]);
  const int32_t vocab = logits.vocab;
  const float* from = logits.data + static_cast<size_t>(blockIdx.x) * vocab;
  int32_t* ids = c.ids + static_cast<size_t>(blockIdx.x) * c.k;
  float* logprobs = c.logprobs + static_cast<size_t>(blockIdx.x) * c.k;
  if (threadIdx.x == 0) taken[0] = 0;
  const double most = row_max(parts, from, vocab);
  note_problem(problem, most);
  const double whole = row_log_sum(parts, from, vocab, most);
  const Place end = find_place(h[0], from, nullptr, vocab, ~uint64_t{0}, Reach::kCount, static_cast<double>(c.k));
  // In the order of threads first, then each to its rank.
  for (int32_t id = static_cast<int32_t>(threadIdx.x); id < vocab; id += kVocabThreads) {
    if (sort_key(from[id], id) <= end.key) {
      const int32_t at = atomicAdd(&taken[0], 1);
      if (at < c.k) logprobs[at] = __int_as_float(id);
    }
  }
  __syncthreads();
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < c.k; i += kVocabThreads) {
    const int32_t id = __float_as_int(logprobs[i]);
    const uint64_t key = sort_key(from[id], id);
    int32_t rank = 0;
    for (int32_t other = 0; other < c.k; other++) {
      const int32_t its = __float_as_int(logprobs[other]);
      if (sort_key(from[its], its) < key) rank++;
    }
    ids[rank] = id;
  }
  __syncthreads();
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < c.k; i += kVocabThreads) {
    logprobs[i] = most != most ? NAN : static_cast<float>(static_cast<double>(from[ids[i]]) - whole);
  }
}

}  // namespace

void launch_sample(Runtime& runtime, int32_t* out, const Logits& logits, const SampleParams* params, double* weights,
                   uint32_t* problem) {
  launch(runtime, "sample", sample_kernel, dim3(static_cast<uint32_t>(logits.rows)), dim3(kVocabThreads), 0, out, logits, params,
         weights, problem);
}

void launch_top_logprobs(Runtime& runtime, const TopCall& call, const Logits& logits, uint32_t* problem) {
  launch(runtime, "top_logprobs", top_logprobs_kernel, dim3(static_cast<uint32_t>(logits.rows)), dim3(kVocabThreads), 0, call, logits,
         problem);
}

}  // namespace kvasir
