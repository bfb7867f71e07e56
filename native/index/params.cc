#include "params.h"

#include <cctype>
#include <cmath>
#include <cstdlib>

#include "error.h"

namespace kvasir {
namespace {

using Pairs = std::map<std::string, std::string>;

// Values may be enclosed in parentheses, so that a spec can be the value of another.
Pairs parse_pairs(const std::string& type, const std::string& text) {
  Pairs pairs;
  for (size_t start = 0; start < text.size();) {
    size_t end = start;
    int depth = 0;
    for (; end < text.size() && (text[end] != ',' || depth > 0); end++) {
      if (text[end] == '(') depth++;
      if (text[end] == ')' && --depth < 0) break;
    }
    if (depth != 0) fail(KVASIR_ARGUMENT, "Cannot use \"%.60s\": parentheses do not balance", type.c_str());
    std::string item = text.substr(start, end - start);
    start = end + 1;
    const size_t equals = item.find('=');
    if (equals == std::string::npos || equals == 0) {
      fail(KVASIR_ARGUMENT, "Cannot use \"%.60s\": \"%.60s\" is not key=value", type.c_str(), item.c_str());
    }
    std::string value = item.substr(equals + 1);
    if (value.size() >= 2 && value.front() == '(' && value.back() == ')') value = value.substr(1, value.size() - 2);
    if (!pairs.emplace(item.substr(0, equals), value).second) {
      fail(KVASIR_ARGUMENT, "Cannot use \"%.60s\": \"%.60s\" is given twice", type.c_str(),
           item.substr(0, equals).c_str());
    }
  }
  return pairs;
}

bool parse_number(const std::string& text, double* value) {
  if (text.empty() || std::isspace(static_cast<unsigned char>(text[0]))) return false;
  char* rest = nullptr;
  *value = std::strtod(text.c_str(), &rest);
  return *rest == 0 && std::isfinite(*value);
}

}  // namespace

Params::Params(const std::string& type, const char* defaults, const std::string& given)
    : type_(type), values_(parse_pairs(type, defaults)) {
  for (const auto& [key, value] : parse_pairs(type, given)) {
    const auto known = values_.find(key);
    if (known == values_.end()) {
      std::string keys;
      for (const auto& pair : values_) keys += (keys.empty() ? "" : ", ") + pair.first;
      fail(KVASIR_ARGUMENT, "Cannot use \"%.60s\": it has no parameter \"%.60s\", expected one of %s", type.c_str(),
           key.c_str(), keys.empty() ? "none" : keys.c_str());
    }
    double number;
    const bool numeric = parse_number(known->second, &number);
    if (numeric && !parse_number(value, &number)) {
      fail(KVASIR_ARGUMENT, "Cannot use \"%.60s\": %s is \"%.60s\", expected a number like %s", type.c_str(), key.c_str(),
           value.c_str(), known->second.c_str());
    }
    known->second = value;
  }
}

const std::string& Params::find(const char* key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) fail(KVASIR_INTERNAL, "Cannot use \"%s\": no default of \"%s\"", type_.c_str(), key);
  return found->second;
}

double Params::number(const char* key) const {
  double value = 0;
  if (!parse_number(find(key), &value)) {
    fail(KVASIR_ARGUMENT, "Cannot use \"%.60s\": %s is \"%.60s\", expected a number", type_.c_str(), key,
         find(key).c_str());
  }
  return value;
}

int32_t Params::integer(const char* key, int32_t low, int32_t high) const {
  const double value = number(key);
  if (value < low || value > high || value != std::floor(value)) {
    fail(KVASIR_ARGUMENT, "Cannot use \"%.60s\": %s is %g, expected a whole number from %d to %d", type_.c_str(), key,
         value, low, high);
  }
  return static_cast<int32_t>(value);
}

bool Params::flag(const char* key) const { return choice(key, {"false", "true"}) == 1; }

const std::string& Params::text(const char* key) const { return find(key); }

int Params::choice(const char* key, std::initializer_list<const char*> choices) const {
  const std::string& value = find(key);
  std::string list;
  int i = 0;
  for (const char* choice : choices) {
    if (value == choice) return i;
    list += std::string(i == 0 ? "" : ", ") + choice;
    i++;
  }
  fail(KVASIR_ARGUMENT, "Cannot use \"%.60s\": %s is \"%.60s\", expected one of %s", type_.c_str(), key, value.c_str(),
       list.c_str());
}

std::string Params::describe() const {
  std::string text;
  for (const auto& [key, value] : values_) {
    const bool bare = !value.empty() && value.find_first_of("(),") == std::string::npos;
    text += (text.empty() ? "" : ",") + key + "=" + (bare ? value : "(" + value + ")");
  }
  return text;
}

void split_spec(const std::string& spec, std::string* name, std::string* params) {
  const size_t colon = spec.find(':');
  *name = spec.substr(0, colon);
  *params = colon == std::string::npos ? "" : spec.substr(colon + 1);
}

std::string canonical_spec(const std::string& name, const Params& params) {
  const std::string text = params.describe();
  return text.empty() ? name : name + ":" + text;
}

}  // namespace kvasir
