// A test is TEST("name") { EXPECT(...); }; main.cc runs those whose name contains one of its arguments.
#pragma once
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

namespace kvasir_test {

struct Case {
  const char* name;
  void (*body)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> list;
  return list;
}
inline int& failures() {  // of the running case
  static int count = 0;
  return count;
}
struct Register {
  Register(const char* name, void (*body)()) { cases().push_back({name, body}); }
};

inline void fail(const char* file, int line, const std::string& text) {
  if (++failures() <= 5) std::printf("  %s:%d: %s\n", file, line, text.c_str());
}
template <class T>
std::string show(const T& value) {
  if constexpr (std::is_arithmetic_v<T>) return std::to_string(value);
  else return "\"" + std::string(value) + "\"";
}

}  // namespace kvasir_test

#define KVASIR_JOIN2(a, b) a##b
#define KVASIR_JOIN(a, b) KVASIR_JOIN2(a, b)
#define KVASIR_TEST(name, id)                                                    \
  static void KVASIR_JOIN(test_, id)();                                          \
  static kvasir_test::Register KVASIR_JOIN(reg_, id)(name, KVASIR_JOIN(test_, id)); \
  static void KVASIR_JOIN(test_, id)()
#define TEST(name) KVASIR_TEST(name, __COUNTER__)

#define EXPECT(condition)                                                             \
  do {                                                                                \
    if (!(condition)) kvasir_test::fail(__FILE__, __LINE__, "expected " #condition); \
  } while (0)
#define EXPECT_EQ(got, want)                                                                                  \
  do {                                                                                                        \
    const auto got_ = (got);                                                                                  \
    const decltype(got_) want_ = (want);                                                                      \
    if (!(got_ == want_))                                                                                     \
      kvasir_test::fail(__FILE__, __LINE__,                                                                   \
                        #got " is " + kvasir_test::show(got_) + ", expected " + kvasir_test::show(want_));    \
  } while (0)
// |got - want| <= tolerance; a NaN fails.
#define EXPECT_NEAR(got, want, tolerance)                                                                     \
  do {                                                                                                        \
    const double got_ = (got), want_ = (want), tolerance_ = (tolerance);                                      \
    if (!(std::fabs(got_ - want_) <= tolerance_)) {                                                           \
      char text_[200];                                                                                        \
      std::snprintf(text_, sizeof text_, "%s is %.9g, expected %.9g within %.3g", #got, got_, want_, tolerance_); \
      kvasir_test::fail(__FILE__, __LINE__, text_);                                                           \
    }                                                                                                         \
  } while (0)
