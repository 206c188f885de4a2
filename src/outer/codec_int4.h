// Blocks of 128 numbers in four bits each, with one bf16 scale.
#pragma once

#include "outer/block_codec.h"

namespace outer {

struct Int4Format {
  static constexpr std::string_view kName = "int4";
  static constexpr int64_t kBlock = backend::kInt4Block;
  static constexpr int64_t kHeaderBytes = 2;
  static constexpr int64_t kCodesPerByte = 2;
  static constexpr std::optional<LocalParameters::DeviceCodec> kOnDevice =
      LocalParameters::DeviceCodec::kInt4;

  static bool encode(const float* values, int64_t count, std::byte* header, uint8_t* pairs) {
    const int32_t maximum = backend::absolute_maximum_bits(values, count);
    if (maximum >= backend::kInfinityBits) return false;
    const backend::Int4Scale scale = backend::int4_scale(std::bit_cast<float>(maximum));
    std::memcpy(header, &scale.bits, 2);
    int8_t codes[kBlock];
    for (int64_t i = 0; i < count; ++i) codes[i] = backend::int4_code(values[i], scale.inverse);
    if (count % 2 != 0) codes[count] = 0;
    for (int64_t i = 0; i < pair_count(count); ++i)
      pairs[i] = backend::int4_pair(codes[2 * i], codes[2 * i + 1]);
    return true;
  }

  static void decode(const std::byte* header, const uint8_t* pairs, int64_t count, float* values) {
    const float scale = backend::from_bfloat16(read_header<uint16_t>(header));
    int8_t codes[kBlock];
    for (int64_t i = 0; i < pair_count(count); ++i) {
      codes[2 * i] = backend::int4_first(pairs[i]);
      codes[2 * i + 1] = backend::int4_second(pairs[i]);
    }
    for (int64_t i = 0; i < count; ++i) values[i] = float(codes[i]) * scale;
  }

  static double sum_of_squares(const std::byte* header, const uint8_t* pairs, int64_t count) {
    int32_t squares = 0;  // Bits behind the last code are 0.
    for (int64_t i = 0; i < pair_count(count); ++i) {
      const int first = backend::int4_first(pairs[i]), second = backend::int4_second(pairs[i]);
      squares += first * first + second * second;
    }
    const auto scale = double(backend::from_bfloat16(read_header<uint16_t>(header)));
    return double(squares) * (scale * scale);
  }

  // Whatever passes is what encode() makes of what decode() makes of it.
  static const char* fault(const std::byte* header, const uint8_t* pairs, int64_t count) {
    // Of a number, bf16 is the upper half: what is said of scales in codec_int8.h holds here too.
    const auto bits = read_header<uint16_t>(header);
    const bool is_small = bits != 0 && bits < backend::to_bfloat16(backend::kInt4ScaleMin);
    if (is_small || bits > backend::to_bfloat16(backend::kInt4ScaleMax))
      return "the scale is negative, too small, too large or not finite";
    // Of codes + 8: the oldest processors compare bytes without signs.
    uint8_t smallest = 8, largest = 8;
    for (int64_t i = 0; i < pair_count(count); ++i) {
      const uint8_t first = (pairs[i] & 0xf) ^ 8, second = (pairs[i] >> 4) ^ 8;
      const uint8_t lower = first < second ? first : second;
      const uint8_t upper = first < second ? second : first;
      smallest = lower < smallest ? lower : smallest;
      largest = upper > largest ? upper : largest;
    }
    if (smallest == 0) return "a code is -8";
    if (std::max(8 - smallest, largest - 8) != (bits == 0 ? 0 : 7))
      return "the codes are not those of the scale: the largest is 7 or -7, with scale 0 it is 0";
    return nullptr;
  }

 private:
  static int64_t pair_count(int64_t count) { return base::div_ceil(count, 2); }
};

}  // namespace outer
