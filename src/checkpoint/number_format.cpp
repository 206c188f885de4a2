#include "checkpoint/number_format.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "backend/quantization.h"
#include "base/error.h"

namespace checkpoint {
namespace {

struct FormatNames {
  NumberFormat format;
  const char* option;
  const char* safetensors;
  const char* torch;
};
constexpr std::array<FormatNames, 3> kFormats = {{
    {NumberFormat::kFloat32, "fp32", "F32", "float32"},
    {NumberFormat::kBfloat16, "bf16", "BF16", "bfloat16"},
    {NumberFormat::kFloat16, "fp16", "F16", "float16"},
}};

// IEEE 754 binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits.
uint16_t to_float16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = uint16_t(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00);   // NaN.
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);  // 65520 and above: infinity.
  if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 shifts the fraction to where binary16 has it, and rounds.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return uint16_t(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return uint16_t(sign | ((rounded - 0x38000000) >> 13));
}

float from_float16(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
  if (exponent == 0) {
    const float magnitude = float(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  const uint32_t top = exponent == 0x1f ? 0x7f800000 : (exponent + 112) << 23;
  return std::bit_cast<float>(sign | top | fraction << 13);
}

const FormatNames& names_of(NumberFormat format) {
  return kFormats[size_t(format)];
}

template <class Encode>
void encode_half(std::span<const float> numbers, std::span<std::byte> out, const Encode& encode) {
  for (size_t i = 0; i < numbers.size(); ++i) {
    const uint16_t half = encode(numbers[i]);
    std::memcpy(out.data() + 2 * i, &half, 2);
  }
}

template <class Decode>
void decode_half(std::span<const std::byte> bytes, std::span<float> out, const Decode& decode) {
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t half;
    std::memcpy(&half, bytes.data() + 2 * i, 2);
    out[i] = decode(half);
  }
}

}  // namespace

int64_t bytes_per_number(NumberFormat format) {
  return format == NumberFormat::kFloat32 ? 4 : 2;
}
const char* safetensors_name(NumberFormat format) {
  return names_of(format).safetensors;
}
const char* torch_name(NumberFormat format) {
  return names_of(format).torch;
}

NumberFormat parse_number_format(const std::string& name) {
  for (const FormatNames& names : kFormats)
    if (name == names.option) return names.format;
  throw base::bad_input(fmt::format("\"{}\" is no format of numbers", name),
                        "there are fp32, bf16 and fp16");
}

std::optional<NumberFormat> number_format_of(const std::string& safetensors_dtype) {
  for (const FormatNames& names : kFormats)
    if (safetensors_dtype == names.safetensors) return names.format;
  return std::nullopt;
}

std::optional<size_t> encode_numbers(NumberFormat format, std::span<const float> numbers,
                                     std::span<std::byte> out) {
  CHECK(int64_t(out.size()) == int64_t(numbers.size()) * bytes_per_number(format));
  constexpr float kFloat16End = 65520.0f, kBfloat16End = 0x1.ffp127f;  // Become infinite.
  float end = kFloat16End;
  switch (format) {
    case NumberFormat::kFloat32:
      if (!numbers.empty()) std::memcpy(out.data(), numbers.data(), numbers.size_bytes());
      return std::nullopt;
    case NumberFormat::kBfloat16:
      encode_half(numbers, out, backend::to_bfloat16);
      end = kBfloat16End;
      break;
    case NumberFormat::kFloat16:
      encode_half(numbers, out, to_float16);
      break;
  }
  for (size_t i = 0; i < numbers.size(); ++i)
    if (std::isfinite(numbers[i]) && std::abs(numbers[i]) >= end) return i;
  return std::nullopt;
}

void decode_numbers(NumberFormat format, std::span<const std::byte> bytes, std::span<float> out) {
  CHECK(int64_t(bytes.size()) == int64_t(out.size()) * bytes_per_number(format));
  switch (format) {
    case NumberFormat::kFloat32:
      if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
      return;
    case NumberFormat::kBfloat16:
      return decode_half(bytes, out, backend::from_bfloat16);
    case NumberFormat::kFloat16:
      return decode_half(bytes, out, from_float16);
  }
}

}  // namespace checkpoint
