// The lut2 codec against its definition in scalar arithmetic, and what makes it usable: what was
// not sent can be sent again until it has arrived.
#include <cfloat>

#include "codec_fixture.h"

using namespace outer;
using namespace outer::testing;

namespace {

constexpr int64_t kLut2Block = 4096;

struct Means {
  float of[4];
};
Means means_at(const Bytes& encoded, int64_t block) {
  Means means;
  std::memcpy(&means, encoded.data() + 16 * block, 16);
  return means;
}
Bytes with_means(Bytes encoded, const Means& means) {
  std::memcpy(encoded.data(), &means, 16);
  return encoded;
}
int lut2_code_at(const Bytes& encoded, int64_t count, int64_t i) {
  const auto byte = int(encoded[size_t(16 * ((count + kLut2Block - 1) / kLut2Block) + i / 4)]);
  return byte >> (2 * (i % 4)) & 3;
}

// Rows of very different length, as an embedding has them, and numbers that are far from the rest.
Floats uneven_values(int64_t count, uint64_t seed) {
  Floats values = gaussian_values(count, seed);
  const Floats lengths = gaussian_values(count / 64 + 1, 77);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] *= std::exp(1.2f * lengths[i / 64]);
    if (i % 997 == 0) values[i] *= 20;
  }
  return values;
}

void add(Floats& sum, const Floats& values) {
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
}
Floats difference(Floats a, const Floats& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] -= b[i];
  return a;
}

}  // namespace

TEST_CASE("lut2: the bytes are as documented", "[outer][codec]") {
  // Root mean square 2, outer bins above 3: means 1, 5, -1, -4.
  const Floats values = {1, 5, -1, -4, 1, 1, 1, -1, -1, -1, 1, 1, 1};
  const auto codec = make_codec("lut2");
  const Bytes encoded = encode(*codec, values);
  const Means means = means_at(encoded, 0);
  REQUIRE(means.of[1] == 5.0f);
  for (const auto& [code, mean] : {std::pair{0, 1.0f}, {2, -1.0f}, {3, -4.0f}})
    REQUIRE(means.of[code] == Approx(mean).epsilon(0x1p-17));
  // 0 1 2 3, 0 0 0 2, 2 2 0 0, 0
  REQUIRE(Bytes(encoded.begin() + 16, encoded.end()) == bytes_of({0xe4, 0x80, 0x0a, 0x00}));
  REQUIRE(encode(*codec, Floats(5, 0.0f)) == Bytes(16 + 2));
  REQUIRE(encode(*codec, Floats(5, -0.0f)) == Bytes(16 + 2));
}

