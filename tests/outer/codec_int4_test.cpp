// The int4 codec against its definition in scalar arithmetic, and what it promises: bytes that come
// back the same, an error bound, and no bytes that encode() cannot have made.
#include <cfloat>

#include "backend/quantization.h"
#include "codec_fixture.h"

using namespace outer;
using namespace outer::testing;

namespace {

uint16_t scale_bits(const Bytes& encoded, int64_t block) {
  uint16_t bits;
  std::memcpy(&bits, encoded.data() + 2 * block, 2);
  return bits;
}

float scale_of(const Bytes& encoded, int64_t block) {
  return backend::from_bfloat16(scale_bits(encoded, block));
}

// Of a byte's half, in two's complement.
int int4_code_at(const Bytes& encoded, int64_t count, int64_t i) {
  const auto byte = int(encoded[size_t(2 * ((count + 127) / 128) + i / 2)]);
  const int half = i % 2 == 0 ? byte & 15 : byte >> 4;
  return half < 8 ? half : half - 16;
}

float absolute_maximum(const Floats& values, int64_t block) {
  float maximum = 0;
  const auto end = std::min(values.size(), size_t(128 * (block + 1)));
  for (auto i = size_t(128 * block); i < end; ++i)
    maximum = std::max(maximum, std::fabs(values[i]));
  return maximum;
}

}  // namespace

TEST_CASE("int4: ties go to even, and the bytes are as documented", "[outer][codec]") {
  const auto codec = make_codec("int4");
  const Floats values = {7, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -6.5f, 3, -7};
  // Scale 1 as bf16; then 7 0, 2 2, 0 -2, -6 3, -7 and nothing.
  REQUIRE(encode(*codec, values) == bytes_of({0x80, 0x3f, 0x07, 0x22, 0xe0, 0x3a, 0x09}));
}

TEST_CASE("int4 does what its definition says, for every block length", "[outer][codec]") {
  const auto codec = make_codec("int4");
  for (const int64_t count : {1, 2, 15, 127, 128, 129, 256, 383, 5000}) {
    INFO("count " << count);
    const Floats values = gaussian_values(count, uint64_t(count));
    const Bytes encoded = encode(*codec, values);
    const Floats decoded = decode(*codec, encoded, values.size());
    for (int64_t i = 0; i < count; ++i) {
      const float scale = scale_of(encoded, i / 128);
      const float exact = absolute_maximum(values, i / 128) / 7;
      REQUIRE(std::fabs(scale - exact) <= exact * 0x1p-8f);
      // Not the other neighbour among bf16 numbers.
      const uint16_t bits = scale_bits(encoded, i / 128);
      for (const int step : {-1, 1}) {
        const float other = backend::from_bfloat16(uint16_t(bits + step));
        REQUIRE(std::fabs(scale - exact) <= std::fabs(other - exact));
      }
      const float product = values[size_t(i)] * (1.0f / scale);
      REQUIRE(int4_code_at(encoded, count, i) == int(std::nearbyint(product)));
      REQUIRE(decoded[size_t(i)] == float(std::nearbyint(product)) * scale);
    }
  }
}

