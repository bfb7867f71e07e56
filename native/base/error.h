// Errors inside a library, and the guard that turns them into statuses at its door.
#pragma once
#include <cstdint>
#include <string>

#include "kvasir_abi.h"

namespace kvasir {

// Thrown inside the library only; guard() turns it into its status.
struct Error {
  int32_t status;
  std::string message;
};
[[noreturn]] void fail(int32_t status, const char* format, ...) __attribute__((format(printf, 2, 3)));

int32_t report(int32_t status, const char* message);  // remembers the sentence for last_error_text
int32_t report_current_exception();
const char* last_error_text();  // of the calling thread

// Text into a caller's buffer of cap bytes, NUL-terminated, cut where it does not fit.
void copy_text(char* buf, int32_t cap, const char* text);

// Runs body; exceptions (Error, bad_alloc, anything) become a status and a sentence. Nothing escapes.
template <class F>
int32_t guard(F&& body) noexcept {
  try {
    body();
    return KVASIR_OK;
  } catch (...) {
    return report_current_exception();
  }
}

}  // namespace kvasir
