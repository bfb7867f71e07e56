// Drawing a token, and rankings of one row of logits. The rule, equal in every backend:
//   temperature 0: the largest logit, the lowest id among equals. Else candidate i weighs
//   exp((logit_i - max) / temperature) in double (1 where it equals the largest); candidates in falling order of logit,
//   lower ids first; top_k keeps the first k; typical_p (Meister et al. 2023, section 4) then those whose surprise lies
//   nearest to the entropy of what is left, the likelier first among equals, until their sum reaches typical_p of all, at least one; top_p
//   then the shortest prefix whose sum reaches top_p of their sum, at least one; min_p then drops what weighs less than min_p of the
//   first; the first whose running sum exceeds `uniform` of the sum
//   of what is left is drawn.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "sample_params.h"
#include "vector.h"

namespace kvasir {

class Pool;

// One row of logits with the maxima of its blocks: what a search over the row starts from. The row must outlive it.
class LogitRow {
 public:
  // Throws Error{KVASIR_ARGUMENT} when the row is empty or holds NaN. pool is null inside a job.
  LogitRow(const VectorKernels& kernels, Pool* pool, const float* logits, size_t vocab, int32_t row);

  float max() const { return max_; }
  size_t size() const { return vocab_; }
  float operator[](size_t id) const { return logits_[id]; }
  int32_t best() const;  // lowest id of the largest logit
  // Sum over all of exp((logit - max) / temperature); max must be finite.
  double sum_exp(double temperature) const;
  double log_sum_exp() const;
  // Weight of a key's token: exp((logit - max) / temperature).
  double weight(uint64_t key, double temperature) const;
  // sums[kBuckets] of the weights, by bucket: (max - logit) * scale, cut off, at most the last.
  void bucket_sums(double* sums, double temperature, double scale) const;
  // Sort keys of one bucket, in no order.
  std::vector<uint64_t> in_bucket(size_t bucket, double scale) const;
  // Sort keys (see key()) of all logits >= threshold, in no order; stops at more than `most`.
  std::vector<uint64_t> at_least(double threshold, size_t most = SIZE_MAX) const;
  // Sort keys of the k best, in order; k <= size().
  std::vector<uint64_t> top(size_t k) const;

  // Rising keys are falling logits, then rising ids; id_of() gives the id back.
  uint64_t key(size_t id) const;
  static size_t id_of(uint64_t key) { return static_cast<uint32_t>(key); }

 private:
  const VectorKernels& kernels_;
  Pool* pool_;
  const float* logits_;
  size_t vocab_;
  float max_;
  std::vector<float> maxima_;
};

int32_t draw(const LogitRow& row, const SampleParams& p);

}  // namespace kvasir
