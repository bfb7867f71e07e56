// Biases, penalties, log probabilities and divergence.
//
// Ladder (not measured: no device at hand)
//   1  a thread an id; a block a row for what sums over the vocabulary, in double.
#include "kernels.h"
#include "launch.h"
#include "vocab.cuh"

namespace kvasir {
namespace {

constexpr int kThreads = 256;

// An id may be named twice: both count.
__global__ void __launch_bounds__(kThreads) add_logits_kernel(float* row, const int32_t* ids, const float* values, int32_t count) {
  const int32_t i = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (i < count) atomicAdd(&row[ids[i]], values[i]);
}

// Tokens are distinct but where a caller repeats one; then the order counts, and one thread does it.
__global__ void penalize_kernel(float* row, const int32_t* tokens, const int32_t* counts, int32_t count, double repetition,
                                double presence, double frequency) {
  if (threadIdx.x != 0) return;
  for (int32_t i = 0; i < count; i++) {
    const double logit = static_cast<double>(row[tokens[i]]);
    const double scaled = logit > 0 ? logit / repetition : logit * repetition;
    row[tokens[i]] = static_cast<float>(scaled - presence - static_cast<double>(counts[i]) * frequency);
  }
}

__global__ void __launch_bounds__(kVocabThreads) token_logprobs_kernel(float* out, Logits logits, const int32_t* tokens, uint32_t* problem) {
  KVASIR_SHARED(double, parts, [kVocabThreads / 32]);
  const float* row = logits.data + static_cast<size_t>(blockIdx.x) * logits.vocab;
  const double most = row_max(parts, row, logits.vocab);
  note_problem(problem, most);
  const double whole = row_log_sum(parts, row, logits.vocab, most);
  if (threadIdx.x == 0) out[blockIdx.x] = static_cast<float>(static_cast<double>(row[tokens[blockIdx.x]]) - whole);
}

// KL = sum of p (b - l) - (lse(b) - lse(l)), all in double.
__global__ void __launch_bounds__(kVocabThreads) divergence_kernel(float* out, Logits base, Logits logits, uint32_t* problem) {
  KVASIR_SHARED(double, parts, [kVocabThreads / 32]);
  const size_t at = static_cast<size_t>(blockIdx.x) * logits.vocab;
  const float *p = base.data + at, *q = logits.data + at;
  const double most = row_max(parts, p, logits.vocab), other = row_max(parts, q, logits.vocab);
  note_problem(problem, most, true);
  note_problem(problem, other, true);
  double weights = 0, products = 0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < logits.vocab; i += kVocabThreads) {
    const double b = static_cast<double>(p[i]), weight = exp(b - most);
    weights += weight;
    if (weight > 0) products += weight * (b - static_cast<double>(q[i]));
  }
  weights = block_sum(parts, weights);
  products = block_sum(parts, products);
  const double whole = row_log_sum(parts, q, logits.vocab, other);
  const bool finite = fabs(most) <= 3.5e38 && fabs(other) <= 3.5e38;
  if (threadIdx.x == 0) out[blockIdx.x] = finite ? static_cast<float>(products / weights - (most + log(weights)) + whole) : NAN;
}

}  // namespace

void launch_add_logits(Runtime& runtime, float* row, const int32_t* ids, const float* values, int32_t count) {
  launch(runtime, "add_logits", add_logits_kernel, dim3(blocks_of(count, kThreads)), dim3(kThreads), 0, row, ids, values, count);
}

void launch_penalize(Runtime& runtime, float* row, const int32_t* tokens, const int32_t* counts, int32_t count, float repetition,
                     float presence, float frequency) {
  launch(runtime, "penalize", penalize_kernel, dim3(1), dim3(32), 0, row, tokens, counts, count, static_cast<double>(repetition),
         static_cast<double>(presence), static_cast<double>(frequency));
}

void launch_token_logprobs(Runtime& runtime, float* out, const Logits& logits, const int32_t* tokens, uint32_t* problem) {
  launch(runtime, "token_logprobs", token_logprobs_kernel, dim3(static_cast<uint32_t>(logits.rows)), dim3(kVocabThreads), 0, out, logits,
         tokens, problem);
}

void launch_kl_divergence(Runtime& runtime, float* out, const Logits& base, const Logits& logits, uint32_t* problem) {
  launch(runtime, "kl_divergence", divergence_kernel, dim3(static_cast<uint32_t>(logits.rows)), dim3(kVocabThreads), 0, out, base, logits,
         problem);
}

}  // namespace kvasir
