// The int8 codec against its definition in scalar arithmetic, its error bound, its limits, and
// bytes that must never change. The benchmark (hidden) is run by: test_outer "[.benchmark]"
#include "outer/codec.h"

#include <cfloat>
#include <chrono>
#include <cstdio>
#include <limits>

#include "fixture.h"
#undef CHECK
#include "support/catch.h"

using namespace outer;
using namespace outer::testing;

namespace {

std::vector<std::byte> encode(const Codec& codec, const std::vector<float>& values) {
  std::vector<std::byte> encoded(size_t(codec.encoded_bytes(int64_t(values.size()))));
  REQUIRE(codec.encode(values, encoded).ok());
  const auto checked = codec.check(encoded, int64_t(values.size()));
  REQUIRE(checked.ok());
  return encoded;
}

std::vector<float> round_trip(const Codec& codec, const std::vector<float>& values) {
  std::vector<float> decoded(values.size());
  codec.decode(encode(codec, values), decoded);
  return decoded;
}

std::vector<float> gaussian_values(int64_t count, uint64_t seed) {
  base::Random random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = gaussian(random);
  return values;
}

double relative_rms(const std::vector<float>& found, const std::vector<float>& wanted) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    error += std::pow(double(found[i]) - double(wanted[i]), 2);
    norm += std::pow(double(wanted[i]), 2);
  }
  return std::sqrt(error / norm);
}

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(std::byte(value & 0xff));
  return bytes;
}

}  // namespace

TEST_CASE("fp32 is the floats as they are", "[outer][codec]") {
  const auto codec = make_codec("fp32");
  const std::vector<float> values = {1.0f, -0.0f, FLT_MAX, FLT_TRUE_MIN, -3.5f};
  const std::vector<std::byte> encoded = encode(*codec, values);
  REQUIRE(std::memcmp(encoded.data(), values.data(), encoded.size()) == 0);
  REQUIRE(std::memcmp(round_trip(*codec, values).data(), values.data(), encoded.size()) == 0);
}

TEST_CASE("int8: ties go to even, and the bytes are as documented", "[outer][codec]") {
  const auto codec = make_codec("int8");
  const std::vector<float> values = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -126.5f, 3, -127};
  const auto expected =
      bytes_of({0, 0, 0x80, 0x3f, 127, 0, 2, 2, 0, -2, -126, 3, -127});  // Scale 1.0f, then q.
  REQUIRE(encode(*codec, values) == expected);
}

TEST_CASE("int8 does what its definition says, for every block length", "[outer][codec]") {
  const auto codec = make_codec("int8");
  for (const int64_t count : {1, 2, 15, 511, 512, 513, 1024, 5000}) {
    INFO("count " << count);
    const std::vector<float> values = gaussian_values(count, uint64_t(count));
    const std::vector<std::byte> encoded = encode(*codec, values);
    const int64_t blocks = (count + 511) / 512;
    REQUIRE(int64_t(encoded.size()) == 4 * blocks + count);
    for (int64_t i = 0; i < count; ++i) {
      float maximum = 0;
      for (int64_t j = i / 512 * 512; j < std::min(count, (i / 512 + 1) * 512); ++j) {
        maximum = std::max(maximum, std::fabs(values[size_t(j)]));
      }
      float scale;
      std::memcpy(&scale, encoded.data() + i / 512 * 4, 4);
      REQUIRE(scale == maximum / 127.0f);
      const float product = values[size_t(i)] * (127.0f / maximum);
      REQUIRE(int8_t(encoded[size_t(4 * blocks + i)]) == int8_t(std::nearbyint(product)));
    }
  }
}

