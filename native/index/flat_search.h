// Scans all keys of some KV heads by their codes: exact best keys, or samples without bias. What type "flat" is, and what other
// types do for heads and times without a structure.
#pragma once
#include <cstdint>
#include <vector>

#include "codes.h"
#include "index.h"
#include "sampler.h"

namespace kvasir {

// What is searched: keys [0, keys) of codes, whose rows are `rows`.
struct FlatScope {
  const Environment* environment;
  const LayerShape* shape;
  const Rows* rows;
  const Codes* codes;
  int32_t keys;
};

// Memory is kept from search to search.
class FlatSearch {
 public:
  // Fills the hits of the KV heads named, on the environment's pool; adds what it did to report (not its certificate, which
  // is KVASIR_CERTIFICATE_EXACT for the best keys and KVASIR_CERTIFICATE_UNBIASED for samples).
  void run(const FlatScope& scope, const int32_t* kv_heads, int32_t count, const Query& query, const Hits& hits, Report& report);
  void run(const FlatScope& scope, const Query& query, const Hits& hits, Report& report);  // all heads

 private:
  double row_bytes() const;
  void soften(float* scores, int32_t count, size_t stride) const;
  // The best `value` keys; among equals those of lower position. keys_kept is -1 where bounds decide too little.
  void top(const Query& query, const Hits& hits, int32_t row, const float* scores, float* memory, Report& report) const;
  // Returns how many keys it scored by their rows.
  double scan_undecided(const int32_t* kv_heads, int32_t count, const Query& query, const Hits& hits, float* scores, size_t stride,
                        float* work, size_t work_floats);
  void give(const Hits& hits, int32_t row, const int32_t* ids, int32_t k, Report& report) const;
  // Exact scores of keys `ids`, ascending.
  void rescore(float* out, const float* q, int32_t head, const int32_t* ids, int32_t count) const;
  // Priority sampling (Duffield, Lund, Thorup 2007): the K best s - ln u, weights relative to the next one.
  void draw_best(const Query& query, const Hits& hits, int32_t row, const float* scores, const float* noise, float* memory,
                 size_t stride, Report& report) const;
  void put(const Hits& hits, int32_t row, int32_t at, int32_t i, float bias) const;

  FlatScope s_{};
  std::vector<int32_t> all_, undecided_;
  std::vector<PreparedQuery> prepared_;
  std::vector<Report> reports_;
};

}  // namespace kvasir
