// Blocks of 512 numbers as int8 with one fp32 scale.
#pragma once

#include "outer/block_codec.h"

namespace outer {

struct Int8Format {
  static constexpr std::string_view kName = "int8";
  static constexpr int64_t kBlock = backend::kInt8Block;
  static constexpr int64_t kHeaderBytes = 4;
  static constexpr int64_t kCodesPerByte = 1;
  static constexpr std::optional<LocalParameters::DeviceCodec> kOnDevice =
      LocalParameters::DeviceCodec::kInt8;

  static bool encode(const float* values, int64_t count, std::byte* header, uint8_t* codes) {
    const int32_t maximum = backend::absolute_maximum_bits(values, count);
    if (maximum >= backend::kInfinityBits) return false;
    const backend::Int8Scale scale = backend::int8_scale(std::bit_cast<float>(maximum));
    std::memcpy(header, &scale.scale, 4);
    for (int64_t i = 0; i < count; ++i)
      codes[i] = uint8_t(backend::int8_code(values[i], scale.inverse));
    return true;
  }

  static void decode(const std::byte* header, const uint8_t* codes, int64_t count, float* values) {
    const auto scale = read_header<float>(header);
    for (int64_t i = 0; i < count; ++i) values[i] = float(int8_t(codes[i])) * scale;
  }

  static double sum_of_squares(const std::byte* header, const uint8_t* codes, int64_t count) {
    int32_t squares = 0;  // At most 512 * 127^2.
    for (int64_t i = 0; i < count; ++i) squares += int32_t(int8_t(codes[i])) * int8_t(codes[i]);
    const auto scale = double(read_header<float>(header));
    return double(squares) * (scale * scale);
  }

  static const char* fault(const std::byte* header, const uint8_t* codes, int64_t count) {
    // As unsigned integers, everything negative and everything that is not finite is above. What is
    // below would be subnormal, or make subnormal numbers, which not every machine computes with:
    // replicas would differ.
    const auto bits = read_header<uint32_t>(header);
    const bool is_small = bits != 0 && bits < std::bit_cast<uint32_t>(backend::kInt8ScaleMin);
    if (is_small || bits > std::bit_cast<uint32_t>(backend::kInt8ScaleMax))
      return "the scale is negative, too small, too large or not finite";
    int8_t smallest = 0;
    for (int64_t i = 0; i < count; ++i) smallest = std::min(smallest, int8_t(codes[i]));
    return smallest == -128 ? "a code is -128" : nullptr;
  }
};

}  // namespace outer
