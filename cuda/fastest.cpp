#include "cuda/fastest.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace cuda {
namespace {

constexpr int kWarmUps = 2;
constexpr int kTimings = 5;
constexpr float kHopeless = 1.5f;  // Times the best: more than the timings of one candidate differ.

}  // namespace

Fastest find_fastest(size_t candidates, const std::function<float(size_t)>& run,
                     float milliseconds_max) {
  Fastest fastest;
  float spent = 0;
  const auto timed_run = [&](size_t i) {
    const float milliseconds = run(i);
    if (std::isfinite(milliseconds)) spent += milliseconds;
    return milliseconds;
  };
  const auto time = [&](size_t i) {
    float warm = 0;
    for (int n = 0; n < kWarmUps && std::isfinite(warm); ++n) warm = timed_run(i);
    if (!std::isfinite(warm) || warm > kHopeless * fastest.milliseconds) return warm;
    std::array<float, kTimings> times;
    for (float& milliseconds : times) milliseconds = timed_run(i);
    std::ranges::nth_element(times, times.begin() + kTimings / 2);
    return times[kTimings / 2];
  };
  for (size_t i = 0; i < candidates && (i == 0 || spent < milliseconds_max); ++i) {
    const float milliseconds = time(i);
    ++fastest.tried;
    if (i == 0) fastest.first_milliseconds = milliseconds;
    if (milliseconds >= fastest.milliseconds) continue;
    fastest.milliseconds = milliseconds;
    fastest.index = i;
  }
  return fastest;
}

}  // namespace cuda
