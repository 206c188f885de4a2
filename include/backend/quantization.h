// Numbers in fewer bits, where every backend must make the same bits: the int8 and int4 codecs of
// pseudo-gradients, the 8-bit moments of AdamW, and stochastic rounding to bf16. All functions are
// constexpr and do one IEEE operation at a time, so that the same text serves host and device code;
// whoever compiles it must not contract products and sums.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace backend {

// As integers, absolute values are ordered like the numbers, with infinity and then NaN on top: one
// maximum over a block finds its scale and everything that is not finite.
inline constexpr int32_t kInfinityBits = 0x7f800000;
constexpr int32_t absolute_bits(float value) {
  return std::bit_cast<int32_t>(value) & 0x7fffffff;
}
constexpr int32_t absolute_maximum_bits(const float* values, int64_t count) {
  int32_t maximum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bits = absolute_bits(values[i]);
    maximum = maximum < bits ? bits : maximum;
  }
  return maximum;
}

// --- bf16 is the upper half of a float.

constexpr float from_bfloat16(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}
// To the nearest, ties to even. A NaN stays one (the carry could otherwise make it an infinity).
constexpr uint16_t to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (value != value) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// --- int8 blocks of pseudo-gradients. The format is told in outer/codec.h.

inline constexpr int64_t kInt8Block = 512;
// A block below it counts as zeros: its arithmetic would touch subnormal numbers, which some
// devices flush.
inline constexpr float kInt8SmallestMaximum = 0x1p-100f;
// The largest float whose product with 127 is finite; FLT_MAX / 127 rounds to the one above it.
inline constexpr float kInt8ScaleMax = 0x810203p98f;

// The scale of a block whose largest absolute value is kInt8SmallestMaximum: but for 0, the least.
inline constexpr float kInt8ScaleMin = kInt8SmallestMaximum / 127.0f;

struct Int8Scale {
  float scale = 0;    // x' = code * scale
  float inverse = 0;  // code = round(x * inverse)
};
// For a block whose largest absolute value is `maximum`, which is finite.
constexpr Int8Scale int8_scale(float maximum) {
  if (maximum < kInt8SmallestMaximum) return {};
  const float scale = maximum / 127.0f;
  return {scale < kInt8ScaleMax ? scale : kInt8ScaleMax, 127.0f / maximum};
}
// Adding 1.5 * 2^23 to a small number rounds it to the nearest integer, ties to even, and leaves
// that integer in the low bits of the sum in two's complement: a rounding and a conversion in one
// addition. |x * inverse| is below 127.5.
constexpr int8_t int8_code(float x, float inverse) {
  const float product = x * inverse;
  const float shifted = product + 0x1.8p23f;
  return static_cast<int8_t>(std::bit_cast<int32_t>(shifted) & 0xff);
}

// --- int4 blocks of pseudo-gradients. The format is told in outer/codec.h.

inline constexpr int64_t kInt4Block = 128;
// A block whose scale is below it counts as zeros, as an int8 block does that small.
inline constexpr float kInt4ScaleMin = 0x1p-100f;
// FLT_MAX / 7 as bf16: rounded down, so that 7 times it is finite.
inline constexpr float kInt4ScaleMax = 0x1.24p125f;

