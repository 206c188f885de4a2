// Which token comes next.
#include "train/sampling.h"

#include <cmath>
#include <map>
#include <vector>

#include "support/catch.h"

namespace {

// How often each token comes of 20,000, with probabilities 0.5, 0.3, 0.15 and 0.05.
std::map<int32_t, double> shares(const train::SamplingOptions& options) {
  const std::vector<float> logits{std::log(0.15f), std::log(0.5f), std::log(0.05f), std::log(0.3f)};
  base::Random random(7);
  std::map<int32_t, double> counts;
  for (int i = 0; i < 20'000; ++i) counts[train::choose_token(logits, options, random)] += 1;
  for (auto& [token, count] : counts) count /= 20'000;
  return counts;
}

}  // namespace

TEST_CASE("sampling: the likeliest at temperature 0, of equal ones the first") {
  base::Random random(1);
  const std::vector<float> logits{1, 3, 3, 2};
  REQUIRE(train::choose_token(logits, {.temperature = 0}, random) == 1);
}

TEST_CASE("sampling: shares are the probabilities") {
  const auto all = shares({});
  REQUIRE(all.at(1) == Approx(0.5).margin(0.015));
  REQUIRE(all.at(3) == Approx(0.3).margin(0.015));
  REQUIRE(all.at(0) == Approx(0.15).margin(0.015));
  REQUIRE(all.at(2) == Approx(0.05).margin(0.015));
  // Half the temperature squares them: 0.25, 0.09, 0.0225, 0.0025 over 0.365.
  REQUIRE(shares({.temperature = 0.5}).at(1) == Approx(0.25 / 0.365).margin(0.015));
}

TEST_CASE("sampling: among the likeliest by number and by probability") {
  const auto two = shares({.top_k = 2});
  REQUIRE(two.size() == 2);
  REQUIRE(two.at(1) == Approx(0.5 / 0.8).margin(0.015));
  REQUIRE(shares({.top_p = 0.81}).size() == 3);
  REQUIRE(shares({.top_p = 0.79}).size() == 2);
  REQUIRE(shares({.top_p = 0}).size() == 1);
}

TEST_CASE("sampling: the logarithm of a sum of exponentials of any size") {
  REQUIRE(train::log_sum_exp(std::vector<float>{0, 0, 0, 0}) == Approx(std::log(4.0)));
  REQUIRE(train::log_sum_exp(std::vector<float>{1e30f, -1e30f}) == Approx(1e30));
  REQUIRE(train::log_sum_exp(std::vector<float>{-1000, -1000}) == Approx(-1000 + std::log(2.0)));
}
