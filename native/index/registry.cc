// Index types by name. A type is one file that defines its IndexType, declared and listed here.
#include "error.h"
#include "index.h"

namespace kvasir {

extern const IndexType kFlat, kIvf, kLists, kGraph, kPlanned;
extern const IndexType kPages, kSnap, kChannels, kPca, kSkew, kPq, kClusters, kWave, kLsh, kMol, kHeavy, kVamana, kRoar;

const std::vector<const IndexType*>& index_types() {
  static const std::vector<const IndexType*> types = {
      &kFlat,
      &kIvf,
      &kLists,
      &kGraph,
      &kPlanned,
      &kPages,
      &kSnap,
      &kChannels,
      &kPca,
      &kSkew,
      &kPq,
      &kClusters,
      &kWave,
      &kLsh,
      &kMol,
      &kHeavy,
      &kVamana,
      &kRoar,
  };
  return types;
}

const IndexType& find_index_type(const std::string& name) {
  std::string names;
  for (const IndexType* type : index_types()) {
    if (name == type->name) return *type;
    names += (names.empty() ? "" : ", ") + std::string(type->name);
  }
  fail(KVASIR_ARGUMENT, "Cannot find index type \"%.60s\": expected one of %s", name.c_str(), names.c_str());
}

}  // namespace kvasir
