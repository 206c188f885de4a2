// What the tests of the codecs share.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "fixture.h"
#include "outer/codec.h"
#include "support/catch.h"

namespace outer::testing {

using Bytes = std::vector<std::byte>;
using Floats = std::vector<float>;

inline Bytes encode(const Codec& codec, const Floats& values) {
  Bytes encoded(size_t(codec.encoded_bytes(int64_t(values.size()))));
  REQUIRE(codec.encode(values, encoded).ok());
  const auto checked = codec.check(encoded, int64_t(values.size()));
  REQUIRE(checked.ok());
  return encoded;
}

inline Floats decode(const Codec& codec, const Bytes& encoded, size_t count) {
  Floats decoded(count);
  codec.decode(encoded, decoded);
  return decoded;
}

inline Floats round_trip(const Codec& codec, const Floats& values) {
  return decode(codec, encode(codec, values), values.size());
}

inline Floats gaussian_values(int64_t count, uint64_t seed) {
  base::Random random(seed);
  Floats values(static_cast<size_t>(count));
  for (float& value : values) value = gaussian(random);
  return values;
}

// Of all orders of magnitude that floats have, and zeros, blocks by blocks of 64.
inline Floats values_of_all_sizes(int64_t count, uint64_t seed) {
  base::Random random(seed);
  Floats values = gaussian_values(count, seed + 1);
  int exponent = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (i % 64 == 0) exponent = int(random.below(270)) - 145;
    values[i] = random.below(50) == 0 ? 0.0f : std::ldexp(values[i] / 8, exponent);
  }
  return values;
}

inline double norm(const Floats& values) {
  double squares = 0;
  for (const float value : values) squares += std::pow(double(value), 2);
  return std::sqrt(squares);
}

inline double relative_rms(const Floats& found, const Floats& wanted) {
  double squares = 0;
  for (size_t i = 0; i < wanted.size(); ++i)
    squares += std::pow(double(found[i]) - double(wanted[i]), 2);
  return std::sqrt(squares) / norm(wanted);
}

inline Bytes bytes_of(std::initializer_list<int> values) {
  Bytes bytes;
  for (const int value : values) bytes.push_back(std::byte(value & 0xff));
  return bytes;
}

inline Bytes random_bytes(int64_t count, base::Random& random) {
  Bytes bytes(static_cast<size_t>(count));
  for (std::byte& byte : bytes) byte = std::byte(random.below(256));
  return bytes;
}

// Exact multiples of powers of two, so that no library has a part in them; codec_golden.py makes
// the same.
inline Floats golden_values() {
  base::Random random(2024);
  Floats values(10'000);
  for (float& value : values) {
    const uint64_t word = random.next_u64();
    value = std::ldexp(float(int32_t(word >> 40) - (1 << 23)), -int(word % 40));
  }
  return values;
}

}  // namespace outer::testing
