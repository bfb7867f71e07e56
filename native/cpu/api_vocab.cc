// Full-vocabulary work: biases, penalties, drawing, log probabilities, divergence.
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>

#include "context.h"
#include "isa.h"
#include "kernel_checks.h"
#include "sampling.h"

using namespace kvasir;

namespace {

// Runs body(row, pool) for every row: one row with all workers inside it, or one row a worker (pool is null then).
// The first error thrown, by row, is thrown here.
template <class F>
void for_rows(kvasir_context* ctx, int32_t rows, F&& body) {
  if (rows == 1) {
    body(0, ctx->pool.get());
    return;
  }
  std::mutex mutex;
  std::exception_ptr error;
  int32_t failed = rows;
  ctx->pool->run(rows, [&](int row, int) {
    try {
      body(row, static_cast<Pool*>(nullptr));
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex);
      if (row < failed) {
        failed = row;
        error = std::current_exception();
      }
    }
  });
  if (error) std::rethrow_exception(error);
}

}  // namespace

extern "C" {

int32_t kvasir_add_logits(kvasir_context* ctx, kvasir_tensor logits, int32_t row, const int32_t* ids,
                          const float* values, int32_t count) {
  return guard([&] {
    float* data = check_logit_row(*ctx->table, logits, row, ids, values, count);
    for (int32_t i = 0; i < count; i++) data[ids[i]] += values[i];
  });
}

int32_t kvasir_penalize(kvasir_context* ctx, kvasir_tensor logits, int32_t row, const int32_t* tokens,
                        const int32_t* counts, int32_t count, float repetition, float presence, float frequency) {
  return guard([&] {
    float* data = check_logit_row(*ctx->table, logits, row, tokens, counts, count);
    for (int32_t i = 0; i < count; i++) {
      const double logit = static_cast<double>(data[tokens[i]]), factor = static_cast<double>(repetition);
      const double scaled = logit > 0 ? logit / factor : logit * factor;
      data[tokens[i]] = static_cast<float>(scaled - static_cast<double>(presence) -
                                           static_cast<double>(counts[i]) * static_cast<double>(frequency));
    }
  });
}

int32_t kvasir_sample(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor logits, const double* params) {
  return guard([&] {
    const Logits from = check_logits(*ctx->table, logits, "logits");
    const Tensor& to = plain_tensor(*ctx->table, out, KVASIR_I32, "sample out");
    expect_shape(to, {from.rows}, "sample out");
    if (from.rows > 0 && params == nullptr) fail(KVASIR_ARGUMENT, "Cannot sample: parameters are missing");
    for_rows(ctx, from.rows, [&](int32_t row, Pool* pool) {
      const double* p = params + static_cast<size_t>(row) * KVASIR_SAMPLE_FIELDS;
      const SampleParams wanted = {p[0], p[1], p[2], p[3], p[4], p[5]};
      check_params(wanted);
      const LogitRow values(*ctx->isa->vector, pool, from.row(row), static_cast<size_t>(from.vocab), row);
      to.as<int32_t>()[row] = draw(values, wanted);
    });
  });
}

int32_t kvasir_token_logprobs(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor logits, kvasir_tensor tokens) {
  return guard([&] {
    const Logits from = check_logits(*ctx->table, logits, "logits");
    const Tensor& ids = plain_tensor(*ctx->table, tokens, KVASIR_I32, "token_logprobs tokens");
    const Tensor& to = plain_tensor(*ctx->table, out, KVASIR_F32, "token_logprobs out");
    expect_shape(ids, {from.rows}, "token_logprobs tokens");
    expect_shape(to, {from.rows}, "token_logprobs out");
    const int32_t* token = ids.as<int32_t>();
    for (int32_t row = 0; row < from.rows; row++) {
      if (token[row] < 0 || token[row] >= from.vocab) {
        fail(KVASIR_ARGUMENT, "Cannot use token %d: logits have %d entries", token[row], from.vocab);
      }
    }
    for_rows(ctx, from.rows, [&](int32_t row, Pool* pool) {
      const LogitRow values(*ctx->isa->vector, pool, from.row(row), static_cast<size_t>(from.vocab), row);
      const double logit = static_cast<double>(values[static_cast<size_t>(token[row])]);
      to.as<float>()[row] = static_cast<float>(logit - values.log_sum_exp());
    });
  });
}

int32_t kvasir_top_logprobs(kvasir_context* ctx, kvasir_tensor ids, kvasir_tensor logprobs, kvasir_tensor logits) {
  return guard([&] {
    const Logits from = check_logits(*ctx->table, logits, "logits");
    const TopCall to = check_top_logprobs(*ctx->table, ids, logprobs, from);
    if (to.k == 0) return;
    for_rows(ctx, from.rows, [&](int32_t row, Pool* pool) {
      const LogitRow values(*ctx->isa->vector, pool, from.row(row), static_cast<size_t>(from.vocab), row);
      const double sum = values.log_sum_exp();
      size_t at = static_cast<size_t>(row) * static_cast<size_t>(to.k);
      for (uint64_t key : values.top(static_cast<size_t>(to.k))) {
        const size_t id = LogitRow::id_of(key);
        to.ids[at] = static_cast<int32_t>(id);
        to.logprobs[at++] = static_cast<float>(static_cast<double>(values[id]) - sum);
      }
    });
  });
}

int32_t kvasir_kl_divergence(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor base, kvasir_tensor logits) {
  return guard([&] {
    const Logits q = check_logits(*ctx->table, logits, "logits");
    const Logits p = check_base_logits(*ctx->table, base, q);
    const Tensor& to = plain_tensor(*ctx->table, out, KVASIR_F32, "kl_divergence out");
    expect_shape(to, {q.rows}, "kl_divergence out");
    for_rows(ctx, q.rows, [&](int32_t row, Pool* pool) {
      const VectorKernels& kernels = *ctx->isa->vector;
      const size_t vocab = static_cast<size_t>(q.vocab);
      const LogitRow base_row(kernels, pool, p.row(row), vocab, row), other(kernels, pool, q.row(row), vocab, row);
      const double max = static_cast<double>(base_row.max());
      if (!std::isfinite(max) || !std::isfinite(other.max())) {
        fail(KVASIR_ARGUMENT, "Cannot compare logits: the largest of row %d is infinite", row);
      }
      // KL = sum of p (b - l) - (lse(b) - lse(l)), all in double: 1e-14 of the logits' size.
      double sums[2];
      kernels.divergence_sums(sums, p.row(row), q.row(row), vocab, max);
      const double value = sums[1] / sums[0] - (max + std::log(sums[0])) + other.log_sum_exp();
      to.as<float>()[row] = static_cast<float>(value);
    });
  });
}

}  // extern "C"
