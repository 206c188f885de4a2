// Initial values: exact against a digest that every machine must reproduce, close to an independent
// implementation (tools/reference_model.py), and normal by their moments and quantiles.
#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "shard/parameters.h"
#include "support/catch.h"

namespace {

shard::TensorSpec spec_of(const std::string& name, int64_t count,
                          const shard::Initializer& initializer) {
  return {.name = name, .shape = {count}, .initializer = initializer};
}

std::vector<float> fill(const shard::TensorSpec& spec, uint64_t seed) {
  std::vector<float> values(size_t(spec.shape.element_count()));
  shard::fill_initial(spec, seed, 0, values);
  return values;
}

}  // namespace

TEST_CASE("initial values have the same bits on every machine", "[initial]") {
  const std::vector<float> values =
      fill(spec_of("blocks.0.qkv", 100'000, {.standard_deviation = 0.02, .cut = 2.5}), 42);
  const base::Digest digest = base::sha256(std::as_bytes(std::span(values)));
  REQUIRE(digest.hex() == "4962ced04b537fc98067f77bb627262a29551c1ffa6a1854cf59b97506b05724");
}

TEST_CASE("initial values agree with the reference in Python", "[initial]") {
  const std::string text =
      base::make_disk_storage()->read_text(ATOLL_GOLDEN_FOLDER "/tiny_model.json");
  const base::JsonValue golden = base::JsonValue::parse(text).value().get("initial").value();
  const base::JsonValue expected = golden.get("values").value();
  const auto values = fill(
      spec_of(golden.get("name").value().as_string().value(), expected.count(),
              {.standard_deviation = golden.get("standard_deviation").value().as_number().value(),
               .cut = golden.get("cut").value().as_number().value()}),
      uint64_t(golden.get("seed").value().as_integer().value()));
  REQUIRE(values.size() >= 32);
  for (size_t i = 0; i < values.size(); ++i) {
    REQUIRE(double(values[i]) ==
            Approx(expected.at(int64_t(i)).value().as_number().value()).epsilon(1e-6));
  }
}

TEST_CASE("initial values are normal", "[initial]") {
  constexpr int64_t kCount = 400'000;
  std::vector<float> values =
      fill(spec_of("embedding.embedding", kCount, {.standard_deviation = 2}), 1);
  double moments[5] = {};
  for (float value : values) {
    for (int power = 1; power <= 4; ++power)
      moments[power] += std::pow(double(value) / 2, power) / double(kCount);
  }
  // Five standard errors: sqrt(Var(x^k) / n) with Var = 1, 2, 15, 96.
  REQUIRE(std::abs(moments[1]) < 5 * std::sqrt(1.0 / kCount));
  REQUIRE(std::abs(moments[2] - 1) < 5 * std::sqrt(2.0 / kCount));
  REQUIRE(std::abs(moments[3]) < 5 * std::sqrt(15.0 / kCount));
  REQUIRE(std::abs(moments[4] - 3) < 5 * std::sqrt(96.0 / kCount));

  // P(x < q) by erfc, in the centre and in both tails.
  std::sort(values.begin(), values.end());
  for (double q : {-3.5, -2.0, -0.5, 0.0, 0.7, 2.5, 3.8}) {
    const double p = 0.5 * std::erfc(-q / std::sqrt(2.0));
    const double found =
        double(std::lower_bound(values.begin(), values.end(), float(2 * q)) - values.begin()) /
        double(kCount);
    INFO("quantile " << q);
    REQUIRE(std::abs(found - p) < 5 * std::sqrt(p * (1 - p) / kCount));
  }
}

TEST_CASE("initial values beyond the cut are drawn again", "[initial]") {
  const auto uncut = fill(spec_of("head.head", 50'000, {.standard_deviation = 1}), 3);
  const auto cut = fill(spec_of("head.head", 50'000, {.standard_deviation = 1, .cut = 1}), 3);
  int64_t changed = 0;
  for (size_t i = 0; i < cut.size(); ++i) {
    REQUIRE(std::abs(cut[i]) <= 1);
    changed += cut[i] != uncut[i];
    if (std::abs(uncut[i]) <= 1) REQUIRE(cut[i] == uncut[i]);
  }
  REQUIRE(double(changed) / 50'000 == Approx(0.3173).margin(0.011));
}

TEST_CASE("initial values do not depend on the pieces in which they are made", "[initial]") {
  const auto spec = spec_of("blocks.3.down", 1000, {.standard_deviation = 0.02});
  const auto whole = fill(spec, 9);
  std::vector<float> pieces(1000);
  for (int64_t at = 0, next = 0; at < 1000; at = next) {
    next = std::min<int64_t>(1000, at + 1 + at % 7);
    shard::fill_initial(spec, 9, at, std::span(pieces).subspan(size_t(at), size_t(next - at)));
  }
  REQUIRE(pieces == whole);
}

TEST_CASE("initial values differ between tensors and seeds; norms are ones", "[initial]") {
  const auto values = fill(spec_of("blocks.0.up", 100, {.standard_deviation = 1}), 1);
  REQUIRE(values != fill(spec_of("blocks.1.up", 100, {.standard_deviation = 1}), 1));
  REQUIRE(values != fill(spec_of("blocks.0.up", 100, {.standard_deviation = 1}), 2));
  REQUIRE(fill(spec_of("blocks.0.norm1", 5, {}), 1) == std::vector<float>(5, 1.0f));
}
