// Sampled attention over heads that a model really had (docs/recorded_heads.md).
#pragma once
#include <string>

#include "device_bench.h"

namespace kvasir {

// A JSON line a layer of the file: time against exact attention, and the output's error over its last decoded queries.
void measure_recorded(Bench& b, const std::string& path);

}  // namespace kvasir
