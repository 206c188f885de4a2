// How a chunk of fp32 numbers travels. A codec is stateless, and encoding the same numbers gives
// the same bytes on every machine and in every implementation: one rounding per operation, no
// contraction, no libm, sums that are exact or in a fixed order. Replicas stay identical because
// the owner of a chunk encodes it once and everybody decodes those bytes.
//
//   fp32   little-endian floats as they are.
//
// The others cut a chunk into blocks, of which the last may be shorter: first comes a header per
// block, then come the codes of all elements, the first of a byte in its lowest bits; bits behind
// the last code are 0. docs/formats/codecs.md tells them to the byte.
//
//   int8   blocks of 512; header: an fp32 scale; 8.0625 bits per element in all.
//            scale = absmax / 127,  q = round_to_nearest_even(x * (127 / absmax)),  x' = q * scale
//          |x - x'| <= absmax / 254. A block of zeros has scale 0, and so has a block below 2^-100,
//          whose arithmetic would touch subnormal numbers: some threads and devices flush them.
//   int4   blocks of 128; header: a scale of 16 bits; 4.125 bits per element in all.
//            scale = bf16(absmax / 7),  q = round_to_nearest_even(x * (1 / scale)),  x' = q * scale
//          |x - x'| <= absmax / 14, but for the rounding of the scale (2^-8). A block whose scale
//          would be below 2^-100 counts as zeros. Encoding what was decoded gives the same bytes.
//          The scale is bf16 and not fp16, because fp16 ends at 2^-14: blocks below 4.3e-4, usual
//          ones where the learning rate is small, would be zeros, and those above 458528 infinite.
//   int8-codebook
//          blocks of 4096; header: 256 fp32 means; 10 bits per element in all. 256 buckets of equal
//          width over `outer.codebook_sigmas` root mean squares to either side; an element becomes
//          the mean of its bucket. What the run of INTELLECT-1 used, to be compared with.
//   lut2   blocks of 4096; header: four fp32 means; 2.03125 bits per element in all. For
//          contributions, not for results: what it loses, a third to a half of the length, must be
//          sent again, and whoever sums has no memory of what was lost.
//          Four bins: outer ones above 1.5 root mean squares, inner ones below, of either sign; an
//          element becomes the mean of its bin. So the error is shorter than the block, and what is
//          sent again and again until it has arrived does not grow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "outer/outer_state.h"

namespace outer {

// A chunk can be encoded and decoded in pieces that begin and end at multiples of this, or at the
// chunk's end. A multiple of every codec's block, and few enough for a core's nearest cache.
inline constexpr int64_t kPieceElements = 4096;
// Elements of a chunk from `first` on.
struct Piece {
  int64_t first = 0;
  int64_t chunk_elements = 0;
};

class Codec {
 public:
  virtual ~Codec() = default;
  virtual std::string_view name() const = 0;
  virtual int64_t encoded_bytes(int64_t element_count) const = 0;
  // `values` are the piece's, `encoded` is the whole chunk's.
  //
  // A value that is not finite is a Failure; what is in `encoded` is then unspecified. Nothing else
  // is one.
  // REQUIRES: encoded.size() == encoded_bytes(piece.chunk_elements).
  virtual base::Result<void> encode_piece(std::span<const float> values, Piece piece,
                                          std::span<std::byte> encoded) const = 0;
  // REQUIRES: `encoded` passed check() for piece.chunk_elements. All values are finite.
  virtual void decode_piece(std::span<const std::byte> encoded, Piece piece,
                            std::span<float> values) const = 0;
  // values[i] = values[i] + factor * decoded[i]: a product and a sum, each rounded once. `encoded`
  // as for decode_piece().
  virtual void decode_add_piece(std::span<const std::byte> encoded, Piece piece, float factor,
                                std::span<float> values) const = 0;
  // The sum of the squares of all that decode() would make, without making it: the same bits
  // everywhere. `encoded` as for decode().
  virtual double sum_of_squares(std::span<const std::byte> encoded,
                                int64_t element_count) const = 0;
  // Could encode() have made these bytes from so many elements? To be asked about all bytes from
  // outside.
  virtual base::Result<void> check(std::span<const std::byte> encoded,
                                   int64_t element_count) const = 0;

  // Where devices know the codec: its name there, and the place of a piece of so many elements in
  // the bytes of the chunk.
  virtual std::optional<LocalParameters::DeviceCodec> on_device() const { return std::nullopt; }
  struct BlockBytes {
    int64_t first_header = 0, header_bytes = 0;
    int64_t first_code = 0, code_bytes = 0;
  };
  virtual BlockBytes bytes_of(Piece, int64_t /*element_count*/) const { return {}; }

  // A chunk as one piece.
  base::Result<void> encode(std::span<const float> values, std::span<std::byte> encoded) const {
    return encode_piece(values, whole(values), encoded);
  }
  void decode(std::span<const std::byte> encoded, std::span<float> values) const {
    decode_piece(encoded, whole(values), values);
  }
  void decode_add(std::span<const std::byte> encoded, float factor, std::span<float> values) const {
    decode_add_piece(encoded, whole(values), factor, values);
  }

 private:
  static Piece whole(std::span<const float> values) {
    return {.first = 0, .chunk_elements = int64_t(values.size())};
  }
};

// Of contributions, and of their means. Both outlive the pair.
struct CodecPair {
  CodecPair(const Codec& both) : contribution(both), result(both) {}
  CodecPair(const Codec& contribution, const Codec& result)
      : contribution(contribution), result(result) {}
  const Codec& contribution;
  const Codec& result;
};

// Throws bad_input for a name that is not in the list above. The range of int8-codebook is only
// for encoding: whatever it was, all decode alike.
std::unique_ptr<Codec> make_codec(const std::string& name, double codebook_sigmas = 6);

// Compares exponents, so that it is exact and vectorises.
bool all_finite(std::span<const float> values);

// In double and in a fixed order: the same bits everywhere.
double sum_of_squares(std::span<const float> values);
// REQUIRES: as many of both.
double sum_of_products(std::span<const float> a, std::span<const float> b);

}  // namespace outer
