// Norms, sums, gates and rotations: checks, then rows among the workers.
#include <cmath>

#include "context.h"
#include "dtype.h"
#include "glu.h"
#include "isa.h"
#include "parallel.h"
#include "vector.h"

using namespace kvasir;

namespace {

// Elements one worker should get at least, so that waking it (about a microsecond) costs under a tenth.
constexpr size_t kPlainGrain = 32768;  // norms, sums: some 5 elements a nanosecond
constexpr size_t kSinGrain = 256;      // pairs of double-precision sine and cosine

const Tensor& floats(kvasir_context* ctx, kvasir_tensor id, const char* what) {
  const Tensor& t = ctx->tensor(id, what);
  expect_dtype(t, KVASIR_F32, what);
  // Weights of rank 2 are repacked, and no kernel here reads one.
  if (t.packed != nullptr) fail(KVASIR_ARGUMENT, "Cannot use %s: a repacked weight, expected plain memory", what);
  return t;
}

void expect_same_shape(const Tensor& t, const Tensor& like, const char* what) {
  bool same = t.rank == like.rank;
  for (int32_t i = 0; same && i < t.rank; i++) same = t.shape[i] == like.shape[i];
  if (same) return;
  fail(KVASIR_ARGUMENT, "Cannot use %s: shape %s, expected %s", what, shape_text(t.shape, t.rank).c_str(),
       shape_text(like.shape, like.rank).c_str());
}

void expect_epsilon(float epsilon, const char* what) {
  if (epsilon >= 0 && std::isfinite(epsilon)) return;
  fail(KVASIR_ARGUMENT, "Cannot run %s: epsilon is %g, expected 0 or more", what, static_cast<double>(epsilon));
}

}  // namespace

