// The int8-codebook codec against its definition in scalar arithmetic.
#include <algorithm>
#include <cfloat>

#include "codec_fixture.h"

using namespace outer;
using namespace outer::testing;

namespace {

constexpr int64_t kBlock = 4096, kBuckets = 256;

float mean_at(const Bytes& encoded, int64_t block, int64_t code) {
  float mean;
  std::memcpy(&mean, encoded.data() + 4 * (kBuckets * block + code), 4);
  return mean;
}
Bytes with_mean(Bytes encoded, int64_t code, float mean) {
  std::memcpy(encoded.data() + 4 * code, &mean, 4);
  return encoded;
}
int64_t code_at(const Bytes& encoded, int64_t count, int64_t i) {
  return int64_t(encoded[size_t(4 * kBuckets * ((count + kBlock - 1) / kBlock) + i)]);
}

}  // namespace

TEST_CASE("int8-codebook: the bytes are as documented", "[outer][codec]") {
  // Root mean square 2: with 2 sigmas a bucket is 1/32 wide.
  const Floats values = {2, -2, 2, -2, 2.01f, -1.99f};
  const auto codec = make_codec("int8-codebook", 2);
  REQUIRE(codec->encoded_bytes(6) == 4 * 256 + 6);
  REQUIRE(codec->encoded_bytes(4097) == 2 * 4 * 256 + 4097);
  const Bytes encoded = encode(*codec, values);
  REQUIRE(Bytes(encoded.begin() + 1024, encoded.end()) == bytes_of({192, 64, 192, 64, 192, 64}));
  REQUIRE(mean_at(encoded, 0, 192) == Approx((2 + 2 + 2.01) / 3).epsilon(0x1p-16));
  REQUIRE(mean_at(encoded, 0, 64) == Approx(-(2 + 2 + 1.99) / 3).epsilon(0x1p-16));
  for (int64_t code = 0; code < kBuckets; ++code) {
    if (code != 64 && code != 192) REQUIRE(mean_at(encoded, 0, code) == 0);
  }
  const Bytes zeros = encode(*codec, Floats(5, -0.0f));
  REQUIRE(std::ranges::count(zeros, std::byte{0}) == 1024);
  REQUIRE(zeros.back() == std::byte{128});
}

TEST_CASE("int8-codebook does what its definition says, for every block length and range",
          "[outer][codec]") {
  for (const double sigmas : {1.0, 3.0, 6.0, 64.0}) {
    const auto codec = make_codec("int8-codebook", sigmas);
    for (const int64_t count : {1, 3, 100, 4095, 4096, 4097, 10'001}) {
      INFO("sigmas " << sigmas << ", count " << count);
      Floats values = gaussian_values(count, uint64_t(count));
      for (size_t i = 0; i < values.size(); i += 97) values[i] *= 50;
      const Bytes encoded = encode(*codec, values);
      const Floats decoded = decode(*codec, encoded, values.size());
      for (int64_t first = 0; first < count; first += kBlock) {
        const int64_t end = std::min(count, first + kBlock);
        double maximum = 0, squares = 0;
        for (int64_t i = first; i < end; ++i) {
          maximum = std::max(maximum, std::fabs(double(values[size_t(i)])));
          squares += double(values[size_t(i)]) * double(values[size_t(i)]);
        }
        const double unit = maximum * 0x1p-18;  // Numbers are rounded to multiples of it.
        const double width = 2 * sigmas * std::sqrt(squares / double(end - first)) / 256;
        std::vector<double> sums(kBuckets), counts(kBuckets);
        for (int64_t i = first; i < end; ++i) {
          const auto x = double(values[size_t(i)]);
          const int64_t code = code_at(encoded, count, i);
          const double place = std::clamp(x / width + 128, 0.0, 255.0);
          REQUIRE(std::fabs(place - double(code)) <= 0.5 + 1e-3 + unit / width);
          REQUIRE(decoded[size_t(i)] == mean_at(encoded, first / kBlock, code));
          sums[size_t(code)] += x;
          counts[size_t(code)] += 1;
        }
        for (int64_t code = 0; code < kBuckets; ++code) {
          const double mean =
              counts[size_t(code)] > 0 ? sums[size_t(code)] / counts[size_t(code)] : 0;
          REQUIRE(std::fabs(mean - double(mean_at(encoded, first / kBlock, code))) <=
                  unit + 1e-6 * maximum);
        }
      }
      // As many as go beyond the range: the mean of those at the ends loses what it must.
      if (sigmas == 6 && count >= 4095) REQUIRE(relative_rms(decoded, values) < 0.5);
    }
  }
}

TEST_CASE("int8-codebook: a wider range loses less of heavy tails, a narrow one less of the rest",
          "[outer][codec]") {
  const Floats gaussian = gaussian_values(40'960, 3);
  const auto error = [](double sigmas, const Floats& values) {
    return relative_rms(round_trip(*make_codec("int8-codebook", sigmas), values), values);
  };
  REQUIRE(error(3, gaussian) < 0.02);
  REQUIRE(error(6, gaussian) < 0.02);
  REQUIRE(error(6, gaussian) < error(1, gaussian));
  REQUIRE(error(6, gaussian) < error(24, gaussian));
  Floats heavy = gaussian;
  for (float& value : heavy) value = value * value * value;
  REQUIRE(error(12, heavy) < error(3, heavy));
}

TEST_CASE("int8-codebook refuses means that no block can have", "[outer][codec]") {
  const auto codec = make_codec("int8-codebook");
  const Bytes encoded = encode(*codec, gaussian_values(700, 4));
  const auto is_refused = [&](int64_t code, float mean) {
    return !codec->check(with_mean(encoded, code, mean), 700).ok();
  };
  REQUIRE(!is_refused(3, mean_at(encoded, 0, 3)));
  for (const float bad : {INFINITY, -INFINITY, NAN, FLT_TRUE_MIN, 0x1p-121f, -0.0f})
    REQUIRE(is_refused(128, bad));
  REQUIRE(is_refused(100, 100.0f));  // Above those that follow.
  REQUIRE(is_refused(200, -100.0f));
}
