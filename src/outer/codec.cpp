#include "outer/codec.h"

#include "outer/codec_codebook.h"
#include "outer/codec_int4.h"
#include "outer/codec_int8.h"
#include "outer/codec_lut2.h"

namespace outer {

namespace {

class Fp32Codec final : public Codec {
 public:
  std::string_view name() const override { return "fp32"; }

  int64_t encoded_bytes(int64_t element_count) const override { return 4 * element_count; }

  base::Result<void> encode_piece(std::span<const float> values, Piece piece,
                                  std::span<std::byte> encoded) const override {
    if (!all_finite(values)) return base::Failure{"fp32 codec: a value is not finite"};
    std::ranges::copy(std::as_bytes(values), part_of(encoded, piece, values).begin());
    return {};
  }

  void decode_piece(std::span<const std::byte> encoded, Piece piece,
                    std::span<float> values) const override {
    std::ranges::copy(part_of(encoded, piece, values), std::as_writable_bytes(values).begin());
  }

  void decode_add_piece(std::span<const std::byte> encoded, Piece piece, float factor,
                        std::span<float> values) const override {
    const std::byte* addends = part_of(encoded, piece, values).data();
    for (size_t i = 0; i < values.size(); ++i) {
      float addend;  // The bytes need not be aligned.
      std::memcpy(&addend, addends + 4 * i, 4);
      values[i] = values[i] + factor * addend;
    }
  }

  double sum_of_squares(std::span<const std::byte> encoded, int64_t element_count) const override {
    double sum = 0;
    for (int64_t first = 0; first < element_count; first += kPieceElements) {
      float values[kPieceElements];
      const std::span<float> piece(values, size_t(std::min(kPieceElements, element_count - first)));
      decode_piece(encoded, {.first = first, .chunk_elements = element_count}, piece);
      sum += outer::sum_of_squares(piece);
    }
    return sum;
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

 private:
  template <class Byte>
  static std::span<Byte> part_of(std::span<Byte> encoded, Piece piece,
                                 std::span<const float> values) {
    CHECK(int64_t(encoded.size()) == 4 * piece.chunk_elements);
    return encoded.subspan(size_t(4 * piece.first), values.size_bytes());
  }
};

}  // namespace

std::unique_ptr<Codec> make_codec(const std::string& name, double codebook_sigmas) {
  if (name == "fp32") return std::make_unique<Fp32Codec>();
  if (name == "int8") return std::make_unique<BlockCodec<Int8Format>>();
  if (name == "int4") return std::make_unique<BlockCodec<Int4Format>>();
  if (name == "int8-codebook")
    return std::make_unique<BlockCodec<CodebookFormat>>(CodebookFormat{.sigmas = codebook_sigmas});
  if (name == "lut2") return std::make_unique<BlockCodec<Lut2Format>>();
  throw base::bad_input(fmt::format("outer.codec: unknown codec '{}'", name),
                        "int8, int8-codebook, int4, lut2 (for contributions only) or fp32");
}

bool all_finite(std::span<const float> values) {
  return backend::absolute_maximum_bits(values.data(), int64_t(values.size())) <
         backend::kInfinityBits;
}

double sum_of_squares(std::span<const float> values) {
  return sum_of_products(values, values);
}

// In lanes: a sum of one number after the other would wait for each addition.
double sum_of_products(std::span<const float> a, std::span<const float> b) {
  constexpr size_t kLanes = 8;
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= a.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] += double(a[i + lane]) * double(b[i + lane]);
  }
  for (; i < a.size(); ++i) lanes[0] += double(a[i]) * double(b[i]);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace outer
