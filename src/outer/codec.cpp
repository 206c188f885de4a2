#include "outer/codec.h"

#include "outer/codec_int4.h"
#include "outer/codec_int8.h"
#include "outer/codec_lut2.h"

namespace outer {

namespace {

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

  void decode_add(std::span<const std::byte> encoded, float factor,
                  std::span<float> values) const override {
    CHECK(encoded.size() == values.size_bytes());
    for (size_t i = 0; i < values.size(); ++i) {
      float addend;  // The bytes need not be aligned.
      std::memcpy(&addend, encoded.data() + 4 * i, 4);
      values[i] = values[i] + factor * addend;
    }
  }

  base::Result<void> check(std::span<const std::byte> encoded,
                           int64_t element_count) const override {
    base::Result<void> size =
        check_size(name(), int64_t(encoded.size()), encoded_bytes(element_count));
    if (!size) return size;
    int32_t maximum = 0;
    for (int64_t i = 0; i < element_count; ++i) {
      int32_t bits;
      std::memcpy(&bits, encoded.data() + 4 * i, 4);
      maximum = std::max(maximum, bits & 0x7fffffff);
    }
    if (maximum >= backend::kInfinityBits)
      return base::Failure{"fp32 chunk: a value is not finite"};
    return {};
  }
};

}  // namespace

std::unique_ptr<Codec> make_codec(const std::string& name) {
  if (name == "fp32") return std::make_unique<Fp32Codec>();
  if (name == "int8") return std::make_unique<BlockCodec<Int8Format>>();
  if (name == "int4") return std::make_unique<BlockCodec<Int4Format>>();
  if (name == "lut2") return std::make_unique<BlockCodec<Lut2Format>>();
  throw base::bad_input(fmt::format("outer.codec: unknown codec '{}'", name),
                        "int8, int4, lut2 (for contributions only) or fp32");
}

bool all_finite(std::span<const float> values) {
  return backend::absolute_maximum_bits(values.data(), int64_t(values.size())) <
         backend::kInfinityBits;
}

}  // namespace outer
