#include "outer/codec.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/quantization.h"
#include "base/math.h"

namespace outer {

using backend::absolute_bits;
using backend::kInfinityBits;
using backend::kInt8Block;
using backend::kInt8ScaleMax;
using backend::kInt8ScaleMin;

static_assert(std::endian::native == std::endian::little,
              "the encoded bytes are little endian, and so is every machine that Atoll runs on");

namespace {

// The bits of the largest absolute value: as integers they are ordered like the numbers, with
// infinity and then NaN on top, so that one maximum finds the scale and everything that is not
// finite.
int32_t absolute_maximum_bits(const float* values, int64_t count) {
  int32_t maximum = 0;
  for (int64_t i = 0; i < count; ++i) maximum = std::max(maximum, absolute_bits(values[i]));
  return maximum;
}

base::Result<void> check_size(std::string_view codec, int64_t found, int64_t expected) {
  if (found == expected) return {};
  return base::Failure{
      fmt::format("{} chunk: expected {} bytes, found {}", codec, expected, found)};
}

class Fp32Codec final : public Codec {
 public:
  std::string_view name() const override { return "fp32"; }

  int64_t encoded_bytes(int64_t element_count) const override { return 4 * element_count; }

  base::Result<void> encode(std::span<const float> values,
                            std::span<std::byte> encoded) const override {
    CHECK(encoded.size() == values.size_bytes());
    if (!all_finite(values)) return base::Failure{"fp32 codec: a value is not finite"};
    std::copy_n(std::as_bytes(values).data(), encoded.size(), encoded.data());
    return {};
  }

  void decode(std::span<const std::byte> encoded, std::span<float> values) const override {
    CHECK(encoded.size() == values.size_bytes());
    std::copy_n(encoded.data(), encoded.size(), std::as_writable_bytes(values).data());
  }

  base::Result<void> check(std::span<const std::byte> encoded,
                           int64_t element_count) const override {
    base::Result<void> size =
        check_size(name(), int64_t(encoded.size()), encoded_bytes(element_count));
    if (!size) return size;
    int32_t maximum = 0;
    for (int64_t i = 0; i < element_count; ++i) {
      int32_t bits;  // The bytes need not be aligned.
      std::memcpy(&bits, encoded.data() + 4 * i, 4);
      maximum = std::max(maximum, bits & 0x7fffffff);
    }
    if (maximum >= kInfinityBits) return base::Failure{"fp32 chunk: a value is not finite"};
    return {};
  }
};

class Int8Codec final : public Codec {
 public:
  std::string_view name() const override { return "int8"; }

  int64_t encoded_bytes(int64_t element_count) const override {
    return 4 * block_count(element_count) + element_count;
  }

  base::Result<void> encode(std::span<const float> values,
                            std::span<std::byte> encoded) const override {
    const int64_t count = int64_t(values.size());
    CHECK(int64_t(encoded.size()) == encoded_bytes(count));
    auto* quantised = reinterpret_cast<int8_t*>(encoded.data() + 4 * block_count(count));
    for (int64_t block = 0; block < block_count(count); ++block) {
      const int64_t first = block * kInt8Block;
      const int64_t n = std::min(kInt8Block, count - first);
      const int32_t maximum_bits = absolute_maximum_bits(values.data() + first, n);
      if (maximum_bits >= kInfinityBits) return base::Failure{"int8 codec: a value is not finite"};
      const backend::Int8Scale scale = backend::int8_scale(std::bit_cast<float>(maximum_bits));
      std::memcpy(encoded.data() + 4 * block, &scale.scale, 4);
      quantise(values.data() + first, n, scale.inverse, quantised + first);
    }
    return {};
  }

  void decode(std::span<const std::byte> encoded, std::span<float> values) const override {
    const int64_t count = int64_t(values.size());
    CHECK(int64_t(encoded.size()) == encoded_bytes(count));
    const auto* quantised =
        reinterpret_cast<const int8_t*>(encoded.data() + 4 * block_count(count));
    for (int64_t block = 0; block < block_count(count); ++block) {
      const int64_t first = block * kInt8Block;
      const int64_t n = std::min(kInt8Block, count - first);
      float scale;
      std::memcpy(&scale, encoded.data() + 4 * block, 4);
      dequantise(quantised + first, n, scale, values.data() + first);
    }
  }

  base::Result<void> check(std::span<const std::byte> encoded,
                           int64_t element_count) const override {
    base::Result<void> size =
        check_size(name(), int64_t(encoded.size()), encoded_bytes(element_count));
    if (!size) return size;
    const int64_t blocks = block_count(element_count);
    for (int64_t block = 0; block < blocks; ++block) {
      uint32_t bits;
      std::memcpy(&bits, encoded.data() + 4 * block, 4);
      // As unsigned integers, everything negative and everything that is not finite is above. What
      // is below would be subnormal, or make subnormal numbers, which not every machine computes
      // with: replicas would differ.
      const bool is_small = bits != 0 && bits < std::bit_cast<uint32_t>(kInt8ScaleMin);
      if (is_small || bits > std::bit_cast<uint32_t>(kInt8ScaleMax)) {
        return base::Failure{fmt::format(
            "int8 chunk: scale {} of {} is negative, too small, too large or not finite", block,
            blocks)};
      }
    }
    const auto* quantised = reinterpret_cast<const int8_t*>(encoded.data() + 4 * blocks);
    int8_t smallest = 0;
    for (int64_t i = 0; i < element_count; ++i) smallest = std::min(smallest, quantised[i]);
    if (smallest == -128) return base::Failure{"int8 chunk: a value is -128"};
    return {};
  }

 private:
  static int64_t block_count(int64_t element_count) {
    return base::div_ceil(element_count, kInt8Block);
  }

  static void quantise(const float* values, int64_t count, float inverse, int8_t* quantised) {
    for (int64_t i = 0; i < count; ++i) quantised[i] = backend::int8_code(values[i], inverse);
  }

  static void dequantise(const int8_t* quantised, int64_t count, float scale, float* values) {
    for (int64_t i = 0; i < count; ++i) values[i] = float(quantised[i]) * scale;
  }
};

}  // namespace

std::unique_ptr<Codec> make_codec(const std::string& name) {
  if (name == "fp32") return std::make_unique<Fp32Codec>();
  if (name == "int8") return std::make_unique<Int8Codec>();
  throw base::bad_input(fmt::format("outer.codec: unknown codec '{}'", name), "int8 or fp32");
}

bool all_finite(std::span<const float> values) {
  return absolute_maximum_bits(values.data(), int64_t(values.size())) < kInfinityBits;
}

}  // namespace outer
