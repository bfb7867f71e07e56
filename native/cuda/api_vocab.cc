// Full-vocabulary work: biases, penalties, drawing, log probabilities, divergence. What kernels find wrong in logits is said by
// the read that waits for them.
#include <cmath>

#include "kernels.h"

using namespace kvasir;

namespace {

void check_rows(const Logits& logits) {
  if (logits.rows > 0 && logits.vocab == 0) fail(KVASIR_ARGUMENT, "Cannot use row 0: the vocabulary is empty");
  if (logits.vocab > 1 << 24) fail(KVASIR_ARGUMENT, "Cannot use logits: %d entries, at most %d", logits.vocab, 1 << 24);
}

}  // namespace

extern "C" {

int32_t kvasir_add_logits(kvasir_context* ctx, kvasir_tensor logits, int32_t row, const int32_t* ids,
                          const float* values, int32_t count) {
  return guard([&] {
    float* data = check_logit_row(*ctx->table, logits, row, ids, values, count);
    // In pieces that a staging holds: masks of grammars name most of a vocabulary.
    constexpr int32_t kMost = static_cast<int32_t>(Runtime::kMostStaged / 8);
    for (int32_t first = 0; first < count; first += kMost) {
      const int32_t some = count - first < kMost ? count - first : kMost;
      const int32_t* at = ctx->runtime->stage(ids + first, static_cast<size_t>(some));
      const float* by = ctx->runtime->stage(values + first, static_cast<size_t>(some));
      launch_add_logits(*ctx->runtime, data, at, by, some);
    }
  });
}

int32_t kvasir_penalize(kvasir_context* ctx, kvasir_tensor logits, int32_t row, const int32_t* tokens,
                        const int32_t* counts, int32_t count, float repetition, float presence, float frequency) {
  return guard([&] {
    float* data = check_logit_row(*ctx->table, logits, row, tokens, counts, count);
    constexpr int32_t kMost = static_cast<int32_t>(Runtime::kMostStaged / 8);
    for (int32_t first = 0; first < count; first += kMost) {
      const int32_t some = count - first < kMost ? count - first : kMost;
      const int32_t* at = ctx->runtime->stage(tokens + first, static_cast<size_t>(some));
      const int32_t* times = ctx->runtime->stage(counts + first, static_cast<size_t>(some));
      launch_penalize(*ctx->runtime, data, at, times, some, repetition, presence, frequency);
    }
  });
}

int32_t kvasir_sample(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor logits, const double* params) {
  return guard([&] {
    const Logits from = check_logits(*ctx->table, logits, "logits");
    const Tensor& to = plain_tensor(*ctx->table, out, KVASIR_I32, "sample out");
    expect_shape(to, {from.rows}, "sample out");
    if (from.rows == 0) return;
    if (params == nullptr) fail(KVASIR_ARGUMENT, "Cannot sample: parameters are missing");
    check_rows(from);
    std::vector<SampleParams> wanted(static_cast<size_t>(from.rows));
    bool draws = false;
    for (SampleParams& p : wanted) {
      p = {params[0], params[1], params[2], params[3], params[4], params[5]};
      check_params(p);
      if (p.temperature > 0 && p.typical_p < 1) fail(KVASIR_UNSUPPORTED, "Cannot sample: typical_p is not there on a device, leave it at 1");
      draws = draws || p.temperature > 0;
      params += KVASIR_SAMPLE_FIELDS;
    }
    double* weights = draws ? ctx->scratch->array<double>(static_cast<size_t>(from.rows) * static_cast<size_t>(from.vocab)) : nullptr;
    ctx->ints.forget(to.data, to.bytes);
    launch_sample(*ctx->runtime, to.as<int32_t>(), from, ctx->runtime->stage(wanted.data(), wanted.size()), weights, ctx->problem);
  });
}

int32_t kvasir_token_logprobs(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor logits, kvasir_tensor tokens) {
  return guard([&] {
    const Logits from = check_logits(*ctx->table, logits, "logits");
    const Tensor& ids = plain_tensor(*ctx->table, tokens, KVASIR_I32, "token_logprobs tokens");
    const Tensor& to = plain_tensor(*ctx->table, out, KVASIR_F32, "token_logprobs out");
    expect_shape(ids, {from.rows}, "token_logprobs tokens");
    expect_shape(to, {from.rows}, "token_logprobs out");
    if (from.rows == 0) return;
    const int32_t* token = ctx->host_ints(ids);
    for (int32_t row = 0; row < from.rows; row++) {
      if (token[row] < 0 || token[row] >= from.vocab) {
        fail(KVASIR_ARGUMENT, "Cannot use token %d: logits have %d entries", token[row], from.vocab);
      }
    }
    launch_token_logprobs(*ctx->runtime, to.as<float>(), from, ids.as<int32_t>(), ctx->problem);
  });
}

int32_t kvasir_top_logprobs(kvasir_context* ctx, kvasir_tensor ids, kvasir_tensor logprobs, kvasir_tensor logits) {
  return guard([&] {
    const Logits from = check_logits(*ctx->table, logits, "logits");
    const TopCall to = check_top_logprobs(*ctx->table, ids, logprobs, from);
    if (to.k == 0 || from.rows == 0) return;
    check_rows(from);
    const Tensor& best = ctx->tensor(ids, "top_logprobs ids");
    ctx->ints.forget(best.data, best.bytes);
    launch_top_logprobs(*ctx->runtime, to, from, ctx->problem);
  });
}

int32_t kvasir_kl_divergence(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor base, kvasir_tensor logits) {
  return guard([&] {
    const Logits q = check_logits(*ctx->table, logits, "logits");
    const Logits p = check_base_logits(*ctx->table, base, q);
    const Tensor& to = plain_tensor(*ctx->table, out, KVASIR_F32, "kl_divergence out");
    expect_shape(to, {q.rows}, "kl_divergence out");
    if (q.rows == 0) return;
    check_rows(q);
    launch_kl_divergence(*ctx->runtime, to.as<float>(), p, q, ctx->problem);
  });
}

}  // extern "C"