TEST_CASE("lut2 does what its definition says, for every block length", "[outer][codec]") {
  const auto codec = make_codec("lut2");
  for (const int64_t count : {1, 3, 4, 100, 4095, 4096, 4097, 10'001}) {
    INFO("count " << count);
    const Floats values = uneven_values(count, uint64_t(count));
    const Bytes encoded = encode(*codec, values);
    const Floats decoded = decode(*codec, encoded, values.size());
    for (int64_t first = 0; first < count; first += kLut2Block) {
      const int64_t end = std::min(count, first + kLut2Block);
      double maximum = 0, squares = 0, sums[4] = {};
      int64_t counts[4] = {};
      for (int64_t i = first; i < end; ++i) {
        const double x = double(values[size_t(i)]);
        maximum = std::max(maximum, std::fabs(x));
        squares += x * x;
      }
      // Numbers are rounded to multiples of it.
      const double unit = maximum * 0x1p-18;
      const double threshold = 1.5 * std::sqrt(squares / double(end - first));
      const Means means = means_at(encoded, first / kLut2Block);
      for (int64_t i = first; i < end; ++i) {
        const double x = double(values[size_t(i)]);
        const int code = lut2_code_at(encoded, count, i);
        if (std::fabs(x) > unit) REQUIRE((code & 2) == (x < 0 ? 2 : 0));
        if (std::fabs(std::fabs(x) - threshold) > 2 * unit)
          REQUIRE((code & 1) == (std::fabs(x) > threshold ? 1 : 0));
        REQUIRE(decoded[size_t(i)] == means.of[code]);
        sums[code] += x;
        ++counts[code];
      }
      for (int code = 0; code < 4; ++code) {
        const double mean = counts[code] == 0 ? 0 : sums[code] / double(counts[code]);
        REQUIRE(std::fabs(double(means.of[code]) - mean) <= unit);
      }
    }
  }
}

TEST_CASE("lut2: the order of numbers does not matter to their means", "[outer][codec]") {
  const auto codec = make_codec("lut2");
  Floats values = uneven_values(kLut2Block, 5);
  const Means means = means_at(encode(*codec, values), 0);
  std::ranges::reverse(values);
  REQUIRE(std::memcmp(&means, encode(*codec, values).data(), 16) == 0);
  std::ranges::sort(values);
  REQUIRE(std::memcmp(&means, encode(*codec, values).data(), 16) == 0);
}

TEST_CASE("lut2: the error is shorter than the numbers, and 0.4 of them on Gaussian ones",
          "[outer][codec]") {
  const auto codec = make_codec("lut2");
  const Floats values = gaussian_values(100'000, 7);
  const double error = relative_rms(round_trip(*codec, values), values);
  REQUIRE(error < 0.42);
  REQUIRE(error > 0.38);
  for (const uint64_t seed : {1, 2, 3}) {
    for (const int64_t count : {1, 2, 3, 5, 50, 4096}) {
      const Floats uneven = uneven_values(count, seed);
      REQUIRE(relative_rms(round_trip(*codec, uneven), uneven) < 0.9);
    }
  }
  // One number alone is exact, the others do not hide it.
  Floats spike(kLut2Block, 1e-6f);
  spike[1234] = -3.0f;
  REQUIRE(round_trip(*codec, spike)[1234] == -3.0f);
}

TEST_CASE("lut2: blocks at both ends of the range of floats", "[outer][codec]") {
  const auto codec = make_codec("lut2");
  REQUIRE(round_trip(*codec, {FLT_MAX, -FLT_MAX}) == Floats{FLT_MAX, -FLT_MAX});
  REQUIRE(encode(*codec, {FLT_MIN, -FLT_TRUE_MIN, 0x1.fffffep-91f}) == Bytes(17));
  REQUIRE(round_trip(*codec, {0x1p-90f}) == Floats{0x1p-90f});
  // The least mean: one of 4095 is not zero.
  Floats values(kLut2Block, 0.0f);
  values[0] = 0x1p-90f;
  values[1] = 0x1p-108f;
  const Floats decoded = round_trip(*codec, values);
  REQUIRE(decoded[0] == 0x1p-90f);
  REQUIRE(decoded[1] == Approx(0x1p-108f / 4095));
}

TEST_CASE("lut2: check() refuses what encode() cannot have made", "[outer][codec]") {
  const auto codec = make_codec("lut2");
  const Bytes good = encode(*codec, gaussian_values(203, 3));
  const auto check = [&](const Means& means) { return codec->check(with_means(good, means), 203); };
  REQUIRE(check({1, 2, -1, -2}).ok());
  REQUIRE(check({0, 0, 0, 0}).ok());
  REQUIRE(check({1, 0, 0, -2}).ok());
  REQUIRE(check({FLT_MAX, FLT_MAX, -FLT_MAX, -FLT_MAX}).ok());
  REQUIRE(check({0x1p-120f, 1, -0x1p-120f, -1}).ok());
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {-1.0f, -0.0f, infinity, -infinity, nan, -nan, 0x1p-121f, FLT_TRUE_MIN}) {
    INFO("mean " << bad);
    REQUIRE(!check({bad, 2, -1, -2}).ok());
    REQUIRE(!check({0, bad, -1, -2}).ok());
    const float opposite = bad == 0 ? bad : -bad;
    REQUIRE(!check({1, 2, opposite, -2}).ok());
    REQUIRE(!check({1, 2, 0, opposite}).ok());
  }
  REQUIRE(!check({2, 1, -1, -2}).ok());
  REQUIRE(!check({1, 2, -2, -1}).ok());
  // The second of two blocks is looked at as well.
  Bytes two = encode(*codec, gaussian_values(5000, 3));
  two[31] ^= std::byte{0x80};
  REQUIRE(!codec->check(two, 5000).ok());
  // 203 codes leave the upper two bits.
  for (const int bit : {6, 7}) {
    Bytes bytes = good;
    bytes.back() |= std::byte(1 << bit);
    REQUIRE(!codec->check(bytes, 203).ok());
  }
}

TEST_CASE("lut2: what was not sent stays bounded if it is sent again", "[outer][codec]") {
  const auto codec = make_codec("lut2");
  const int64_t count = 3 * kLut2Block + 500;
  for (const bool is_uneven : {false, true}) {
    const auto values = [&](uint64_t seed) {
      return is_uneven ? uneven_values(count, seed) : gaussian_values(count, seed);
    };
    // Every round has its own noise and a direction that is always the same.
    const Floats direction = values(1000);
    Floats wanted(static_cast<size_t>(count)), arrived = wanted, forgetful = wanted,
                                               unsent = wanted;
    double longest_early = 0, longest_late = 0, one_round = 0;
    for (uint64_t round = 0; round < 400; ++round) {
      Floats gradient = values(round);
      add(gradient, direction);
      one_round = norm(gradient);
      add(wanted, gradient);
      add(forgetful, round_trip(*codec, gradient));
      add(unsent, gradient);
      const Floats sent = round_trip(*codec, unsent);
      add(arrived, sent);
      unsent = difference(unsent, sent);
      double& longest = round < 200 ? longest_early : longest_late;
      longest = std::max(longest, norm(unsent) / one_round);
    }
    INFO("uneven " << is_uneven << ": unsent at most " << longest_early << " rounds, later "
                   << longest_late << ", without memory "
                   << norm(difference(wanted, forgetful)) / one_round);
    REQUIRE(longest_late < 1.25 * longest_early);
    REQUIRE(longest_late < 6);
    REQUIRE(norm(difference(wanted, arrived)) < 6 * one_round);
    REQUIRE(norm(difference(wanted, forgetful)) > 20 * one_round);
  }
}
