// What kernel calls check of their tensors, wherever memory lies, and what is left of a call once it is checked. All throw
// Error{KVASIR_ARGUMENT}; counts of 0 are for the caller to pass over.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "table.h"

namespace kvasir {

// Plain memory of one type.
const Tensor& plain_tensor(Table& table, uint32_t id, int32_t dtype, const char* what);
void expect_same_shape(const Tensor& t, const Tensor& like, const char* what);

struct NormCall {
  float* out;
  float* x;        // written by add_rms_norm only
  const float* y;  // of add_rms_norm, else null
  const float* weight;
  size_t rows, width;
};
NormCall check_rms_norm(Table& table, uint32_t out, uint32_t x, uint32_t weight, float epsilon);
NormCall check_add_rms_norm(Table& table, uint32_t out, uint32_t x, uint32_t y, uint32_t weight, float epsilon);

struct AddCall {
  float* out;
  const float *x, *y;
  size_t rows, width;
  bool is_row;  // y is one row, added to each
};
AddCall check_add(Table& table, uint32_t out, uint32_t x, uint32_t y);

struct GluCall {
  float* out;
  const float *gate, *up;
  size_t count;
};
GluCall check_glu(Table& table, uint32_t out, uint32_t gate, uint32_t up);

struct RopeTableCall {
  float* out;  // [n, pairs, 2]
  const int32_t* positions;
  size_t n, pairs;
};
RopeTableCall check_rope_table(Table& table, uint32_t out, uint32_t positions, const double* frequencies, int32_t dims,
                               float magnitude);

struct RopeCall {
  float* x;           // [n, heads, head_dim]
  const float* table;  // [n, pairs, 2]
  size_t n, heads, head_dim, pairs;
};
// Of xs[i].
RopeCall check_rope(Table& table, uint32_t x, uint32_t angles, int32_t pairing);

// x of a product: [n, k], or [n, heads, k / heads].
struct MatmulInput {
  const Tensor* tensor;
  int32_t n;
  int64_t k;
  const float* data() const { return tensor->as<float>(); }
};
MatmulInput check_matmul_input(Table& table, uint32_t x);
// Weight and output of the i-th product.
const Tensor& check_matmul_weight(Table& table, uint32_t id, const MatmulInput& in, int32_t i);
float* check_matmul_out(Table& table, uint32_t id, const MatmulInput& in, const Tensor& weight, int32_t i);

struct EmbedCall {
  float* out;
  const Tensor* table;  // rank 2; packed or plain
  const Tensor* tokens;
  int32_t n, vocab, width;
};
EmbedCall check_embed(Table& table, uint32_t out, uint32_t rows, uint32_t tokens);
void check_embed_tokens(const EmbedCall& call, const int32_t* tokens);

struct Logits {
  float* data;
  int32_t rows, vocab;
  float* row(int32_t i) const { return data + static_cast<size_t>(i) * static_cast<size_t>(vocab); }
};
Logits check_logits(Table& table, uint32_t id, const char* what);
// One row, and ids inside it.
float* check_logit_row(Table& table, uint32_t id, int32_t row, const int32_t* ids, const void* values, int32_t count);
struct TopCall {
  int32_t* ids;
  float* logprobs;
  int32_t k;
};
TopCall check_top_logprobs(Table& table, uint32_t ids, uint32_t logprobs, const Logits& logits);
// Bases of a divergence: [rows, vocab] like q.
Logits check_base_logits(Table& table, uint32_t id, const Logits& q);

}  // namespace kvasir
