// "isa=auto,threads=0,precision=exact": what a context is opened with.
#pragma once
#include <string>

#include "context.h"

namespace kvasir {

struct Options {
  std::string isa = "auto";
  int threads = 0;  // 0: every CPU this process may use
  Precision precision = Precision::kExact;
};

// Throws Error{KVASIR_ARGUMENT} that lists what is valid. Null and "" are the defaults.
Options parse_options(const char* text);

}  // namespace kvasir