struct Int4Scale {
  uint16_t bits = 0;  // bf16.  x' = code * from_bfloat16(bits)
  float inverse = 0;  // code = round(x * inverse)
};
// For a block whose largest absolute value is `maximum`, which is finite. The codes are made with
// the scale as it is stored, which is within 2^-8 of maximum / 7: the largest becomes 7 or -7, and
// with 7 * scale, which is exact, the same scale comes out again.
constexpr Int4Scale int4_scale(float maximum) {
  const uint16_t bits = to_bfloat16(maximum / 7.0f);
  const float scale = from_bfloat16(bits);
  if (scale < kInt4ScaleMin) return {};
  return {bits, 1.0f / scale};
}
// As int8_code does it; |x * inverse| is below 7.5. From -7 to 7.
constexpr int8_t int4_code(float x, float inverse) {
  return int8_code(x, inverse);
}
// Two codes in a byte, the first in its lower half, in two's complement of four bits.
constexpr uint8_t int4_pair(int8_t first, int8_t second) {
  return uint8_t((first & 0xf) | (second & 0xf) << 4);
}
constexpr int8_t int4_first(uint8_t pair) {
  return int8_t(((pair & 0xf) ^ 8) - 8);
}
constexpr int8_t int4_second(uint8_t pair) {
  return int8_t(((pair >> 4) ^ 8) - 8);
}

// --- 8-bit moments (Dettmers et al., "8-bit optimizers via block-wise quantization", ICLR 2022,
// arXiv 2110.02861). A block of 256 has one scale, its largest absolute value; a code is a
// magnitude relative to it, spaced by dynamic exponents: seven decades, finer towards the top.
// Unlike in the paper both signs have the same magnitudes, so that the largest element is always
// exact and coding decoded moments again changes nothing; and what is coded of v is its square
// root, which is what AdamW divides by: the seven decades are then decades of gradients.

inline constexpr int64_t kMomentBlock = 256;

// Magnitudes in rising order, from 0 to 1. With b bits in the fraction of decade 10^-e there are
// 2^b means of equal parts of [0.1, 1], times 10^-e; the last element is 1.
//   kSignedMagnitudes:   128, for codes sign << 7 | index.    (m)
//   kUnsignedMagnitudes: 256, for codes that are the index.   (the root of v)
template <int kBits>
constexpr std::array<float, 1 << kBits> dynamic_magnitudes() {
  std::array<float, 1 << kBits> magnitudes{};
  int at = 1;  // magnitudes[0] is 0.
  double decade = 1;
  for (int e = 1; e < kBits; ++e) decade /= 10;
  // Decade 10^-(kBits-1) has one magnitude, every following twice as many: 1 + 2 + ... =
  // 2^kBits - 1, of which the top one makes place for 1.
  for (int e = 0; e < kBits; ++e, decade *= 10) {
    const int parts = 1 << e;
    for (int i = 0; i < parts; ++i) {
      const double fraction = 0.1 + 0.9 * (double(i) + 0.5) / double(parts);
      magnitudes[std::size_t(at++)] = float(fraction * decade);
    }
  }
  magnitudes[(1 << kBits) - 1] = 1;
  return magnitudes;
}
inline constexpr std::array<float, 128> kSignedMagnitudes = dynamic_magnitudes<7>();
inline constexpr std::array<float, 256> kUnsignedMagnitudes = dynamic_magnitudes<8>();

// The least x that is nearer to `high` than to `low`, two neighbours: at equal distances, as fp32
// has them, the lower one counts.
constexpr float rounding_threshold(float low, float high) {
  const auto is_above = [&](float x) { return high - x < x - low; };
  int32_t bits = std::bit_cast<int32_t>((low + high) / 2);
  while (!is_above(std::bit_cast<float>(bits))) ++bits;
  while (is_above(std::bit_cast<float>(bits - 1))) --bits;
  return std::bit_cast<float>(bits);
}
// Of each magnitude and the next; the last one has no next.
template <std::size_t kCount>
constexpr std::array<float, kCount> rounding_thresholds(
    const std::array<float, kCount>& magnitudes) {
  std::array<float, kCount> thresholds{};
  for (std::size_t i = 0; i + 1 < kCount; ++i)
    thresholds[i] = rounding_threshold(magnitudes[i], magnitudes[i + 1]);
  thresholds[kCount - 1] = 2;
  return thresholds;
}
inline constexpr std::array<float, 128> kSignedThresholds = rounding_thresholds(kSignedMagnitudes);
inline constexpr std::array<float, 256> kUnsignedThresholds =
    rounding_thresholds(kUnsignedMagnitudes);

