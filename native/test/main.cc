// kvasir_native_test [text ...]: runs the tests whose names contain one of the texts, or all.
#include <chrono>
#include <cstdio>
#include <cstring>

#include "error.h"
#include "harness.h"

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 12);  // what was said before a crash is kept
  int passed = 0, failed = 0;
  for (const kvasir_test::Case& test : kvasir_test::cases()) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; i++) wanted = wanted || std::strstr(test.name, argv[i]) != nullptr;
    if (!wanted) continue;
    kvasir_test::failures() = 0;
    const auto start = std::chrono::steady_clock::now();
    try {
      test.body();
    } catch (const kvasir::Error& e) {
      kvasir_test::fail(test.name, 0, "ended by an error: " + e.message);
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (kvasir_test::failures() == 0) passed++;
    else failed++;
    if (kvasir_test::failures() > 0) std::printf("FAILED %s (%d)\n", test.name, kvasir_test::failures());
    else if (took.count() > 1) std::printf("slow: %s, %.1f s\n", test.name, took.count());
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
