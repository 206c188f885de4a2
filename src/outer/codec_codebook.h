// Blocks of 4096 numbers in 8 bits each: 256 buckets of equal width over so many root mean squares
// to either side, and each number becomes the mean of its bucket.
//
// This is how INTELLECT-1's PRIME quantised (arXiv 2412.01152, section 2.2; over 3 sigma in its
// code, 6 in its report), with blocks in place of whole messages, so that pieces of a chunk can be
// encoded by themselves. All sums are over integers (outer/block_integers.h).
#pragma once

#include <cmath>

#include "outer/block_codec.h"
#include "outer/block_integers.h"

namespace outer {

struct CodebookFormat {
  static constexpr std::string_view kName = "int8-codebook";
  static constexpr int64_t kBuckets = 256;
  static constexpr int64_t kBlock = kIntegerBlock;
  static constexpr int64_t kHeaderBytes = 4 * kBuckets;
  static constexpr int64_t kCodesPerByte = 1;
  static constexpr std::optional<LocalParameters::DeviceCodec> kOnDevice = std::nullopt;

  double sigmas = 6;  // Numbers beyond are in the outermost buckets.

  bool encode(const float* values, int64_t count, std::byte* header, uint8_t* codes) const {
    const int32_t maximum_bits = backend::absolute_maximum_bits(values, count);
    if (maximum_bits >= backend::kInfinityBits) return false;
    const auto maximum = std::bit_cast<float>(maximum_bits);
    const bool is_zero = maximum < kSmallestMaximum;
    int32_t numbers[kBlock];
    to_integers(values, count, is_zero ? 0 : kLargestInteger / maximum, numbers);
    set_codes(numbers, count, codes);
    const Means means = means_of(numbers, count, codes, is_zero ? 0 : maximum / kLargestInteger);
    std::memcpy(header, means.of, sizeof means.of);
    return true;
  }

  static void decode(const std::byte* header, const uint8_t* codes, int64_t count, float* values) {
    const auto means = read_header<Means>(header);
    for (int64_t i = 0; i < count; ++i) values[i] = means.of[codes[i]];
  }

  static double sum_of_squares(const std::byte* header, const uint8_t* codes, int64_t count) {
    float values[kBlock];
    decode(header, codes, count, values);
    return outer::sum_of_squares({values, size_t(count)});
  }

  static const char* fault(const std::byte* header, const uint8_t*, int64_t) {
    const auto means = read_header<Means>(header);
    float last = -std::numeric_limits<float>::infinity();
    for (const float mean : means.of) {
      const auto bits = std::bit_cast<uint32_t>(mean);
      if (bits == 0) continue;  // An empty bucket, too.
      const uint32_t magnitude = bits & 0x7fffffff;
      if (magnitude < std::bit_cast<uint32_t>(kSmallestMean) ||
          magnitude >= uint32_t(backend::kInfinityBits))
        return "a mean is too small or not finite";
      if (mean < last) return "the means of the buckets do not rise";
      last = mean;
    }
    return nullptr;
  }

 private:
  struct Means {
    float of[kBuckets];  // By code.
  };

  // code = round(number / width) + 128, with width = 2 * sigmas * root mean square / 256. The mean
  // is not taken out. |number / width| is at most 2^13, as a block's largest number is at most 2^6
  // of its root mean squares.
  void set_codes(const int32_t* numbers, int64_t count, uint8_t* codes) const {
    const double rms = std::sqrt(integer_squares(numbers, count) / double(count));
    const float inverse = rms > 0 ? float(double(kBuckets) / (2 * sigmas * rms)) : 0.0f;
    constexpr float kShift = 0x1.8p23f;
    for (int64_t i = 0; i < count; ++i) {
      const float shifted = float(numbers[i]) * inverse + kShift;
      const int32_t bucket = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kShift);
      codes[i] = uint8_t(std::clamp<int32_t>(bucket + 128, 0, 255));
    }
  }

  // Sums are at most 4096 * 2^18.
  static Means means_of(const int32_t* numbers, int64_t count, const uint8_t* codes, float unit) {
    int32_t sums[kBuckets] = {}, members[kBuckets] = {};
    for (int64_t i = 0; i < count; ++i) {
      sums[codes[i]] += numbers[i];
      ++members[codes[i]];
    }
    Means means = {};
    for (int64_t code = 0; code < kBuckets; ++code) {
      if (sums[code] == 0) continue;
      means.of[code] = float(sums[code]) / float(members[code]) * unit;
    }
    return means;
  }
};

}  // namespace outer
