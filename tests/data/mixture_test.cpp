// Method: shares are counted out block by block; the expected ones are worked out by hand.
#include "data/mixture.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "data/fixture.h"
#include "support/catch.h"

using namespace data_test;

namespace {

std::vector<int64_t> slots_of(const std::vector<double>& weights) {
  const data::Mixture mixture(weights, 1);
  return {mixture.slots().begin(), mixture.slots().end()};
}

}  // namespace

TEST_CASE("mixture: shares by largest remainder") {
  using Slots = std::vector<int64_t>;
  REQUIRE(slots_of({5}) == Slots{1024});
  REQUIRE(slots_of({3, 1}) == Slots{768, 256});
  REQUIRE(slots_of({1, 1, 1}) ==
          Slots{342, 341, 341});  // 341.33 each; the first of equals gets the rest.
  REQUIRE(slots_of({0.5, 0.3, 0.2}) == Slots{512, 307, 205});  // 307.2 and 204.8.
  REQUIRE(slots_of({0, 2, 0}) == Slots{0, 1024, 0});
  REQUIRE(slots_of({1, 1e-9, 0}) == Slots{1023, 1, 0});  // Whoever has a weight is heard.
  REQUIRE(slots_of({1e-320, 1e-320}) == Slots{512, 512});
  REQUIRE(slots_of(std::vector<double>(1024, 1e300)) == Slots(1024, 1));
}

TEST_CASE("mixture: any weights fill the block") {
  base::Random random(3);
  for (int trial = 0; trial < 200; ++trial) {
    INFO("trial " << trial);
    std::vector<double> weights(1 + random.below(1024));
    for (double& weight : weights)
      weight = random.below(4) == 0 ? 0 : std::ldexp(random.uniform(), -int(random.below(60)));
    weights[0] = 1;
    const auto slots = slots_of(weights);
    REQUIRE(std::accumulate(slots.begin(), slots.end(), int64_t{0}) == 1024);
    for (size_t i = 0; i < slots.size(); ++i) REQUIRE((slots[i] > 0) == (weights[i] > 0));
  }
}

TEST_CASE("mixture: every block has the exact share, and no index is missed or given twice") {
  const data::Mixture mixture(std::vector<double>{5, 0, 2, 0.001}, 4);
  const std::vector<int64_t> slots(mixture.slots().begin(), mixture.slots().end());
  std::vector<int64_t> next(4, 0);
  std::vector<std::vector<int64_t>> orders(3);
  for (int64_t sample = 0; sample < 3 * 1024; ++sample) {
    const auto draw = mixture.draw(sample);
    REQUIRE(draw.index == next[size_t(draw.dataset)]++);
    orders[size_t(sample / 1024)].push_back(draw.dataset);
    if (sample % 1024 == 1023) {
      for (size_t d = 0; d < 4; ++d) REQUIRE(next[d] == (sample / 1024 + 1) * slots[d]);
    }
  }
  REQUIRE(orders[0] != orders[1]);
  REQUIRE(orders[1] != orders[2]);
  const auto far = mixture.draw(int64_t{1} << 62);
  REQUIRE(far.index / slots[size_t(far.dataset)] == (int64_t{1} << 52));
}

TEST_CASE("mixture: weights that make no sense are bad input") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const std::vector<double>& weights :
       std::vector<std::vector<double>>{{},
                                        {0},
                                        {0, 0},
                                        {1, -1},
                                        {1, infinity},
                                        {1, std::nan("")},
                                        {1e308, 1e308},
                                        std::vector<double>(1025, 1)}) {
    REQUIRE(is_bad_input([&] { data::Mixture(weights, 1); }));
  }
}