// The index of the nearest magnitude of the table with 2^kBits, of two equally near the lower one.
// `x` is in [0, 1], and `thresholds` are those of the table.
//
// Index + 1/2 is a continuous, piecewise linear function of x, with a piece for each decade; since
// every piece is flatter than the one before, it is the lowest of the lines. Rounded down to an
// index it tells which magnitude lies below x, but for roundings, whatever is contracted here:
// these can take a neighbour of x for the one below or above, where x is as good as equal to it, so
// that it is far from the thresholds on both sides, and comparing with either gives the same.
template <int kBits>
constexpr unsigned nearest_magnitude(const float* thresholds, float x) {
  float slope = 1 / 0.9f, at_zero = 8 / 9.0f;
  for (int e = 1; e < kBits; ++e) slope *= 10;
  int32_t lowest = kInfinityBits;
  for (int e = 0; e < kBits; ++e, slope *= 0.2f, at_zero *= 2) {
    const int32_t line = std::bit_cast<int32_t>(slope * x + at_zero);
    lowest = line < lowest ? line : lowest;  // Positive: as integers they have the same order.
  }
  // The sum has 2^23 + the index in its bits.
  const float shifted = std::bit_cast<float>(lowest) + (0x1p23f - 1.0f);
  const uint32_t index = std::bit_cast<uint32_t>(shifted) & ((1u << kBits) - 1);
  return x >= thresholds[index] ? index + 1 : index;
}

constexpr float decode_moment(bool is_signed, uint8_t code) {
  if (!is_signed) return kUnsignedMagnitudes[code];
  const float magnitude = kSignedMagnitudes[code & 127];
  return (code & 128) != 0 ? -magnitude : magnitude;
}
struct MomentScale {
  float scale = 0;
  float inverse = 0;
};
// Of a block whose largest absolute value is `largest`.
constexpr MomentScale moment_scale(float largest) {
  return {largest, largest > 0 ? 1.0f / largest : 0};
}
// `value` is m, or the root of v.
constexpr uint8_t encode_moment(bool is_signed, float value, const MomentScale& block) {
  if (!(block.scale > 0)) return 0;
  float x = (value < 0 ? -value : value) * block.inverse;
  // What is no number becomes 0. Below 2^-128 the inverse is infinite, and what is not 0 becomes 1.
  x = x > 0 ? x : 0;
  x = x < 1 ? x : 1;
  if (!is_signed) {
    // A root that became 0 would leave AdamW dividing by epsilon.
    const unsigned index = nearest_magnitude<8>(kUnsignedThresholds.data(), x);
    return uint8_t(value > 0 && index == 0 ? 1 : index);
  }
  const unsigned index = nearest_magnitude<7>(kSignedThresholds.data(), x);
  return uint8_t(value < 0 && index != 0 ? index | 128 : index);
}

// --- Stochastic rounding. 32 bits from a hash of who asks, equally distributed (the finaliser of
// SplitMix64, Steele, Lea and Flood 2014).
constexpr uint32_t rounding_bits(uint64_t seed, int64_t step, int64_t index) {
  uint64_t x = seed ^ (uint64_t(step) * 0x9e3779b97f4a7c15ull);
  x += uint64_t(index) * 0xd1342543de82ef95ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return uint32_t((x ^ (x >> 31)) >> 32);
}
// The bf16 below or above `value` (by magnitude), above with the probability of the part that is
// cut off. What is not finite stays so. Returns its 16 bits.
constexpr uint16_t round_stochastically(float value, uint32_t random) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7f800000) == 0x7f800000) {
    const bool is_nan = (bits & 0x007fffff) != 0;
    return uint16_t(bits >> 16 | (is_nan ? 0x40 : 0));
  }
  return uint16_t((bits + (random & 0xffff)) >> 16);
}

}  // namespace backend
