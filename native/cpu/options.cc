#include "options.h"

#include "option_list.h"

namespace kvasir {

Options parse_options(const char* text) {
  Options options;
  for (const auto& [key, value] : option_list("cpu", text)) {
    if (key == "isa") {
      if (value != "auto" && value != "avx512" && value != "avx2" && value != "portable") {
        fail(KVASIR_ARGUMENT, "Cannot open cpu: isa \"%.60s\" is unknown, expected auto, avx512, avx2 or portable",
             value.c_str());
      }
      options.isa = value;
    } else if (key == "threads") {
      options.threads = static_cast<int>(option_number("cpu", key, value, 1024, "1 to 1024, or 0 for all"));
    } else if (key == "precision") {
      if (value != "exact" && value != "fast") {
        fail(KVASIR_ARGUMENT, "Cannot open cpu: precision \"%.60s\" is unknown, expected exact or fast", value.c_str());
      }
      options.precision = value == "exact" ? Precision::kExact : Precision::kFast;
    } else {
      fail(KVASIR_ARGUMENT, "Cannot open cpu: option \"%.60s\" is unknown, expected isa, threads or precision",
           key.c_str());
    }
  }
  return options;
}

}  // namespace kvasir
