// kvasir_native_test [--first-failure] [text ...]: runs the tests whose names contain one of the texts, or all; until one fails.
#include <chrono>
#include <cstdio>
#include <cstring>

#include "error.h"
#include "harness.h"

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 12);  // what was said before a crash is kept
  const bool until_failure = argc > 1 && std::strcmp(argv[1], "--first-failure") == 0;
  const int first = until_failure ? 2 : 1;
  int passed = 0, failed = 0;
  for (const kvasir_test::Case& test : kvasir_test::cases()) {
    if (until_failure && failed > 0) break;
    bool wanted = argc <= first;
    for (int i = first; i < argc; i++) wanted = wanted || std::strstr(test.name, argv[i]) != nullptr;
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