TEST_CASE("int4: what was decoded is encoded as the same bytes", "[outer][codec]") {
  const auto codec = make_codec("int4");
  for (const int64_t count : {1, 2, 64, 127, 128, 129, 200, 4097, 20'001}) {
    for (const uint64_t seed : {1, 2, 3}) {
      for (const Floats& values :
           {gaussian_values(count, seed), values_of_all_sizes(count, seed)}) {
        const Bytes encoded = encode(*codec, values);
        REQUIRE(encode(*codec, decode(*codec, encoded, values.size())) == encoded);
      }
    }
  }
}

TEST_CASE("int4: the error is at most absmax / 14, and about a tenth on Gaussian numbers",
          "[outer][codec]") {
  const auto codec = make_codec("int4");
  const Floats values = gaussian_values(100'000, 7);
  const Floats decoded = round_trip(*codec, values);
  for (int64_t i = 0; i < int64_t(values.size()); ++i) {
    const double bound = double(absolute_maximum(values, i / 128)) / 14 * (1 + 0x1p-8 + 1e-6);
    REQUIRE(std::fabs(double(decoded[size_t(i)]) - double(values[size_t(i)])) <= bound);
  }
  const double error = relative_rms(decoded, values);
  REQUIRE(error < 0.12);
  REQUIRE(error > 0.08);  // Otherwise this measures nothing.
}

TEST_CASE("int4: blocks at both ends of the range of floats", "[outer][codec]") {
  const auto codec = make_codec("int4");
  SECTION("zero") {
    REQUIRE(round_trip(*codec, Floats(600, 0.0f)) == Floats(600, 0.0f));
    REQUIRE(encode(*codec, {0.0f, -0.0f}) == bytes_of({0, 0, 0}));
  }
  SECTION("subnormal numbers count as zero") {
    REQUIRE(encode(*codec, {FLT_TRUE_MIN, -FLT_MIN, 0x1p-98f}) == bytes_of({0, 0, 0, 0}));
  }
  SECTION("the least scale, and what is rounded up to it") {
    const auto least = bytes_of({0x80, 0x0d, 0x07});  // 2^-100
    REQUIRE(encode(*codec, {7 * 0x1p-100f}) == least);
    const float smallest = 7 * 0x1p-100f * (1 - 0x1p-9f);
    REQUIRE(encode(*codec, {smallest}) == least);
    REQUIRE(encode(*codec, {smallest * (1 - 0x1p-8f)}) == bytes_of({0, 0, 0}));
    REQUIRE(round_trip(*codec, {7 * 0x1p-100f, FLT_TRUE_MIN}) == Floats{7 * 0x1p-100f, 0});
  }
  SECTION("small and large pseudo-gradients") {
    for (const float value : {1e-9f, 1e-5f, 4e-4f, 5e5f, 1e20f})
      REQUIRE(round_trip(*codec, {value})[0] == Approx(value).epsilon(0x1p-8));
  }
  SECTION("the largest float stays finite") {
    const Floats decoded = round_trip(*codec, {FLT_MAX, -FLT_MAX, FLT_MAX / 2});
    REQUIRE(decoded[0] == Approx(FLT_MAX).epsilon(0x1p-8));
    REQUIRE(decoded[1] == -decoded[0]);
  }
  SECTION("one large element does not disturb other blocks") {
    Floats values(256, 1.0f);
    values[200] = 1e30f;
    const Floats decoded = round_trip(*codec, values);
    REQUIRE(decoded[127] == Approx(1.0f).epsilon(0x1p-8));
    REQUIRE(decoded[128] == 0.0f);
  }
}

TEST_CASE("int4: check() refuses bytes that encode() cannot have made", "[outer][codec]") {
  const auto codec = make_codec("int4");
  const int64_t count = 203;
  const Bytes good = encode(*codec, gaussian_values(count, 3));
  const auto with_scale = [&](unsigned bits) {
    Bytes bytes = good;
    bytes[2] = std::byte(bits & 0xff);
    bytes[3] = std::byte(bits >> 8);
    return codec->check(bytes, count);
  };
  REQUIRE(with_scale(0x3f80).ok());
  REQUIRE(with_scale(backend::to_bfloat16(0x1p-100f)).ok());
  REQUIRE(with_scale(backend::to_bfloat16(FLT_MAX / 7)).ok());
  REQUIRE(!with_scale(backend::to_bfloat16(0x1p-100f) - 1u).ok());
  REQUIRE(!with_scale(backend::to_bfloat16(FLT_MAX / 7) + 1u).ok());
  // Zero with codes that are not; subnormal; infinite; no numbers; negative.
  for (const unsigned bits :
       {0x0000u, 0x0001u, 0x007fu, 0x7f80u, 0x7f81u, 0x7fffu, 0xffffu, 0x8000u, 0xbf80u, 0xff80u})
    REQUIRE(!with_scale(bits).ok());

  const auto with_byte = [&](size_t place, int value) {
    Bytes bytes = good;
    bytes[place] = std::byte(value);
    return codec->check(bytes, count);
  };
  for (const size_t place : {size_t{4}, size_t{50}, size_t{68}, good.size() - 2}) {
    REQUIRE(!with_byte(place, 0x08).ok());
    REQUIRE(!with_byte(place, 0x80).ok());
    REQUIRE(with_byte(place, 0x79).ok());
  }
  REQUIRE(with_byte(good.size() - 1, 0x03).ok());
  for (const int padding : {0x13, 0x73, 0x83, 0xf3})
    REQUIRE(!with_byte(good.size() - 1, padding).ok());
  // A scale that is twice as large as the codes need.
  REQUIRE(!codec->check(bytes_of({0x80, 0x3f, 0x33}), 2).ok());
  REQUIRE(codec->check(bytes_of({0x80, 0x3f, 0x93}), 2).ok());
}

TEST_CASE("int4: what passes check() are bytes of encode()", "[outer][codec]") {
  const auto codec = make_codec("int4");
  base::Random random(12);
  int passed = 0;
  for (int trial = 0; trial < 100'000; ++trial) {
    const int64_t count = 1 + int64_t(random.below(12));
    const Bytes bytes = random_bytes(codec->encoded_bytes(count), random);
    if (!codec->check(bytes, count).ok()) continue;
    ++passed;
    REQUIRE(encode(*codec, decode(*codec, bytes, size_t(count))) == bytes);
  }
  REQUIRE(passed > 1000);
}
