// What a context of the index library owns: threads, segments and indexes by id.
#pragma once
#include <memory>
#include <vector>

#include "arguments.h"
#include "builders.h"
#include "cost.h"
#include "index.h"
#include "kvasir_index.h"
#include "sampler.h"
#include "slots.h"

struct kvasir_index_context {
  kvasir_index_context(const char* options, const kvasir_executor* executor);

  kvasir::Index& index(kvasir_index id) { return *indexes.find(id, "index"); }

  std::string isa_name = "auto";
  int threads = 0;
  std::string given_costs;  // empty: the reference machine's
  kvasir::CostTable costs;
  std::unique_ptr<kvasir::Pool> pool;
  std::vector<kvasir::Scratch> scratch;
  kvasir::SampleMemory samples;
  kvasir::Environment environment;
  // Indexes end before what they use, and cancel what is being built for them; then the threads are joined.
  kvasir::Builders builders;
  kvasir::Slots<std::shared_ptr<const kvasir::Segment>> segments;
  kvasir::Slots<std::unique_ptr<kvasir::Index>> indexes;
};

namespace kvasir {

// Segments by their ids; throws Error{KVASIR_ARGUMENT}.
Rows collect_rows(kvasir_index_context* ctx, const LayerShape& shape, const kvasir_segment* segments, int32_t count);

}  // namespace kvasir