TEST_CASE("int8: the error is at most absmax / 254, and about 0.7 % on Gaussian numbers",
          "[outer][codec]") {
  const auto codec = make_codec("int8");
  const std::vector<float> values = gaussian_values(100'000, 7);
  const std::vector<float> decoded = round_trip(*codec, values);
  for (size_t block = 0; block * 512 < values.size(); ++block) {
    const size_t end = std::min(values.size(), (block + 1) * 512);
    double maximum = 0;
    for (size_t i = block * 512; i < end; ++i)
      maximum = std::max(maximum, std::fabs(double(values[i])));
    for (size_t i = block * 512; i < end; ++i) {
      // Scale, inverse and product are rounded by themselves: 127 steps times 3 * 2^-24 are 5e-5 of
      // half a step.
      REQUIRE(std::fabs(double(decoded[i]) - double(values[i])) <= maximum / 254 * (1 + 1e-4));
    }
  }
  const double error = relative_rms(decoded, values);
  REQUIRE(error < 0.011);
  REQUIRE(error > 0.003);  // Otherwise this measures nothing.
}

TEST_CASE("int8: blocks at both ends of the range of floats", "[outer][codec]") {
  const auto codec = make_codec("int8");
  SECTION("zero") {
    REQUIRE(round_trip(*codec, std::vector<float>(600, 0.0f)) == std::vector<float>(600, 0.0f));
    REQUIRE(encode(*codec, {0.0f, -0.0f}) == bytes_of({0, 0, 0, 0, 0, 0}));
  }
  SECTION("subnormal numbers count as zero") {
    REQUIRE(encode(*codec, {FLT_TRUE_MIN, -FLT_MIN}) == bytes_of({0, 0, 0, 0, 0, 0}));
    REQUIRE(encode(*codec, {0x1.fp-101f}) == bytes_of({0, 0, 0, 0, 0}));
  }
  SECTION("the smallest block that does not") {
    const std::vector<float> decoded = round_trip(*codec, {0x1p-100f, FLT_TRUE_MIN});
    REQUIRE(std::fabs(decoded[0] - 0x1p-100f) <= 0x1p-122f);
    REQUIRE(decoded[1] == 0.0f);
  }
  SECTION("the largest float stays finite") {
    for (const float value : round_trip(*codec, {FLT_MAX, -FLT_MAX, FLT_MAX / 2})) {
      REQUIRE(std::isfinite(value));
    }
    REQUIRE(round_trip(*codec, {FLT_MAX})[0] > FLT_MAX * (1 - 0x1p-22f));
  }
  SECTION("one large element does not disturb other blocks") {
    std::vector<float> values(1024, 1.0f);
    values[600] = 1e30f;
    const std::vector<float> decoded = round_trip(*codec, values);
    REQUIRE(decoded[511] == Approx(1.0f));
    REQUIRE(decoded[512] == 0.0f);
  }
}

TEST_CASE("what is not finite is refused, wherever it stands", "[outer][codec]") {
  const float bad_values[] = {
      std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
      std::numeric_limits<float>::signaling_NaN(), std::numeric_limits<float>::infinity(),
      -std::numeric_limits<float>::infinity()};
  for (const char* name : {"fp32", "int8"}) {
    const auto codec = make_codec(name);
    for (const float bad : bad_values) {
      for (const size_t place : {0, 511, 512, 699}) {
        std::vector<float> values(700, 1.0f);
        values[place] = bad;
        std::vector<std::byte> encoded(size_t(codec->encoded_bytes(700)));
        REQUIRE(!codec->encode(values, encoded).ok());
      }
    }
  }
}

TEST_CASE("check() refuses bytes that encode() cannot have made", "[outer][codec]") {
  const auto int8 = make_codec("int8");
  const std::vector<std::byte> good = encode(*int8, gaussian_values(700, 3));
  const auto with_scale = [&](float scale) {
    std::vector<std::byte> bytes = good;
    std::memcpy(bytes.data() + 4, &scale, 4);
    return int8->check(bytes, 700);
  };
  REQUIRE(with_scale(1.0f).ok());
  REQUIRE(with_scale(0.0f).ok());
  REQUIRE(with_scale(FLT_MAX / 128).ok());
  REQUIRE(!with_scale(FLT_MAX / 127).ok());  // Rounds up: 127 times it is infinite.
  const float least = 0x1p-100f / 127;
  REQUIRE(with_scale(least).ok());
  for (const float scale :
       {std::nextafter(least, 0.0f), FLT_MIN, FLT_TRUE_MIN, -1.0f, -0.0f, FLT_MAX,
        std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    REQUIRE(!with_scale(scale).ok());
  }
  for (const size_t place : {size_t{8}, size_t{8 + 350}, good.size() - 1}) {
    std::vector<std::byte> bytes = good;
    bytes[place] = std::byte{0x80};
    REQUIRE(!int8->check(bytes, 700).ok());
  }

  const auto fp32 = make_codec("fp32");
  std::vector<std::byte> bytes = encode(*fp32, {1, 2, 3});
  bytes[7] = std::byte{0x7f};
  bytes[6] = std::byte{0x80};
  REQUIRE(!fp32->check(bytes, 3).ok());

  for (const auto* codec : {int8.get(), fp32.get()}) {
    const size_t size = size_t(codec->encoded_bytes(700));
    REQUIRE(codec->check(std::vector<std::byte>(size), 700).ok());
    for (const size_t wrong : {size_t{0}, size - 1, size + 1}) {
      REQUIRE(!codec->check(std::vector<std::byte>(wrong), 700).ok());
    }
  }
}

TEST_CASE("random bytes that pass check() decode to finite numbers", "[outer][codec]") {
  const auto codec = make_codec("int8");
  base::Random random(11);
  int passed = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<std::byte> bytes(size_t(codec->encoded_bytes(9)));
    for (std::byte& byte : bytes) byte = std::byte(random.below(256));
    if (!codec->check(bytes, 9).ok()) continue;
    ++passed;
    std::vector<float> values(9);
    codec->decode(bytes, values);
    REQUIRE(all_finite(values));
  }
  REQUIRE(passed > 100);
}

// Made with Python 3.11 by int8_golden.py, which rounds to fp32 by itself. The numbers are exact
// multiples of powers of two, so that no library has a part in them.
TEST_CASE("int8: these bytes never change", "[outer][codec]") {
  base::Random random(2024);
  std::vector<float> values(10'000);
  for (float& value : values) {
    const uint64_t word = random.next_u64();
    value = std::ldexp(float(int32_t(word >> 40) - (1 << 23)), -int(word % 40));
  }
  REQUIRE(base::sha256(encode(*make_codec("int8"), values)).hex() ==
          "29184ef81fd7fa0ffed8d8afafe5b24b128a0a5ec4d5184b6968e59ae74b275f");
}

TEST_CASE("codec speed", "[.benchmark]") {
  const std::vector<float> values = gaussian_values(1 << 20, 5);
  std::vector<float> decoded(values.size());
  for (const char* name : {"int8", "fp32"}) {
    const auto codec = make_codec(name);
    std::vector<std::byte> encoded(size_t(codec->encoded_bytes(int64_t(values.size()))));
    const auto measure = [&](const char* what, const std::function<void()>& body) {
      double best = 1e9;
      for (int i = 0; i < 30; ++i) {
        const auto start = std::chrono::steady_clock::now();
        body();
        best = std::min(
            best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      }
      std::printf(
          "{\"benchmark\":\"codec\",\"codec\":\"%s\",\"operation\":\"%s\",\"elements\":%zu,"
          "\"fp32_gigabytes_per_second\":%.2f}\n",
          name, what, values.size(), double(values.size()) * 4 / best / 1e9);
    };
    measure("encode", [&] { REQUIRE(codec->encode(values, encoded).ok()); });
    measure("decode", [&] { codec->decode(encoded, decoded); });
    measure("check", [&] { REQUIRE(codec->check(encoded, int64_t(values.size())).ok()); });
  }
}
