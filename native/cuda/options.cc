#include "options.h"

#include "error.h"
#include "option_list.h"

namespace kvasir {
namespace {

bool truth(const std::string& key, const std::string& value) {
  if (value == "true" || value == "false") return value == "true";
  fail(KVASIR_ARGUMENT, "Cannot open cuda: %s is \"%.60s\", expected true or false", key.c_str(), value.c_str());
}

}  // namespace

Options parse_options(const char* text) {
  Options options;
  for (const auto& [key, value] : option_list("cuda", text)) {
    const auto number = [&, &key = key, &value = value](long most, const char* range) {
      return option_number("cuda", key, value, most, range);
    };
    if (key == "device") {
      options.device = static_cast<int>(number(255, "0 to 255"));
    } else if (key == "graphs") {
      options.graphs = truth(key, value);
    } else if (key == "wgmma") {
      options.wgmma = truth(key, value);
    } else if (key == "tma") {
      options.tma = truth(key, value);
#ifdef KVASIR_EMULATION
    } else if (key == "seed") {
      options.seed = static_cast<uint64_t>(number(1L << 40, "0 to 2^40"));
    } else if (key == "memory") {
      options.memory = static_cast<size_t>(number(1L << 20, "megabytes")) << 20;
    } else if (key == "fault") {
      options.fault = static_cast<int>(number(1 << 30, "which launch, from 1 on"));
    } else if (key == "driver") {
      options.driver = static_cast<int>(number(99999, "a version such as 13000"));
    } else if (key == "maps") {
      options.maps = truth(key, value);
    } else if (key == "devices") {
      options.devices = static_cast<int>(number(8, "0 to 8"));
#endif
    } else {
      fail(KVASIR_ARGUMENT, "Cannot open cuda: option \"%.60s\" is unknown, expected device, graphs, wgmma, tma", key.c_str());
    }
  }
  return options;
}

}  // namespace kvasir
