// Adding tokens, observing queries and searching: what comes from outside is checked here, so that index types need not.
#include <cmath>
#include <cstring>

#include "context.h"
#include "error.h"

using namespace kvasir;

namespace {

// Exponent bits of infinities and NaN are all set.
bool all_finite(const float* values, size_t count) {
  uint32_t bad = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    std::memcpy(&bits, values + i, 4);
    bad |= (bits & 0x7f800000u) == 0x7f800000u;
  }
  return bad == 0;
}

void check_keys(const Index& index, const Rows& rows, int32_t start, int32_t count) {
  constexpr int32_t kSome = 64;
  for (int32_t head = 0; head < index.shape().kv_heads; head++) {
    for (int32_t at = 0; at < count; at += kSome) {
      const int32_t n = count - at < kSome ? count - at : kSome;
      if (!rows.keys_finite(head, start + at, n)) {
        fail(KVASIR_ARGUMENT, "Cannot add tokens: a key of head %d in positions %d to %d is not finite", head, start + at,
             start + at + n - 1);
      }
    }
  }
}

}  // namespace

extern "C" {

int32_t kvasir_index_add(kvasir_index_context* ctx, kvasir_index index, int32_t start, int32_t count) {
  return guard([&] {
    Index& i = ctx->index(index);
    const Rows& rows = i.rows();
    if (count == 0) return;
    if (start < 0 || count < 0 || start < rows.begin() || count > rows.end() - start) {
      fail(KVASIR_ARGUMENT, "Cannot add tokens: %d from position %d, segments hold %d to %d", count, start, rows.begin(),
           rows.end());
    }
    if (i.begin() != i.end() && start != i.end()) {
      fail(KVASIR_ARGUMENT, "Cannot add tokens: they start at %d, expected %d", start, i.end());
    }
    check_keys(i, rows, start, count);
    i.add(start, count);
    i.added(start, count);
  });
}

int32_t kvasir_index_observes(kvasir_index_context* ctx, kvasir_index index, int32_t* out) {
  return guard([&] { *out = ctx->index(index).observes() ? 1 : 0; });
}

int32_t kvasir_index_observe(kvasir_index_context* ctx, kvasir_index index, int32_t start, int32_t count,
                             const float* queries) {
  return guard([&] {
    Index& i = ctx->index(index);
    if (count == 0) return;
    if (start < 0 || count < 0 || count > INT32_MAX - start || queries == nullptr) {
      fail(KVASIR_ARGUMENT, "Cannot observe queries: %d from position %d%s", count, start, queries == nullptr ? ", none given" : "");
    }
    const size_t width = static_cast<size_t>(i.shape().heads) * static_cast<size_t>(i.shape().head_dim);
    if (!all_finite(queries, static_cast<size_t>(count) * width)) {
      fail(KVASIR_ARGUMENT, "Cannot observe queries: one of positions %d to %d is not finite", start, start + count - 1);
    }
    i.observe(start, count, queries);
  });
}

int32_t kvasir_index_search(kvasir_index_context* ctx, kvasir_index index, int32_t* tokens, float* bias, int32_t* counts,
                            float* errors, double* report, int32_t capacity, const double* goal, const float* q,
                            const float* exact, float* rest, float* rest_lse) {
  bool fits = true;
  const int32_t status = guard([&] {
    Index& i = ctx->index(index);
    if (capacity < 0 || counts == nullptr || errors == nullptr || report == nullptr || q == nullptr || exact == nullptr ||
        (capacity > 0 && (tokens == nullptr || bias == nullptr))) {
      fail(KVASIR_ARGUMENT, "Cannot search: an argument is missing");
    }
    const LayerShape& shape = i.shape();
    const Query query = {q, exact, parse_goal(goal)};
    if (!all_finite(q, static_cast<size_t>(shape.heads) * static_cast<size_t>(shape.head_dim))) {
      fail(KVASIR_ARGUMENT, "Cannot search: the query is not finite");
    }
    for (int32_t h = 0; h < shape.heads; h++) {
      if (std::isnan(exact[h]) || exact[h] == INFINITY) {
        fail(KVASIR_ARGUMENT, "Cannot search: log-sum-exp of head %d is %g", h, static_cast<double>(exact[h]));
      }
    }
    const int32_t out_rows = query.goal.kind == Goal::kError ? shape.kv_heads : shape.heads;
    if (query.goal.surrogate_tail && (query.goal.kind == Goal::kError || rest == nullptr || rest_lse == nullptr)) {
      fail(KVASIR_ARGUMENT, "Cannot search: surrogates go with topk, and need room");
    }
    if (query.goal.surrogate_tail && !i.has_surrogates()) {
      fail(KVASIR_UNSUPPORTED, "Cannot search index \"%.200s\": it has no surrogates, use tail=sample", i.spec().c_str());
    }
    Hits hits = {capacity, tokens, bias, counts, errors};
    if (query.goal.surrogate_tail) hits.rest = rest, hits.rest_lse = rest_lse;
    Report done;
    i.search(query, hits, done);
    for (int32_t r = 0; r < out_rows; r++) fits = fits && counts[r] <= capacity;
    const double all[KVASIR_REPORT] = {static_cast<double>(done.certificate), done.keys_scored, done.keys_kept,
                                       done.bytes_read, done.expected_recall};
    for (int32_t r = 0; r < KVASIR_REPORT; r++) report[r] = all[r];
  });
  if (status != KVASIR_OK || fits) return status;
  return kvasir::report(KVASIR_CAPACITY, "Cannot search: the output has too little room, see counts");
}

}  // extern "C"
