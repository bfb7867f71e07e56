#include "options.h"

#include <cstdlib>
#include <set>

namespace kvasir {

Options parse_options(const char* text) {
  Options options;
  std::set<std::string> seen;
  const std::string all = text == nullptr ? "" : text;
  for (size_t start = 0; start < all.size();) {
    size_t end = all.find(',', start);
    if (end == std::string::npos) end = all.size();
    const std::string item = all.substr(start, end - start);
    start = end + 1;
    const size_t equals = item.find('=');
    const std::string key = item.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : item.substr(equals + 1);
    if (!seen.insert(key).second) fail(KVASIR_ARGUMENT, "Cannot open cpu: \"%.60s\" is given twice", key.c_str());
    if (key == "isa") {
      if (value != "auto" && value != "avx512" && value != "avx2" && value != "portable") {
        fail(KVASIR_ARGUMENT, "Cannot open cpu: isa \"%.60s\" is unknown, expected auto, avx512, avx2 or portable",
             value.c_str());
      }
      options.isa = value;
    } else if (key == "threads") {
      char* rest = nullptr;
      const long count = value.empty() || value[0] < '0' || value[0] > '9' ? -1 : std::strtol(value.c_str(), &rest, 10);
      if (count < 0 || count > 1024 || *rest != 0) {
        fail(KVASIR_ARGUMENT, "Cannot open cpu: threads \"%.60s\" is not a number, expected 1 to 1024, or 0 for all",
             value.c_str());
      }
      options.threads = static_cast<int>(count);
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
