// What all codecs promise; int8 and fp32 against their definition in scalar arithmetic, their
// limits, and bytes that must never change. The benchmark (hidden) is run by: test_outer
// "[.benchmark]"
#include <cfloat>
#include <chrono>
#include <cstdio>

#include "codec_fixture.h"

using namespace outer;
using namespace outer::testing;

namespace {

const char* const kNames[] = {"fp32", "int8", "int8-codebook", "int4", "lut2"};

}  // namespace

TEST_CASE("an unknown codec is refused with the names of those that there are", "[outer][codec]") {
  for (const char* name : kNames) REQUIRE(make_codec(name)->name() == name);
  try {
    make_codec("int5");
    FAIL("no such codec");
  } catch (const base::Error& error) {
    for (const char* name : kNames) REQUIRE(error.hint().find(name) != std::string::npos);
  }
}

TEST_CASE("fp32 is the floats as they are", "[outer][codec]") {
  const auto codec = make_codec("fp32");
  const Floats values = {1.0f, -0.0f, FLT_MAX, FLT_TRUE_MIN, -3.5f};
  const Bytes encoded = encode(*codec, values);
  REQUIRE(std::memcmp(encoded.data(), values.data(), encoded.size()) == 0);
  REQUIRE(std::memcmp(round_trip(*codec, values).data(), values.data(), encoded.size()) == 0);
}

