// How a chunk of fp32 numbers travels. A codec is stateless, and encoding the same numbers gives
// the same bytes on every machine and in every implementation: one rounding per operation, no
// contraction, no libm. Replicas stay identical because the owner of a chunk encodes it once and
// everybody decodes those bytes.
//
//   fp32   little-endian floats as they are.
//   int8   blocks of 512 elements (the last may be shorter): first one fp32 scale per block, then
//          one int8 per element, 8.0625 bits in all.
//            scale = absmax / 127,  q = round_to_nearest_even(x * (127 / absmax)),  x' = q * scale
//          |x - x'| <= absmax / 254. A block of zeros has scale 0, and so has a block below 2^-100,
//          whose arithmetic would touch subnormal numbers: some threads and devices flush them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace outer {

class Codec {
 public:
  virtual ~Codec() = default;
  virtual std::string_view name() const = 0;
  virtual int64_t encoded_bytes(int64_t element_count) const = 0;
  // A value that is not finite is a Failure; what is in `encoded` is then unspecified.
  // REQUIRES: encoded.size() == encoded_bytes(values.size()).
  virtual base::Result<void> encode(std::span<const float> values,
                                    std::span<std::byte> encoded) const = 0;
  // REQUIRES: `encoded` passed check() for values.size() elements. All values are finite.
  virtual void decode(std::span<const std::byte> encoded, std::span<float> values) const = 0;
  // Could encode() have made these bytes from so many elements? To be asked about all bytes from
  // outside.
  virtual base::Result<void> check(std::span<const std::byte> encoded,
                                   int64_t element_count) const = 0;
};

// Throws bad_input for a name that is not in the list above.
std::unique_ptr<Codec> make_codec(const std::string& name);

// Compares exponents, so that it is exact and vectorises.
bool all_finite(std::span<const float> values);

}  // namespace outer
