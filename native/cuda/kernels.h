// Launches of the kernels that a model needs beside attention; calls are checked (kernel_checks.h), and not empty unless said.
#pragma once
#include <cstddef>
#include <cstdint>

#include "context.h"
#include "kernel_checks.h"
#include "kv.h"
#include "sample_params.h"
#include "weights.h"

namespace kvasir {

// norm.cu
void launch_norm(Runtime& runtime, const NormCall& call, float epsilon);

// elementwise.cu
void launch_add(Runtime& runtime, const AddCall& call);
void launch_glu(Runtime& runtime, const GluCall& call, int32_t activation);
// frequencies: of the device.
void launch_rope_table(Runtime& runtime, const RopeTableCall& call, const double* frequencies, float magnitude);
void launch_rope(Runtime& runtime, const RopeCall& call, bool neighbours);

// embed.cu; tokens are inside the table.
void launch_embed(Runtime& runtime, const EmbedCall& call, float scale);

// append.cu
void launch_append(Runtime& runtime, const AppendCall& call);

// One weight and the product with it: out [n, rows].
struct Product {
  const PackedWeight* weight;
  float* out;
};
constexpr int32_t kMostDecoded = 8;  // tokens up to which weights are read as in decode

// matvec.cu: n <= kMostDecoded tokens. x [n, k] plain floats.
void launch_matvec(Runtime& runtime, DeviceScratch& scratch, const Product* products, int32_t count, const float* x, int32_t n,
                   int32_t k);
// matmul_tiles.cu: block-quantized weights, any n.
void launch_matmul_tiles(Runtime& runtime, DeviceScratch& scratch, const Product* products, int32_t count, const float* x,
                         int32_t n, int32_t k);
// matmul_plain.cu: plain weights, any n.
void launch_matmul_plain(Runtime& runtime, const Product& product, const float* x, int32_t n, int32_t k);

// sampling.cu: a block a row. problem: pinned, see vocab.cuh.
// params: of the device, one a row; weights: scratch, [rows, vocab].
void launch_sample(Runtime& runtime, int32_t* out, const Logits& logits, const SampleParams* params, double* weights,
                   uint32_t* problem);
void launch_top_logprobs(Runtime& runtime, const TopCall& call, const Logits& logits, uint32_t* problem);
// vocab.cu
void launch_add_logits(Runtime& runtime, float* row, const int32_t* ids, const float* values, int32_t count);
void launch_penalize(Runtime& runtime, float* row, const int32_t* tokens, const int32_t* counts, int32_t count, float repetition,
                     float presence, float frequency);
void launch_token_logprobs(Runtime& runtime, float* out, const Logits& logits, const int32_t* tokens, uint32_t* problem);
void launch_kl_divergence(Runtime& runtime, float* out, const Logits& base, const Logits& logits, uint32_t* problem);

}  // namespace kvasir
