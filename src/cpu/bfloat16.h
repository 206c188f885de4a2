// bf16 is the upper half of a float. The CPU stores it for others and computes in fp32.
#pragma once

#include <bit>
#include <cstdint>

namespace cpu {
namespace {

struct Bfloat16 {
  uint16_t bits;
};

// Round to nearest, ties to even. A NaN stays a NaN (the carry could otherwise make it an
// infinity).
inline Bfloat16 to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40;
  return {uint16_t(value != value ? quiet_nan : rounded)};
}

inline float to_float(Bfloat16 value) {
  return std::bit_cast<float>(uint32_t(value.bits) << 16);
}

[[maybe_unused]] void to_bfloat16(const float* in, Bfloat16* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_bfloat16(in[i]);
}

[[maybe_unused]] void to_float(const Bfloat16* in, float* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_float(in[i]);
}

}  // namespace
}  // namespace cpu
