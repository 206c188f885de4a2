// Numbers in files: fp16 and bf16 by their definitions.
#include "checkpoint/number_format.h"

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "support/catch.h"

using checkpoint::NumberFormat;

namespace {

std::vector<std::byte> encoded(NumberFormat format, float number) {
  std::vector<std::byte> bytes(size_t(checkpoint::bytes_per_number(format)));
  checkpoint::encode_numbers(format, {&number, 1}, bytes);
  return bytes;
}

float decoded(NumberFormat format, uint16_t half) {
  float number = 0;
  checkpoint::decode_numbers(format, std::as_bytes(std::span(&half, 1)), {&number, 1});
  return number;
}

uint16_t half_of(NumberFormat format, float number) {
  const auto bytes = encoded(format, number);
  return uint16_t(uint16_t(bytes[0]) | uint16_t(bytes[1]) << 8);
}

// What a half with these bits is, by IEEE 754.
double definition(uint16_t half, int exponent_bits) {
  const int fraction_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = half >> fraction_bits & ((1 << exponent_bits) - 1);
  const double fraction = std::ldexp(half & ((1 << fraction_bits) - 1), -fraction_bits);
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
  return half & 0x8000 ? -magnitude : magnitude;
}

}  // namespace

TEST_CASE("Every number of a half format is read exactly and comes back") {
  for (const auto& [format, exponent_bits] :
       {std::pair(NumberFormat::kFloat16, 5), std::pair(NumberFormat::kBfloat16, 8)}) {
    const int top = ((1 << exponent_bits) - 1) << (15 - exponent_bits);
    for (int half = 0; half < 0x10000; ++half) {
      const float number = decoded(format, uint16_t(half));
      if ((half & top) == top) {
        REQUIRE_FALSE(std::isfinite(number));
        REQUIRE(std::isnan(number) == ((half & (0x7fff & ~top)) != 0));
        REQUIRE(std::isnan(decoded(format, half_of(format, number))) == std::isnan(number));
        continue;
      }
      if (double(number) != definition(uint16_t(half), exponent_bits)) FAIL("half " << half);
      if (half_of(format, number) != half) FAIL("back " << half);
    }
  }
}

TEST_CASE("Between two numbers of a half format the nearer one is taken, of equals the even one") {
  for (const NumberFormat format : {NumberFormat::kFloat16, NumberFormat::kBfloat16}) {
    const int end = format == NumberFormat::kFloat16 ? 0x7bff : 0x7f7f;
    for (int half = 0; half < end; half += 1 + half / 64) {
      const float low = decoded(format, uint16_t(half)), high = decoded(format, uint16_t(half + 1));
      const auto middle = float((double(low) + double(high)) / 2);
      if (std::fpclassify(middle) == FP_SUBNORMAL || middle == low) continue;  // fp32 has none.
      INFO("half " << half);
      REQUIRE(half_of(format, middle) == (half % 2 == 0 ? half : half + 1));
      REQUIRE(half_of(format, std::nextafter(middle, low)) == half);
      REQUIRE(half_of(format, std::nextafter(middle, high)) == half + 1);
      REQUIRE(half_of(format, -middle) == (half_of(format, middle) | 0x8000));
    }
  }
}

TEST_CASE("Numbers that a format cannot hold are found") {
  const auto first_too_large = [](NumberFormat format, std::vector<float> numbers) {
    std::vector<std::byte> bytes(numbers.size() * size_t(checkpoint::bytes_per_number(format)));
    return checkpoint::encode_numbers(format, numbers, bytes);
  };
  const float infinity = std::numeric_limits<float>::infinity();
  const float largest = std::numeric_limits<float>::max();
  REQUIRE(first_too_large(NumberFormat::kFloat16, {1, -65520, 65520}) == size_t{1});
  REQUIRE_FALSE(first_too_large(NumberFormat::kFloat16, {65519, infinity, std::nanf("")}));
  REQUIRE(first_too_large(NumberFormat::kBfloat16, {1e38f, largest}) == size_t{1});
  REQUIRE_FALSE(first_too_large(NumberFormat::kBfloat16, {0x1.fep127f, -infinity}));
  REQUIRE_FALSE(first_too_large(NumberFormat::kFloat32, {largest}));
}

TEST_CASE("Formats have names") {
  REQUIRE(checkpoint::parse_number_format("bf16") == NumberFormat::kBfloat16);
  REQUIRE_THROWS_AS(checkpoint::parse_number_format("fp8"), base::Error);
  REQUIRE(checkpoint::number_format_of("F16") == NumberFormat::kFloat16);
  REQUIRE_FALSE(checkpoint::number_format_of("I8"));
}
