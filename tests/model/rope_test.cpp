// The rotary embedding's frequencies, by the definitions of the rope types of these names.
#include <cmath>
#include <numbers>

#include "model/config.h"
#include "support/catch.h"

namespace {

model::ModelConfig rope_config(const model::RopeScaling& scaling) {
  return {.head_size = 128, .rope_base = 500'000, .rope_scaling = scaling};
}

double plain_frequency(int64_t pair) {
  return std::pow(500'000.0, -double(pair) / 64);
}

}  // namespace

TEST_CASE("rope: without scaling, and linear") {
  const auto plain = rope_config({});
  const auto linear = rope_config({.kind = "linear", .factor = 4});
  for (int64_t j = 0; j < 64; ++j) {
    REQUIRE(model::rope_frequency(plain, j) == Approx(plain_frequency(j)));
    REQUIRE(model::rope_frequency(linear, j) == Approx(plain_frequency(j) / 4));
  }
  REQUIRE(model::rope_frequency(plain, 0) == 1);
}

// Llama 3.1: the waves of 8192 / 4 positions and less stay, those of 8192 and more are stretched.
TEST_CASE("rope: llama3 stretches long waves, leaves short ones, and is even between them") {
  const auto config = rope_config({.kind = "llama3", .factor = 8});
  int64_t kept = 0, between = 0, stretched = 0;
  double before = 2;
  for (int64_t j = 0; j < 64; ++j) {
    const double found = model::rope_frequency(config, j), plain = plain_frequency(j);
    const double wave_length = 2 * std::numbers::pi / plain;
    REQUIRE(found < before);
    before = found;
    if (wave_length < 2048) {
      REQUIRE(found == Approx(plain));
      ++kept;
    } else if (wave_length > 8192) {
      REQUIRE(found == Approx(plain / 8));
      ++stretched;
    } else {
      const double smooth = (8192 / wave_length - 1) / (4 - 1);
      REQUIRE(found == Approx((1 - smooth) * plain / 8 + smooth * plain));
      ++between;
    }
  }
  REQUIRE(kept == 29);
  REQUIRE(between == 6);
  REQUIRE(stretched == 29);
}

TEST_CASE("rope: factors that cannot be are refused") {
  auto config = rope_config({.kind = "llama3", .low_frequency_factor = 4});
  REQUIRE_THROWS_AS(model::validate(config), base::Error);
  config.rope_scaling.kind = "linear";
  model::validate(config);
}
