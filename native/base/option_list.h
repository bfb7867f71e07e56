// "key=value,key=value": what a context is opened with, taken apart.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace kvasir {

// In order; an item without "=" has an empty value. Null is none. Throws Error{KVASIR_ARGUMENT}, with the backend's name, for a key
// given twice.
std::vector<std::pair<std::string, std::string>> option_list(const char* backend, const char* text);

// A whole number of most's range, or Error{KVASIR_ARGUMENT}: "..., expected <range>".
long option_number(const char* backend, const std::string& key, const std::string& value, long most, const char* range);

}  // namespace kvasir