TEST_CASE("a chunk in pieces has the bits of the whole", "[outer][codec]") {
  for (const char* name : kNames) {
    const auto codec = make_codec(name);
    for (const int64_t count : {1, 4096, 4097, 20'001}) {
      INFO(name << ", " << count);
      const Floats values = gaussian_values(count, 11);
      const Bytes encoded = encode(*codec, values);
      Floats sums = gaussian_values(count, 12), sums_in_pieces = sums;
      codec->decode_add(encoded, 0.3f, sums);

      Bytes encoded_in_pieces(encoded.size());
      Floats decoded_in_pieces(values.size());
      for (int64_t first = 0; first < count; first += kPieceElements) {
        const Piece piece{.first = first, .chunk_elements = count};
        const auto part_of = [&](Floats& all) {
          return std::span(all).subspan(size_t(first),
                                        size_t(std::min(kPieceElements, count - first)));
        };
        Floats copy = values;
        REQUIRE(codec->encode_piece(part_of(copy), piece, encoded_in_pieces).ok());
        codec->decode_piece(encoded, piece, part_of(decoded_in_pieces));
        codec->decode_add_piece(encoded, piece, 0.3f, part_of(sums_in_pieces));
      }
      REQUIRE(encoded_in_pieces == encoded);
      REQUIRE(decoded_in_pieces == decode(*codec, encoded, values.size()));
      REQUIRE(sums_in_pieces == sums);
    }
  }
}

TEST_CASE("the length of a chunk is known without decoding it", "[outer][codec]") {
  for (const char* name : kNames) {
    const auto codec = make_codec(name);
    for (const int64_t count : {1, 127, 513, 10'000}) {
      INFO(name << ", " << count);
      const Bytes encoded = encode(*codec, gaussian_values(count, 13));
      const double length = norm(decode(*codec, encoded, size_t(count)));
      REQUIRE(std::sqrt(codec->sum_of_squares(encoded, count)) == Approx(length).epsilon(1e-6));
    }
  }
}

TEST_CASE("int8: ties go to even, and the bytes are as documented", "[outer][codec]") {
  const auto codec = make_codec("int8");
  const Floats values = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -126.5f, 3, -127};
  const auto expected =
      bytes_of({0, 0, 0x80, 0x3f, 127, 0, 2, 2, 0, -2, -126, 3, -127});  // Scale 1.0f, then q.
  REQUIRE(encode(*codec, values) == expected);
}

TEST_CASE("int8 does what its definition says, for every block length", "[outer][codec]") {
  const auto codec = make_codec("int8");
  for (const int64_t count : {1, 2, 15, 511, 512, 513, 1024, 5000}) {
    INFO("count " << count);
    const Floats values = gaussian_values(count, uint64_t(count));
    const Bytes encoded = encode(*codec, values);
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
  const Floats values = gaussian_values(100'000, 7);
  const Floats decoded = round_trip(*codec, values);
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
    REQUIRE(round_trip(*codec, Floats(600, 0.0f)) == Floats(600, 0.0f));
    REQUIRE(encode(*codec, {0.0f, -0.0f}) == bytes_of({0, 0, 0, 0, 0, 0}));
  }
  SECTION("subnormal numbers count as zero") {
    REQUIRE(encode(*codec, {FLT_TRUE_MIN, -FLT_MIN}) == bytes_of({0, 0, 0, 0, 0, 0}));
    REQUIRE(encode(*codec, {0x1.fp-101f}) == bytes_of({0, 0, 0, 0, 0}));
  }
  SECTION("the smallest block that does not") {
    const Floats decoded = round_trip(*codec, {0x1p-100f, FLT_TRUE_MIN});
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
    Floats values(1024, 1.0f);
    values[600] = 1e30f;
    const Floats decoded = round_trip(*codec, values);
    REQUIRE(decoded[511] == Approx(1.0f));
    REQUIRE(decoded[512] == 0.0f);
  }
}

TEST_CASE("what is not finite is refused, wherever it stands", "[outer][codec]") {
  const float bad_values[] = {
      std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
      std::numeric_limits<float>::signaling_NaN(), std::numeric_limits<float>::infinity(),
      -std::numeric_limits<float>::infinity()};
  for (const char* name : kNames) {
    const auto codec = make_codec(name);
    for (const float bad : bad_values) {
      for (const size_t place : {0, 127, 128, 511, 512, 4095, 4096, 4699}) {
        Floats values(4700, 1.0f);
        values[place] = bad;
        Bytes encoded(size_t(codec->encoded_bytes(4700)));
        REQUIRE(!codec->encode(values, encoded).ok());
      }
    }
  }
}

TEST_CASE("whatever is finite can be sent, and comes out finite", "[outer][codec]") {
  for (const char* name : kNames) {
    const auto codec = make_codec(name);
    for (const float value : {FLT_MAX, -FLT_MAX, FLT_MIN, FLT_TRUE_MIN, 0.0f, 1.0f}) {
      for (const float beside : {value, 0.0f, -value, 1.0f})
        REQUIRE(all_finite(round_trip(*codec, {value, beside, beside})));
    }
    for (const int64_t count : {1, 63, 4097, 20'000})
      REQUIRE(all_finite(round_trip(*codec, values_of_all_sizes(count, 5))));
  }
}

TEST_CASE("a chunk of any length fills its bytes, and no others", "[outer][codec]") {
  for (const char* name : kNames) {
    const auto codec = make_codec(name);
    const auto try_length = [&](int64_t count) {
      INFO(name << " of " << count);
      const Floats values = gaussian_values(count, uint64_t(count));
      const auto size = size_t(codec->encoded_bytes(count));
      Bytes low(size + 8, std::byte{0x5a}), high(size + 8, std::byte{0xa5});
      REQUIRE(codec->encode(values, std::span(low).subspan(3, size)).ok());
      REQUIRE(codec->encode(values, std::span(high).subspan(3, size)).ok());
      REQUIRE(std::equal(low.begin() + 3, low.end() - 5, high.begin() + 3));
      REQUIRE(std::count(low.begin(), low.begin() + 3, std::byte{0x5a}) == 3);
      REQUIRE(std::count(low.end() - 5, low.end(), std::byte{0x5a}) == 5);
      // The bytes need not be aligned, nor the numbers more than floats.
      const std::span<const std::byte> encoded = std::span<const std::byte>(low).subspan(3, size);
      REQUIRE(codec->check(encoded, count).ok());
      Floats decoded(size_t(count) + 2, 7.0f);
      codec->decode(encoded, std::span(decoded).subspan(1, size_t(count)));
      REQUIRE(decoded.front() == 7.0f);
      REQUIRE(decoded.back() == 7.0f);
      REQUIRE(Floats(decoded.begin() + 1, decoded.end() - 1) == round_trip(*codec, values));
    };
    for (int64_t count = 1; count <= 300; ++count) try_length(count);
    for (const int64_t count : {511, 512, 513, 1025, 4095, 4096, 4097, 8191, 10'001})
      try_length(count);
    REQUIRE(codec->encoded_bytes(0) == 0);
    REQUIRE(codec->encode({}, {}).ok());
    REQUIRE(codec->check({}, 0).ok());
  }
  REQUIRE(make_codec("int8")->encoded_bytes(4097) == 9 * 4 + 4097);
  REQUIRE(make_codec("int4")->encoded_bytes(4097) == 33 * 2 + 2049);
  REQUIRE(make_codec("lut2")->encoded_bytes(4097) == 2 * 16 + 1025);
}

TEST_CASE("decode_add is a product and a sum, each rounded once", "[outer][codec]") {
  for (const char* name : kNames) {
    const auto codec = make_codec(name);
    for (const int64_t count : {1, 127, 128, 129, 1000, 4097, 9000}) {
      for (const float factor : {1.0f, 0.0f, -0.3f, 1.0f / 3, 1e-30f}) {
        INFO(name << " of " << count << " times " << factor);
        const Bytes encoded = encode(*codec, gaussian_values(count, 9));
        const Floats addends = decode(*codec, encoded, size_t(count));
        Floats found = gaussian_values(count, 10), expected = found;
        codec->decode_add(encoded, factor, found);
        for (size_t i = 0; i < expected.size(); ++i) {
          const volatile float product = factor * addends[i];
          expected[i] = expected[i] + product;
        }
        REQUIRE(std::memcmp(found.data(), expected.data(), size_t(4 * count)) == 0);
      }
    }
  }
}

TEST_CASE("check() refuses bytes that encode() cannot have made", "[outer][codec]") {
  const auto int8 = make_codec("int8");
  const Bytes good = encode(*int8, gaussian_values(700, 3));
  const auto with_scale = [&](float scale) {
    Bytes bytes = good;
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
    Bytes bytes = good;
    bytes[place] = std::byte{0x80};
    REQUIRE(!int8->check(bytes, 700).ok());
  }

  const auto fp32 = make_codec("fp32");
  Bytes bytes = encode(*fp32, {1, 2, 3});
  bytes[7] = std::byte{0x7f};
  bytes[6] = std::byte{0x80};
  REQUIRE(!fp32->check(bytes, 3).ok());

  for (const char* name : kNames) {
    const auto codec = make_codec(name);
    const size_t size = size_t(codec->encoded_bytes(700));
    REQUIRE(codec->check(Bytes(size), 700).ok());
    for (const size_t wrong : {size_t{0}, size - 1, size + 1})
      REQUIRE(!codec->check(Bytes(wrong), 700).ok());
  }
}

TEST_CASE("random bytes that pass check() decode to finite numbers", "[outer][codec]") {
  base::Random random(11);
  for (const char* name : {"int8", "int4", "lut2"}) {
    const auto codec = make_codec(name);
    int passed = 0;
    for (int trial = 0; trial < 20'000; ++trial) {
      const Bytes bytes = random_bytes(codec->encoded_bytes(8), random);
      if (!codec->check(bytes, 8).ok()) continue;
      ++passed;
      REQUIRE(all_finite(decode(*codec, bytes, 8)));
    }
    REQUIRE(passed > 100);
  }
}

// Made with Python 3.11 by codec_golden.py, which rounds to fp32 by itself.
TEST_CASE("these bytes never change", "[outer][codec]") {
  const auto digest = [](const char* name) {
    return base::sha256(encode(*make_codec(name), golden_values())).hex();
  };
  REQUIRE(digest("int8") == "29184ef81fd7fa0ffed8d8afafe5b24b128a0a5ec4d5184b6968e59ae74b275f");
  REQUIRE(digest("int4") == "cb1c04759e360c49ffbc2c8e6dca4fb3eaee677e0aee2a3c70cd2b8a84f50fb6");
  REQUIRE(digest("int8-codebook") ==
          "c182d656b439ae221eec997446b51323a3e553c11d24334d5416b99cf03cfe47");
  REQUIRE(digest("lut2") == "d75590c64e2cafac037e79b7a686a7ca27c44a24c5984e7f5ee876fe34562be5");
}

TEST_CASE("codec speed", "[.benchmark]") {
  const Floats values = gaussian_values(1 << 20, 5);
  Floats decoded(values.size());
  for (const char* name : kNames) {
    const auto codec = make_codec(name);
    Bytes encoded(size_t(codec->encoded_bytes(int64_t(values.size()))));
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
    measure("decode_add", [&] { codec->decode_add(encoded, 0.25f, decoded); });
    measure("check", [&] { REQUIRE(codec->check(encoded, int64_t(values.size())).ok()); });
  }
}
