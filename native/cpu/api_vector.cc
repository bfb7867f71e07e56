// Norms, sums, gates and rotations: rows among the workers.
#include <cmath>

#include "context.h"
#include "glu.h"
#include "isa.h"
#include "kernel_checks.h"
#include "parallel.h"
#include "vector.h"

using namespace kvasir;

namespace {

// Elements one worker should get at least, so that waking it (about a microsecond) costs under a tenth.
constexpr size_t kPlainGrain = 32768;  // norms, sums: some 5 elements a nanosecond
constexpr size_t kSinGrain = 256;      // pairs of double-precision sine and cosine

}  // namespace

extern "C" {

int32_t kvasir_rms_norm(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor weight, float epsilon) {
  return guard([&] {
    const NormCall c = check_rms_norm(*ctx->table, out, x, weight, epsilon);
    if (c.width == 0) return;
    parallel_for(*ctx->pool, c.rows, kPlainGrain / c.width + 1, [&](size_t row, size_t end) {
      for (; row < end; row++) {
        ctx->isa->vector->rms_norm(c.out + row * c.width, c.x + row * c.width, c.weight, c.width, epsilon);
      }
    });
  });
}

int32_t kvasir_add_rms_norm(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor y,
                            kvasir_tensor weight, float epsilon) {
  return guard([&] {
    const NormCall c = check_add_rms_norm(*ctx->table, out, x, y, weight, epsilon);
    if (c.width == 0) return;
    parallel_for(*ctx->pool, c.rows, kPlainGrain / c.width + 1, [&](size_t row, size_t end) {
      for (; row < end; row++) {
        float* residual = c.x + row * c.width;
        ctx->isa->vector->add(residual, residual, c.y + row * c.width, c.width);
        ctx->isa->vector->rms_norm(c.out + row * c.width, residual, c.weight, c.width, epsilon);
      }
    });
  });
}

int32_t kvasir_add(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor y) {
  return guard([&] {
    const AddCall c = check_add(*ctx->table, out, x, y);
    if (c.is_row) {
      if (c.width == 0) return;
      parallel_for(*ctx->pool, c.rows, kPlainGrain / c.width + 1, [&](size_t row, size_t end) {
        for (; row < end; row++) ctx->isa->vector->add(c.out + row * c.width, c.x + row * c.width, c.y, c.width);
      });
      return;
    }
    parallel_for(*ctx->pool, c.rows * c.width, kPlainGrain, [&](size_t from, size_t end) {
      ctx->isa->vector->add(c.out + from, c.x + from, c.y + from, end - from);
    });
  });
}

int32_t kvasir_glu(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor gate, kvasir_tensor up, int32_t activation) {
  return guard([&] {
    const GluCall c = check_glu(*ctx->table, out, gate, up);
    run_glu(*ctx, glu_kernel(*ctx, activation, "glu"), c.out, c.gate, c.up, c.count);
  });
}

int32_t kvasir_rope_table(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor positions, const double* frequencies,
                          int32_t dims, float magnitude) {
  return guard([&] {
    const RopeTableCall c = check_rope_table(*ctx->table, out, positions, frequencies, dims, magnitude);
    if (c.pairs == 0 || c.n == 0) return;
    const double scale = static_cast<double>(magnitude);
    parallel_for(*ctx->pool, c.n, kSinGrain / c.pairs + 1, [&](size_t row, size_t end) {
      for (; row < end; row++) {
        for (size_t p = 0; p < c.pairs; p++) {
          const double angle = c.positions[row] * frequencies[p];
          c.out[2 * (row * c.pairs + p)] = static_cast<float>(scale * std::cos(angle));
          c.out[2 * (row * c.pairs + p) + 1] = static_cast<float>(scale * std::sin(angle));
        }
      }
    });
  });
}

int32_t kvasir_rope(kvasir_context* ctx, const kvasir_tensor* xs, int32_t count, kvasir_tensor table,
                    int32_t pairing) {
  return guard([&] {
    if (count < 0 || (count > 0 && !xs)) fail(KVASIR_ARGUMENT, "Cannot run rope: %d tensors", count);
    for (int32_t i = 0; i < count; i++) {
      const RopeCall c = check_rope(*ctx->table, xs[i], table, pairing);
      const size_t width = c.heads * c.head_dim;
      if (width == 0 || c.pairs == 0) continue;
      parallel_for(*ctx->pool, c.n, kPlainGrain / width + 1, [&](size_t row, size_t end) {
        for (; row < end; row++) {
          ctx->isa->vector->rope(c.x + row * width, c.table + row * c.pairs * 2, c.heads, c.head_dim, c.pairs,
                                 pairing == KVASIR_NEIGHBOURS);
        }
      });
    }
  });
}

}  // extern "C"