extern "C" {

int32_t kvasir_rms_norm(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor weight, float epsilon) {
  return guard([&] {
    const Tensor& from = floats(ctx, x, "rms_norm x");
    const Tensor& w = floats(ctx, weight, "rms_norm weight");
    const Tensor& to = floats(ctx, out, "rms_norm out");
    expect_same_shape(to, from, "rms_norm out");
    expect_shape(w, {from.last()}, "rms_norm weight");
    expect_epsilon(epsilon, "rms_norm");
    const size_t width = static_cast<size_t>(from.last());
    if (width == 0) return;
    const float *source = from.as<float>(), *factors = w.as<float>();
    float* target = to.as<float>();
    parallel_for(*ctx->pool, from.elements() / width, kPlainGrain / width + 1, [&](size_t row, size_t end) {
      for (; row < end; row++) {
        ctx->isa->vector->rms_norm(target + row * width, source + row * width, factors, width, epsilon);
      }
    });
  });
}

int32_t kvasir_add_rms_norm(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor y,
                            kvasir_tensor weight, float epsilon) {
  return guard([&] {
    const Tensor& sum = floats(ctx, x, "add_rms_norm x");
    const Tensor& more = floats(ctx, y, "add_rms_norm y");
    const Tensor& w = floats(ctx, weight, "add_rms_norm weight");
    const Tensor& to = floats(ctx, out, "add_rms_norm out");
    expect_same_shape(more, sum, "add_rms_norm y");
    expect_same_shape(to, sum, "add_rms_norm out");
    expect_shape(w, {sum.last()}, "add_rms_norm weight");
    expect_epsilon(epsilon, "add_rms_norm");
    const size_t width = static_cast<size_t>(sum.last());
    if (width == 0) return;
    if (sum.elements() > 0 && to.data == sum.data) fail(KVASIR_ARGUMENT, "Cannot run add_rms_norm: out is x");
    float *total = sum.as<float>(), *target = to.as<float>();
    const float *summand = more.as<float>(), *factors = w.as<float>();
    parallel_for(*ctx->pool, sum.elements() / width, kPlainGrain / width + 1, [&](size_t row, size_t end) {
      for (; row < end; row++) {
        float* residual = total + row * width;
        ctx->isa->vector->add(residual, residual, summand + row * width, width);
        ctx->isa->vector->rms_norm(target + row * width, residual, factors, width, epsilon);
      }
    });
  });
}

int32_t kvasir_add(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor x, kvasir_tensor y) {
  return guard([&] {
    const Tensor& a = floats(ctx, x, "add x");
    const Tensor& b = floats(ctx, y, "add y");
    const Tensor& to = floats(ctx, out, "add out");
    expect_same_shape(to, a, "add out");
    const float *left = a.as<float>(), *right = b.as<float>();
    float* target = to.as<float>();
    if (b.rank == 1 && a.rank > 1) {
      expect_shape(b, {a.last()}, "add y");
      const size_t width = static_cast<size_t>(a.last());
      if (width == 0) return;
      parallel_for(*ctx->pool, a.elements() / width, kPlainGrain / width + 1, [&](size_t row, size_t end) {
        for (; row < end; row++) ctx->isa->vector->add(target + row * width, left + row * width, right, width);
      });
      return;
    }
    expect_same_shape(b, a, "add y");
    parallel_for(*ctx->pool, a.elements(), kPlainGrain, [&](size_t from, size_t end) {
      ctx->isa->vector->add(target + from, left + from, right + from, end - from);
    });
  });
}

int32_t kvasir_glu(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor gate, kvasir_tensor up, int32_t activation) {
  return guard([&] {
    const Tensor& g = floats(ctx, gate, "glu gate");
    const Tensor& u = floats(ctx, up, "glu up");
    const Tensor& to = floats(ctx, out, "glu out");
    expect_same_shape(u, g, "glu up");
    expect_same_shape(to, g, "glu out");
    const GluKernel kernel = glu_kernel(*ctx, activation, "glu");
    run_glu(*ctx, kernel, to.as<float>(), g.as<float>(), u.as<float>(), g.elements());
  });
}

int32_t kvasir_rope_table(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor positions, const double* frequencies,
                          int32_t dims, float magnitude) {
  return guard([&] {
    const Tensor& at = ctx->tensor(positions, "rope_table positions");
    const Tensor& to = floats(ctx, out, "rope_table out");
    expect_dtype(at, KVASIR_I32, "rope_table positions");
    if (at.rank != 1 || at.packed != nullptr) {
      fail(KVASIR_ARGUMENT, "Cannot use rope_table positions: rank %d, expected 1", at.rank);
    }
    if (dims < 0 || dims % 2 != 0) fail(KVASIR_ARGUMENT, "Cannot run rope_table: dims is %d, expected even", dims);
    expect_shape(to, {at.shape[0], dims / 2, 2}, "rope_table out");
    const size_t pairs = static_cast<size_t>(dims / 2), n = static_cast<size_t>(at.shape[0]);
    if (pairs == 0 || n == 0) return;
    if (frequencies == nullptr) fail(KVASIR_ARGUMENT, "Cannot run rope_table: frequencies are missing");
    if (!std::isfinite(magnitude)) fail(KVASIR_ARGUMENT, "Cannot run rope_table: magnitude is not finite");
    for (size_t p = 0; p < pairs; p++) {
      if (!std::isfinite(frequencies[p])) {
        fail(KVASIR_ARGUMENT, "Cannot run rope_table: frequency %zu is not finite", p);
      }
    }
    const int32_t* position = at.as<int32_t>();
    float* target = to.as<float>();
    const double scale = static_cast<double>(magnitude);
    parallel_for(*ctx->pool, n, kSinGrain / pairs + 1, [&](size_t row, size_t end) {
      for (; row < end; row++) {
        for (size_t p = 0; p < pairs; p++) {
          const double angle = position[row] * frequencies[p];
          target[2 * (row * pairs + p)] = static_cast<float>(scale * std::cos(angle));
          target[2 * (row * pairs + p) + 1] = static_cast<float>(scale * std::sin(angle));
        }
      }
    });
  });
}

int32_t kvasir_rope(kvasir_context* ctx, const kvasir_tensor* xs, int32_t count, kvasir_tensor table,
                    int32_t pairing) {
  return guard([&] {
    if (count < 0 || (count > 0 && !xs)) fail(KVASIR_ARGUMENT, "Cannot run rope: %d tensors", count);
    const Tensor& angles = floats(ctx, table, "rope table");
    if (angles.rank != 3) fail(KVASIR_ARGUMENT, "Cannot use rope table: rank %d, expected 3", angles.rank);
    if (pairing != KVASIR_HALVES && pairing != KVASIR_NEIGHBOURS) {
      fail(KVASIR_ARGUMENT, "Cannot run rope: unknown pairing %d", pairing);
    }
    const float* factors = angles.as<float>();
    const size_t pairs = static_cast<size_t>(angles.shape[1]);
    for (int32_t i = 0; i < count; i++) {
      const Tensor& t = floats(ctx, xs[i], "rope x");
      if (t.rank != 3) fail(KVASIR_ARGUMENT, "Cannot use rope x: rank %d, expected 3", t.rank);
      expect_shape(angles, {t.shape[0], angles.shape[1], 2}, "rope table");
      if (angles.shape[1] > t.shape[2] / 2) {
        fail(KVASIR_ARGUMENT, "Cannot run rope: %d pairs in a head of %d dimensions", angles.shape[1], t.shape[2]);
      }
      const size_t heads = static_cast<size_t>(t.shape[1]), head_dim = static_cast<size_t>(t.shape[2]);
      const size_t width = heads * head_dim;
      if (width == 0 || pairs == 0) continue;
      float* target = t.as<float>();
      parallel_for(*ctx->pool, static_cast<size_t>(t.shape[0]), kPlainGrain / width + 1, [&](size_t row, size_t end) {
        for (; row < end; row++) {
          ctx->isa->vector->rope(target + row * width, factors + row * pairs * 2, heads, head_dim, pairs,
                                 pairing == KVASIR_NEIGHBOURS);
        }
      });
    }
  });
}

}  // extern "C"
