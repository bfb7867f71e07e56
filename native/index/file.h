// A saved index as an index type sees it: named sections of bytes. What surrounds them is docs/index_file.md's business.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "error.h"

namespace kvasir {

class FileWriter {
 public:
  virtual ~FileWriter() = default;
  // Copies; names are unique within a file, at most 31 characters.
  virtual void add(const std::string& name, const void* data, size_t bytes) = 0;
};

class FileReader {
 public:
  struct Section {
    const uint8_t* data;  // 64-byte aligned, read only, valid as long as the holder below
    size_t bytes;
  };
  virtual ~FileReader() = default;
  // Throws Error{KVASIR_ARGUMENT} that names file and section where there is none.
  virtual Section find(const std::string& name) const = 0;
  // Keeps the mapped file in memory; for types that read sections in place.
  virtual std::shared_ptr<const void> holder() const = 0;

  // A section of exactly `count` elements; throws Error{KVASIR_ARGUMENT}. Contents are still to be checked.
  template <class T>
  const T* array(const std::string& name, size_t count) const {
    const Section section = find(name);
    if (section.bytes != count * sizeof(T)) {
      fail(KVASIR_ARGUMENT, "Cannot open index: section \"%s\" has %zu bytes, expected %zu", name.c_str(), section.bytes,
           count * sizeof(T));
    }
    return reinterpret_cast<const T*>(section.data);
  }
};

}  // namespace kvasir
