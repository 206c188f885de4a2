// What codecs of blocks have in common: headers first, then codes, and a last block that may be
// shorter. A Format says what is in one block; it may have parameters of its own, by which it
// encodes:
//
//   kName, kBlock (elements; a multiple of kCodesPerByte), kHeaderBytes, kCodesPerByte,
//   kOnDevice (std::optional<LocalParameters::DeviceCodec>)
//   // False if a value is not finite. Writes only bytes that hold codes of the block.
//   static bool encode(const float* values, int64_t count, std::byte* header, uint8_t* codes);
//   static void decode(const std::byte* header, const uint8_t* codes, int64_t count,
//                      float* values);
//   // Of what decode() would make.
//   static double sum_of_squares(const std::byte* header, const uint8_t* codes, int64_t count);
//   // What is wrong with a block; nullptr: nothing.
//   static const char* fault(const std::byte* header, const uint8_t* codes, int64_t count);
//
// Loops over elements are plain ones that the compiler turns into vector instructions of the oldest
// processor; they are several times faster than any link or disk. No lane does anything else than
// the scalar text does.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/quantization.h"
#include "base/math.h"
#include "outer/codec.h"

namespace outer {

static_assert(std::endian::native == std::endian::little,
              "the encoded bytes are little endian, and so is every machine that Atoll runs on");

inline base::Result<void> check_size(std::string_view codec, int64_t found, int64_t expected) {
  if (found == expected) return {};
  return base::Failure{
      fmt::format("{} chunk: expected {} bytes, found {}", codec, expected, found)};
}

// The bytes need not be aligned.
template <class T>
T read_header(const std::byte* header) {
  T value;
  std::memcpy(&value, header, sizeof(T));
  return value;
}

// values[i] = values[i] + factor * addends[i].
inline void add_scaled(const float* __restrict addends, int64_t count, float factor,
                       float* __restrict values) {
  for (int64_t i = 0; i < count; ++i) values[i] = values[i] + factor * addends[i];
}

template <class Format>
class BlockCodec final : public Codec {
 public:
  explicit BlockCodec(Format format = {}) : format_(format) {}

  std::string_view name() const override { return Format::kName; }

  int64_t encoded_bytes(int64_t element_count) const override {
    return code_offset(element_count) + base::div_ceil(element_count, Format::kCodesPerByte);
  }

  base::Result<void> encode_piece(std::span<const float> values, Piece piece,
                                  std::span<std::byte> encoded) const override {
    bool is_finite = true;
    for_each_block(encoded, piece, int64_t(values.size()),
                   [&](const Place& at, std::byte* header, std::byte* codes) {
                     is_finite = is_finite &&
                                 format_.encode(values.data() + at.first - piece.first, at.count,
                                                header, reinterpret_cast<uint8_t*>(codes));
                   });
    if (is_finite) return {};
    return base::Failure{fmt::format("{} codec: a value is not finite", name())};
  }

  void decode_piece(std::span<const std::byte> encoded, Piece piece,
                    std::span<float> values) const override {
    for_each_block(encoded, piece, int64_t(values.size()),
                   [&](const Place& at, const std::byte* header, const std::byte* codes) {
                     format_.decode(header, reinterpret_cast<const uint8_t*>(codes), at.count,
                                    values.data() + at.first - piece.first);
                   });
  }

  void decode_add_piece(std::span<const std::byte> encoded, Piece piece, float factor,
                        std::span<float> values) const override {
    for_each_block(encoded, piece, int64_t(values.size()),
                   [&](const Place& at, const std::byte* header, const std::byte* codes) {
                     float decoded[Format::kBlock];
                     format_.decode(header, reinterpret_cast<const uint8_t*>(codes), at.count,
                                    decoded);
                     add_scaled(decoded, at.count, factor, values.data() + at.first - piece.first);
                   });
  }

  double sum_of_squares(std::span<const std::byte> encoded, int64_t element_count) const override {
    double sum = 0;
    for_each_block(encoded, {.first = 0, .chunk_elements = element_count}, element_count,
                   [&](const Place& at, const std::byte* header, const std::byte* codes) {
                     sum += format_.sum_of_squares(header, reinterpret_cast<const uint8_t*>(codes),
                                                   at.count);
                   });
    return sum;
  }

  std::optional<LocalParameters::DeviceCodec> on_device() const override {
    return Format::kOnDevice;
  }
  BlockBytes bytes_of(Piece piece, int64_t element_count) const override {
    CHECK(piece.first % Format::kBlock == 0);
    const Place at = place_of(piece.first / Format::kBlock, piece.chunk_elements);
    return {.first_header = at.header,
            .header_bytes = Format::kHeaderBytes * block_count(element_count),
            .first_code = code_offset(piece.chunk_elements) + at.codes,
            .code_bytes = base::div_ceil(element_count, Format::kCodesPerByte)};
  }

  base::Result<void> check(std::span<const std::byte> encoded,
                           int64_t element_count) const override {
    base::Result<void> result =
        check_size(name(), int64_t(encoded.size()), encoded_bytes(element_count));
    if (!result) return result;
    const char* fault = nullptr;
    int64_t where = 0;
    for_each_block(encoded, {.first = 0, .chunk_elements = element_count}, element_count,
                   [&](const Place& at, const std::byte* header, const std::byte* codes) {
                     if (fault != nullptr) return;
                     fault =
                         format_.fault(header, reinterpret_cast<const uint8_t*>(codes), at.count);
                     where = at.first / Format::kBlock;
                   });
    if (fault == nullptr && has_padding(encoded, element_count))
      fault = "bits behind the last code";
    if (fault == nullptr) return {};
    return base::Failure{fmt::format("{} chunk: block {} of {}: {}", name(), where,
                                     block_count(element_count), fault)};
  }

 private:
  struct Place {
    int64_t first, count;   // Elements.
    int64_t header, codes;  // Bytes from the first header, from the first code.
  };
  static Place place_of(int64_t block, int64_t element_count) {
    const int64_t first = block * Format::kBlock;
    return {.first = first,
            .count = std::min(Format::kBlock, element_count - first),
            .header = block * Format::kHeaderBytes,
            .codes = first / Format::kCodesPerByte};
  }
  static int64_t block_count(int64_t element_count) {
    return base::div_ceil(element_count, Format::kBlock);
  }
  static int64_t code_offset(int64_t element_count) {
    return Format::kHeaderBytes * block_count(element_count);
  }

  // each(place in the chunk, header, codes), for the blocks of the piece, of so many elements.
  template <class Byte, class Each>
  void for_each_block(std::span<Byte> encoded, Piece piece, int64_t element_count,
                      const Each& each) const {
    CHECK(int64_t(encoded.size()) == encoded_bytes(piece.chunk_elements));
    CHECK(piece.first % Format::kBlock == 0);
    Byte* const codes = encoded.data() + code_offset(piece.chunk_elements);
    const int64_t begin = piece.first / Format::kBlock;
    for (int64_t block = begin; block < begin + block_count(element_count); ++block) {
      const Place at = place_of(block, piece.chunk_elements);
      each(at, encoded.data() + at.header, codes + at.codes);
    }
  }

  static bool has_padding(std::span<const std::byte> encoded, int64_t element_count) {
    const int64_t codes_in_last = element_count % Format::kCodesPerByte;
    if (codes_in_last == 0) return false;
    return (uint8_t(encoded.back()) >> (8 / Format::kCodesPerByte * codes_in_last)) != 0;
  }

  const Format format_;
};

}  // namespace outer
