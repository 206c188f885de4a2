// Blocks of 4096 numbers in two bits each: the mean of one of four bins.
//
// All sums are over integers (outer/block_integers.h).
#pragma once

#include <cmath>

#include "outer/block_codec.h"
#include "outer/block_integers.h"

namespace outer {

struct Lut2Format {
  static constexpr std::string_view kName = "lut2";
  static constexpr int64_t kBlock = kIntegerBlock;
  static constexpr int64_t kHeaderBytes = 16;
  static constexpr int64_t kCodesPerByte = 4;
  static constexpr std::optional<LocalParameters::DeviceCodec> kOnDevice = std::nullopt;

  static bool encode(const float* values, int64_t count, std::byte* header, uint8_t* quads) {
    const int32_t maximum_bits = backend::absolute_maximum_bits(values, count);
    if (maximum_bits >= backend::kInfinityBits) return false;
    const auto maximum = std::bit_cast<float>(maximum_bits);
    const bool is_zero = maximum < kSmallestMaximum;
    int32_t numbers[kBlock];
    to_integers(values, count, is_zero ? 0 : kLargestInteger / maximum, numbers);
    const int32_t threshold = threshold_of(numbers, count);
    const Means means =
        means_of(numbers, count, threshold, is_zero ? 0 : maximum / kLargestInteger);
    std::memcpy(header, means.of, sizeof means.of);
    uint8_t codes[kBlock];
    for (int64_t i = 0; i < count; ++i) codes[i] = code_of(numbers[i], threshold);
    for (int64_t i = count; i < 4 * quad_count(count); ++i) codes[i] = 0;
    for (int64_t i = 0; i < quad_count(count); ++i) {
      uint32_t quad;
      std::memcpy(&quad, codes + 4 * i, 4);
      quads[i] = uint8_t(quad | quad >> 6 | quad >> 12 | quad >> 18);
    }
    return true;
  }

  static void decode(const std::byte* header, const uint8_t* quads, int64_t count, float* values) {
    const auto means = read_header<Means>(header);
    uint8_t codes[kBlock];
    for (int64_t i = 0; i < quad_count(count); ++i) {
      const uint32_t quad = quads[i];
      const uint32_t apart = (quad | quad << 6 | quad << 12 | quad << 18) & 0x03030303;
      std::memcpy(codes + 4 * i, &apart, 4);
    }
    const float inner = means.of[0], outer = means.of[1];
    const float negative_inner = means.of[2], negative_outer = means.of[3];
    for (int64_t i = 0; i < count; ++i) {
      const float positive = (codes[i] & 1) != 0 ? outer : inner;
      const float negative = (codes[i] & 1) != 0 ? negative_outer : negative_inner;
      values[i] = (codes[i] & 2) != 0 ? negative : positive;
    }
  }

  static double sum_of_squares(const std::byte* header, const uint8_t* quads, int64_t count) {
    float values[kBlock];
    decode(header, quads, count, values);
    return outer::sum_of_squares({values, size_t(count)});
  }

  static const char* fault(const std::byte* header, const uint8_t*, int64_t) {
    const auto means = read_header<Means>(header);
    for (int code = 0; code < 4; ++code) {
      const auto bits = std::bit_cast<uint32_t>(means.of[code]);
      if (bits == 0) continue;
      // What it would be as a positive number: the upper bit of a code is its sign.
      const uint32_t magnitude = bits ^ (uint32_t(code) >> 1) << 31;
      if (magnitude < std::bit_cast<uint32_t>(kSmallestMean) ||
          magnitude >= uint32_t(backend::kInfinityBits))
        return "a mean has the wrong sign, is too small or not finite";
    }
    if ((means.of[1] != 0 && means.of[1] < means.of[0]) ||
        (means.of[3] != 0 && means.of[3] > means.of[2]))
      return "the mean of an outer bin is within that of the inner one";
    return nullptr;
  }

 private:
  struct Means {
    float of[4];  // By code.
  };

  static int64_t quad_count(int64_t count) { return base::div_ceil(count, kCodesPerByte); }

  // The largest integer that is not above 3/2 root mean squares.
  static int32_t threshold_of(const int32_t* numbers, int64_t count) {
    const auto squares = int64_t(integer_squares(numbers, count));
    return int32_t(std::sqrt(double(9 * squares / (4 * count))));
  }

  // The lower bit says that a number is in an outer bin, the upper one that it is negative.
  static uint8_t code_of(int32_t number, int32_t threshold) {
    const bool is_outer = (number > threshold) | (number < -threshold);
    return uint8_t((number < 0 ? 2 : 0) | (is_outer ? 1 : 0));
  }

  // Of the numbers from `least` to `most`, times `unit`; 0 where there are none.
  static float mean_of(const int32_t* numbers, int64_t count, int32_t least, int32_t most,
                       float unit) {
    int32_t sum = 0, members = 0;  // |sum| is at most 4096 * 2^18.
    for (int64_t i = 0; i < count; ++i) {
      const bool is_in = (numbers[i] >= least) & (numbers[i] <= most);
      sum += is_in ? numbers[i] : 0;
      members += is_in ? 1 : 0;
    }
    return members == 0 ? 0.0f : float(sum) / float(members) * unit;
  }
  static Means means_of(const int32_t* numbers, int64_t count, int32_t threshold, float unit) {
    constexpr auto kMost = int32_t(kLargestInteger);
    return {{mean_of(numbers, count, 0, threshold, unit),
             mean_of(numbers, count, threshold + 1, kMost, unit),
             mean_of(numbers, count, -threshold, -1, unit),
             mean_of(numbers, count, -kMost, -threshold - 1, unit)}};
  }
};

}  // namespace outer
