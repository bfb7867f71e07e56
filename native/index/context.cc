#include "context.h"

#include "chunk_memory.h"
#include "cpus.h"

namespace {

kvasir::Params parse_options(const char* options) {
  return kvasir::Params("index", "isa=auto,threads=0,builders=1,costs=", options == nullptr ? "" : options);
}

}  // namespace

kvasir_index_context::kvasir_index_context(const char* options, const kvasir_executor* executor)
    : builders(parse_options(options).integer("builders", 0, 64)) {
  const kvasir::Params params = parse_options(options);
  isa_name = params.text("isa");
  threads = params.integer("threads", 0, 1024);
  environment.isa = &kvasir::find_index_isa(isa_name.c_str());
  if (executor != nullptr) {
    if (executor->threads < 1 || executor->run == nullptr) kvasir::fail(KVASIR_ARGUMENT, "Cannot open index: no threads");
    pool = std::make_unique<kvasir::Pool>(*executor);
  } else {
    pool = std::make_unique<kvasir::Pool>(threads == 0 ? kvasir::default_threads() : threads);
  }
  scratch = std::vector<kvasir::Scratch>(static_cast<size_t>(pool->threads()));
  environment.pool = pool.get();
  environment.chunks = std::make_shared<kvasir::ChunkMemory>();
  environment.scratch = &scratch;
  environment.samples = &samples;
  environment.builders = &builders;
  given_costs = params.text("costs");
  if (!given_costs.empty()) costs = kvasir::CostTable(given_costs);
  environment.costs = &costs;
}
