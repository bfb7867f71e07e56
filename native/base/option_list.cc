#include "option_list.h"

#include <cstdlib>
#include <set>

#include "error.h"

namespace kvasir {

std::vector<std::pair<std::string, std::string>> option_list(const char* backend, const char* text) {
  std::vector<std::pair<std::string, std::string>> list;
  std::set<std::string> seen;
  const std::string all = text == nullptr ? "" : text;
  for (size_t start = 0; start < all.size();) {
    size_t end = all.find(',', start);
    if (end == std::string::npos) end = all.size();
    const std::string item = all.substr(start, end - start);
    start = end + 1;
    const size_t equals = item.find('=');
    const std::string key = item.substr(0, equals);
    if (!seen.insert(key).second) fail(KVASIR_ARGUMENT, "Cannot open %s: \"%.60s\" is given twice", backend, key.c_str());
    list.emplace_back(key, equals == std::string::npos ? "" : item.substr(equals + 1));
  }
  return list;
}

long option_number(const char* backend, const std::string& key, const std::string& value, long most, const char* range) {
  char* rest = nullptr;
  const long number = value.empty() || value[0] < '0' || value[0] > '9' ? -1 : std::strtol(value.c_str(), &rest, 10);
  if (number < 0 || number > most || *rest != 0) {
    fail(KVASIR_ARGUMENT, "Cannot open %s: %s \"%.60s\" is not a number, expected %s", backend, key.c_str(), value.c_str(), range);
  }
  return number;
}

}  // namespace kvasir
