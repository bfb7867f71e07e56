#include "kernel_checks.h"

#include <cmath>

#include "dtype.h"
#include "error.h"
#include "kvasir_backend.h"
#include "quant.h"

namespace kvasir {
namespace {

const Tensor& floats(Table& table, uint32_t id, const char* what) { return plain_tensor(table, id, KVASIR_F32, what); }

void expect_epsilon(float epsilon, const char* what) {
  if (epsilon >= 0 && std::isfinite(epsilon)) return;
  fail(KVASIR_ARGUMENT, "Cannot run %s: epsilon is %g, expected 0 or more", what, static_cast<double>(epsilon));
}

size_t rows_of(const Tensor& t) { return t.last() == 0 ? 0 : t.elements() / static_cast<size_t>(t.last()); }

// Elements behind one index of the first dimension of a tensor of rank 2 or 3.
int64_t row_elements(const Tensor& t) { return static_cast<int64_t>(t.shape[1]) * (t.rank == 3 ? t.shape[2] : 1); }

}  // namespace

const Tensor& plain_tensor(Table& table, uint32_t id, int32_t dtype, const char* what) {
  const Tensor& t = table.tensor(id, what);
  // Weights of rank 2 are repacked, and no kernel but matmul and embed reads one.
  expect_dtype(t, dtype, what);
  return t;
}

void expect_same_shape(const Tensor& t, const Tensor& like, const char* what) {
  bool same = t.rank == like.rank;
  for (int32_t i = 0; same && i < t.rank; i++) same = t.shape[i] == like.shape[i];
  if (same) return;
  fail(KVASIR_ARGUMENT, "Cannot use %s: shape %s, expected %s", what, shape_text(t.shape, t.rank).c_str(),
       shape_text(like.shape, like.rank).c_str());
}

NormCall check_rms_norm(Table& table, uint32_t out, uint32_t x, uint32_t weight, float epsilon) {
  const Tensor &from = floats(table, x, "rms_norm x"), &w = floats(table, weight, "rms_norm weight");
  const Tensor& to = floats(table, out, "rms_norm out");
  expect_same_shape(to, from, "rms_norm out");
  expect_shape(w, {from.last()}, "rms_norm weight");
  expect_epsilon(epsilon, "rms_norm");
  return {to.as<float>(), from.as<float>(), nullptr, w.as<float>(), rows_of(from), static_cast<size_t>(from.last())};
}

NormCall check_add_rms_norm(Table& table, uint32_t out, uint32_t x, uint32_t y, uint32_t weight, float epsilon) {
  const Tensor &sum = floats(table, x, "add_rms_norm x"), &more = floats(table, y, "add_rms_norm y");
  const Tensor &w = floats(table, weight, "add_rms_norm weight"), &to = floats(table, out, "add_rms_norm out");
  expect_same_shape(more, sum, "add_rms_norm y");
  expect_same_shape(to, sum, "add_rms_norm out");
  expect_shape(w, {sum.last()}, "add_rms_norm weight");
  expect_epsilon(epsilon, "add_rms_norm");
  if (sum.elements() > 0 && to.data == sum.data) fail(KVASIR_ARGUMENT, "Cannot run add_rms_norm: out is x");
  return {to.as<float>(), sum.as<float>(), more.as<float>(), w.as<float>(), rows_of(sum), static_cast<size_t>(sum.last())};
}

AddCall check_add(Table& table, uint32_t out, uint32_t x, uint32_t y) {
  const Tensor &a = floats(table, x, "add x"), &b = floats(table, y, "add y"), &to = floats(table, out, "add out");
  expect_same_shape(to, a, "add out");
  const bool is_row = b.rank == 1 && a.rank > 1;
  if (is_row) expect_shape(b, {a.last()}, "add y");
  else expect_same_shape(b, a, "add y");
  return {to.as<float>(), a.as<float>(), b.as<float>(), rows_of(a), static_cast<size_t>(a.last()), is_row};
}

GluCall check_glu(Table& table, uint32_t out, uint32_t gate, uint32_t up) {
  const Tensor &g = floats(table, gate, "glu gate"), &u = floats(table, up, "glu up"), &to = floats(table, out, "glu out");
  expect_same_shape(u, g, "glu up");
  expect_same_shape(to, g, "glu out");
  return {to.as<float>(), g.as<float>(), u.as<float>(), g.elements()};
}

RopeTableCall check_rope_table(Table& table, uint32_t out, uint32_t positions, const double* frequencies, int32_t dims,
                               float magnitude) {
  const Tensor& at = plain_tensor(table, positions, KVASIR_I32, "rope_table positions");
  const Tensor& to = floats(table, out, "rope_table out");
  if (at.rank != 1) fail(KVASIR_ARGUMENT, "Cannot use rope_table positions: rank %d, expected 1", at.rank);
  if (dims < 0 || dims % 2 != 0) fail(KVASIR_ARGUMENT, "Cannot run rope_table: dims is %d, expected even", dims);
  expect_shape(to, {at.shape[0], dims / 2, 2}, "rope_table out");
  const size_t pairs = static_cast<size_t>(dims / 2), n = static_cast<size_t>(at.shape[0]);
  if (pairs > 0 && n > 0) {
    if (frequencies == nullptr) fail(KVASIR_ARGUMENT, "Cannot run rope_table: frequencies are missing");
    if (!std::isfinite(magnitude)) fail(KVASIR_ARGUMENT, "Cannot run rope_table: magnitude is not finite");
    for (size_t p = 0; p < pairs; p++) {
      if (!std::isfinite(frequencies[p])) fail(KVASIR_ARGUMENT, "Cannot run rope_table: frequency %zu is not finite", p);
    }
  }
  return {to.as<float>(), at.as<int32_t>(), n, pairs};
}

RopeCall check_rope(Table& table, uint32_t x, uint32_t angles, int32_t pairing) {
  const Tensor& factors = floats(table, angles, "rope table");
  if (factors.rank != 3) fail(KVASIR_ARGUMENT, "Cannot use rope table: rank %d, expected 3", factors.rank);
  if (pairing != KVASIR_HALVES && pairing != KVASIR_NEIGHBOURS) {
    fail(KVASIR_ARGUMENT, "Cannot run rope: unknown pairing %d", pairing);
  }
  const Tensor& t = floats(table, x, "rope x");
  if (t.rank != 3) fail(KVASIR_ARGUMENT, "Cannot use rope x: rank %d, expected 3", t.rank);
  expect_shape(factors, {t.shape[0], factors.shape[1], 2}, "rope table");
  if (factors.shape[1] > t.shape[2] / 2) {
    fail(KVASIR_ARGUMENT, "Cannot run rope: %d pairs in a head of %d dimensions", factors.shape[1], t.shape[2]);
  }
  return {t.as<float>(), factors.as<float>(), static_cast<size_t>(t.shape[0]), static_cast<size_t>(t.shape[1]),
          static_cast<size_t>(t.shape[2]), static_cast<size_t>(factors.shape[1])};
}

MatmulInput check_matmul_input(Table& table, uint32_t id) {
  const Tensor& x = floats(table, id, "matmul x");
  if (x.rank != 2 && x.rank != 3) fail(KVASIR_ARGUMENT, "Cannot run matmul: x has rank %d, expected 2 or 3", x.rank);
  return {&x, x.shape[0], row_elements(x)};
}

const Tensor& check_matmul_weight(Table& table, uint32_t id, const MatmulInput& in, int32_t i) {
  const Tensor& weight = table.tensor(id, "matmul weight");
  if (weight.packed == nullptr) {
    fail(KVASIR_ARGUMENT, "Cannot run matmul: weight %d is no model tensor of rank 2, create it with that lifetime", i);
  }
  if (weight.shape[1] != in.k) {
    fail(KVASIR_ARGUMENT, "Cannot run matmul: weight %d has %d columns, x has %lld", i, weight.shape[1],
         static_cast<long long>(in.k));
  }
  return weight;
}

float* check_matmul_out(Table& table, uint32_t id, const MatmulInput& in, const Tensor& weight, int32_t i) {
  const Tensor& out = floats(table, id, "matmul out");
  const bool split = out.rank == 3 && out.shape[0] == in.n && row_elements(out) == weight.shape[0];
  if (!split) expect_shape(out, {in.n, weight.shape[0]}, "matmul out");
  const Tensor& x = *in.tensor;
  if (out.data != nullptr && x.data != nullptr && out.data < x.data + x.bytes && x.data < out.data + out.bytes) {
    fail(KVASIR_ARGUMENT, "Cannot run matmul: out %d overlaps x", i);
  }
  return out.as<float>();
}

EmbedCall check_embed(Table& table, uint32_t out, uint32_t rows, uint32_t tokens) {
  const Tensor &from = table.tensor(rows, "embed table"), &ids = plain_tensor(table, tokens, KVASIR_I32, "embed tokens");
  const Tensor& to = floats(table, out, "embed out");
  if (from.rank != 2) fail(KVASIR_ARGUMENT, "Cannot run embed: table has rank %d, expected 2", from.rank);
  if (quant_info(from.dtype) == nullptr) fail(KVASIR_ARGUMENT, "Cannot run embed: table of type %s", dtype_name(from.dtype));
  if (ids.rank != 1) fail(KVASIR_ARGUMENT, "Cannot run embed: tokens have rank %d, expected 1", ids.rank);
  expect_shape(to, {ids.shape[0], from.shape[1]}, "embed out");
  return {to.as<float>(), &from, &ids, ids.shape[0], from.shape[0], from.shape[1]};
}

void check_embed_tokens(const EmbedCall& call, const int32_t* tokens) {
  for (int32_t i = 0; i < call.n; i++) {
    if (tokens[i] >= 0 && tokens[i] < call.vocab) continue;
    fail(KVASIR_ARGUMENT, "Cannot run embed: token %d at %d is outside the table's %d rows", tokens[i], i, call.vocab);
  }
}

Logits check_logits(Table& table, uint32_t id, const char* what) {
  const Tensor& t = floats(table, id, what);
  if (t.rank != 2) fail(KVASIR_ARGUMENT, "Cannot use %s: rank %d, expected 2", what, t.rank);
  return {t.as<float>(), t.shape[0], t.shape[1]};
}

float* check_logit_row(Table& table, uint32_t id, int32_t row, const int32_t* ids, const void* values, int32_t count) {
  const Logits logits = check_logits(table, id, "logits");
  if (row < 0 || row >= logits.rows) fail(KVASIR_ARGUMENT, "Cannot use logits: row %d of %d", row, logits.rows);
  if (count < 0) fail(KVASIR_ARGUMENT, "Cannot use logits: %d ids, expected 0 or more", count);
  if (count > 0 && (ids == nullptr || values == nullptr)) fail(KVASIR_ARGUMENT, "Cannot use logits: ids are missing");
  for (int32_t i = 0; i < count; i++) {
    if (ids[i] < 0 || ids[i] >= logits.vocab) {
      fail(KVASIR_ARGUMENT, "Cannot use token %d: logits have %d entries", ids[i], logits.vocab);
    }
  }
  return logits.row(row);
}

TopCall check_top_logprobs(Table& table, uint32_t ids, uint32_t logprobs, const Logits& logits) {
  const Tensor& best = plain_tensor(table, ids, KVASIR_I32, "top_logprobs ids");
  const Tensor& to = floats(table, logprobs, "top_logprobs logprobs");
  if (best.rank != 2) fail(KVASIR_ARGUMENT, "Cannot use top_logprobs ids: rank %d, expected 2", best.rank);
  const int32_t k = best.shape[1];
  expect_shape(best, {logits.rows, k}, "top_logprobs ids");
  expect_shape(to, {logits.rows, k}, "top_logprobs logprobs");
  if (k > logits.vocab) fail(KVASIR_ARGUMENT, "Cannot take the %d best: logits have %d entries", k, logits.vocab);
  return {best.as<int32_t>(), to.as<float>(), k};
}

Logits check_base_logits(Table& table, uint32_t id, const Logits& q) {
  const Logits p = check_logits(table, id, "kl_divergence base");
  expect_shape(table.tensor(id, "kl_divergence base"), {q.rows, q.vocab}, "kl_divergence base");
  return p;
}

}  // namespace kvasir
