// Small things that are said about time.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "net/machine.h"

namespace train {

inline double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// What the config gives in seconds.
inline net::Duration seconds(double value) {
  return net::Duration(int64_t(value * 1e9));
}

// The upper one of an even number. REQUIRES: at least one value.
inline double median(std::vector<double> values) {
  const auto middle = values.begin() + int64_t(values.size()) / 2;
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace train
