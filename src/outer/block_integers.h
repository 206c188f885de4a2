// What codecs with means of bins have in common: a block's numbers as integers, multiples of its
// largest absolute value times 2^-18, so that all sums over them are exact and come out the same in
// any order.
#pragma once

#include <bit>
#include <cstdint>

namespace outer {

inline constexpr int64_t kIntegerBlock = 4096;
inline constexpr float kLargestInteger = 0x1p18f;
// A block below it counts as zeros, so that no mean is subnormal: the least is that of 4096 numbers
// of which one is 1 and the others are 0.
inline constexpr float kSmallestMaximum = 0x1p-90f;
inline constexpr float kSmallestMean = kSmallestMaximum / kLargestInteger / float(kIntegerBlock);

// Rounded to nearest even as int8_code does it; |value * inverse| is at most 2^18.
inline void to_integers(const float* values, int64_t count, float inverse, int32_t* numbers) {
  constexpr float kShift = 0x1.8p23f;
  for (int64_t i = 0; i < count; ++i) {
    const float product = values[i] * inverse;
    const float shifted = product + kShift;
    numbers[i] = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kShift);
  }
}

// At most 2^48, and so exact in doubles, whichever lane adds what.
inline double integer_squares(const int32_t* numbers, int64_t count) {
  constexpr int kLanes = 8;
  double lanes[kLanes] = {};
  const auto add = [&](int32_t number, int lane) {
    lanes[lane] += double(number) * double(number);
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) add(numbers[i + lane], lane);
  }
  for (; i < count; ++i) add(numbers[i], 0);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace outer
