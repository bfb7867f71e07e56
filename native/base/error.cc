#include "error.h"

#include <cstdarg>
#include <cstdio>
#include <exception>
#include <new>

namespace kvasir {
namespace {

thread_local char last_error[512] = "";

}  // namespace

void fail(int32_t status, const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  throw Error{status, text};
}

int32_t report(int32_t status, const char* message) {
  std::snprintf(last_error, sizeof last_error, "%s", message);
  return status;
}

int32_t report_current_exception() {
  try {
    throw;
  } catch (const Error& e) {
    return report(e.status, e.message.c_str());
  } catch (const std::bad_alloc&) {
    return report(KVASIR_MEMORY, "Cannot allocate: out of memory");
  } catch (const std::exception& e) {
    char text[512];
    std::snprintf(text, sizeof text, "Cannot run native call: internal error, %s", e.what());
    return report(KVASIR_INTERNAL, text);
  } catch (...) {
    return report(KVASIR_INTERNAL, "Cannot run native call: internal error of unknown type");
  }
}

const char* last_error_text() { return last_error; }

void copy_text(char* buf, int32_t cap, const char* text) {
  if (buf != nullptr && cap > 0) std::snprintf(buf, static_cast<size_t>(cap), "%s", text);
}

}  // namespace kvasir
