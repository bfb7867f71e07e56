// Caches: append and causal attention.
#include <cmath>

#include "attention_plan.h"
#include "dtype.h"
#include "isa.h"
#include "kv.h"

using namespace kvasir;

extern "C" {

int32_t kvasir_append(kvasir_context* ctx, const int32_t* segment, int32_t row, kvasir_tensor k, kvasir_tensor v) {
  return guard([&] {
    const KvSegmentView s = check_segment(*ctx, segment);
    const int32_t kv_heads = s.keys->shape[0], d = s.keys->shape[2];
    const Tensor &keys = ctx->tensor(k, "k to append"), &values = ctx->tensor(v, "v to append");
    expect_dtype(keys, KVASIR_F32, "k to append");
    expect_shape(keys, {keys.shape[0], kv_heads, d}, "k to append");
    expect_dtype(values, KVASIR_F32, "v to append");
    expect_shape(values, {keys.shape[0], kv_heads, d}, "v to append");
    const int32_t n = keys.shape[0];
    if (row < 0 || row > s.capacity || n > s.capacity - row) {
      fail(KVASIR_ARGUMENT, "Cannot append: %d rows from row %d, the segment's capacity is %d", n, row, s.capacity);
    }
    if (n == 0 || kv_heads == 0 || d == 0) return;
    const AttentionKernels& kernels = *ctx->isa->attention;
    const size_t stride = static_cast<size_t>(kv_heads) * d;
    auto store = [&](int task, int) {
      const int32_t head = task / 2;
      const KvRun to = s.run(head, row, n);
      const bool key = task % 2 == 0;
      const float* from = (key ? keys : values).as<float>() + static_cast<size_t>(head) * d;
      kernels.store_rows(s.keys->dtype, const_cast<void*>(key ? to.keys : to.values),
                         const_cast<float*>(key ? to.key_scales : to.value_scales), from, stride, n, d);
    };
    // Waking the pool costs about as much as converting 16,000 numbers.
    if (n * stride > 16384) {
      ctx->pool->run(2 * kv_heads, store);
    } else {
      for (int32_t task = 0; task < 2 * kv_heads; task++) store(task, 0);
    }
  });
}

int32_t kvasir_attend_causal(kvasir_context* ctx, kvasir_tensor out, kvasir_tensor q, const int32_t* segments,
                             int32_t segment_count, float scale, float softcap, int32_t window) {
  return guard([&] {
    const Tensor &to = ctx->tensor(out, "attention output"), &from = ctx->tensor(q, "queries");
    expect_dtype(from, KVASIR_F32, "queries");
    if (from.rank != 3) {
      fail(KVASIR_ARGUMENT, "Cannot use queries: shape %s, expected [n, heads, headDim]",
           shape_text(from.shape, from.rank).c_str());
    }
    const int32_t n = from.shape[0], heads = from.shape[1], d = from.shape[2];
    expect_dtype(to, KVASIR_F32, "attention output");
    expect_shape(to, {n, heads, d}, "attention output");
    if (!std::isfinite(scale) || !std::isfinite(softcap) || softcap < 0.0f) {
      fail(KVASIR_ARGUMENT, "Cannot attend: scale %g and softcap %g must be finite, the softcap not negative",
           static_cast<double>(scale), static_cast<double>(softcap));
    }
    if (window < 0) fail(KVASIR_ARGUMENT, "Cannot attend: window %d is negative", window);
    const KvView kv = check_segments(*ctx, segments, segment_count);
    if (n > kv.end - kv.start) {
      fail(KVASIR_ARGUMENT, "Cannot attend: %d queries, the cache holds %d tokens", n, kv.end - kv.start);
    }
    if (n == 0) return;
    if (kv.head_dim != d || kv.kv_heads == 0 || heads % kv.kv_heads != 0) {
      fail(KVASIR_ARGUMENT, "Cannot attend: queries %s do not fit %d KV heads of %d dimensions",
           shape_text(from.shape, from.rank).c_str(), kv.kv_heads, kv.head_dim);
    }
    if (heads == 0 || d == 0) return;
    const AttentionShape shape{kv.dtype, d, scale, softcap};
    attend_causal(*ctx, shape, kv, to.as<float>(), from.as<float>(), n, heads, window);
  });
}

}  // extern "C"
