// "flat:codes=int4,block=32": the name and the typed parameters of a spec.
#pragma once
#include <map>
#include <string>

namespace kvasir {

// Parameters by key; which keys there are, and of what type, is what the defaults say.
class Params {
 public:
  // Defaults, with those of `given` in their place; throws Error{KVASIR_ARGUMENT} for unknown keys and values of another kind
  // than the default's.
  Params(const std::string& type, const char* defaults, const std::string& given);

  const char* type() const { return type_.c_str(); }
  double number(const char* key) const;
  // An integer in [low, high]; throws Error{KVASIR_ARGUMENT} outside.
  int32_t integer(const char* key, int32_t low, int32_t high) const;
  bool flag(const char* key) const;
  const std::string& text(const char* key) const;
  // Index of the value among `choices`; throws Error{KVASIR_ARGUMENT} that lists them.
  int choice(const char* key, std::initializer_list<const char*> choices) const;
  // Canonical: every key, sorted.
  std::string describe() const;

 private:
  const std::string& find(const char* key) const;
  std::string type_;
  std::map<std::string, std::string> values_;
};

// Splits "name:params" (or "name").
void split_spec(const std::string& spec, std::string* name, std::string* params);
// The spec that names all parameters: equal for equal meanings.
std::string canonical_spec(const std::string& name, const Params& params);

}  // namespace kvasir
