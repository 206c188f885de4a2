// Small integer arithmetic that the standard library lacks. Usable on host and device.
#pragma once

#include <cstdint>

namespace base {

inline constexpr int64_t kKiB = 1024;
inline constexpr int64_t kMiB = 1024 * kKiB;
inline constexpr int64_t kGiB = 1024 * kMiB;

// REQUIRES: a >= 0, b > 0.
constexpr int64_t div_ceil(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
constexpr int64_t round_up(int64_t a, int64_t multiple) {
  return div_ceil(a, multiple) * multiple;
}

}  // namespace base
