// The outer optimiser against its formula in double precision, and against its own bits.
#include "outer/outer_optimizer.h"

#include "fixture.h"
#include "support/catch.h"

using namespace outer;
using namespace outer::testing;

TEST_CASE("Nesterov momentum as in double precision", "[outer][optimizer]") {
  const OuterOptimizer optimizer{.learning_rate = 0.7f, .momentum = 0.9f};
  constexpr size_t kCount = 1003;
  base::Random random(1);
  std::vector<float> theta(kCount), m(kCount, 0.0f), d(kCount);
  for (float& value : theta) value = gaussian(random);
  std::vector<double> exact_theta(theta.begin(), theta.end()), exact_m(kCount, 0.0);
  for (int step = 0; step < 10; ++step) {
    for (float& value : d) value = 0.1f * gaussian(random);
    optimizer.step(d, theta, m);
    for (size_t i = 0; i < kCount; ++i) {
      exact_m[i] = double(0.9f) * exact_m[i] + double(d[i]);
      exact_theta[i] -= double(0.7f) * (double(d[i]) + double(0.9f) * exact_m[i]);
    }
  }
  for (size_t i = 0; i < kCount; ++i) {
    // 10 steps of at most 6 roundings of numbers below 8.
    REQUIRE(std::fabs(double(m[i]) - exact_m[i]) < 60 * 8 * 0x1p-24);
    REQUIRE(std::fabs(double(theta[i]) - exact_theta[i]) < 60 * 8 * 0x1p-24);
  }
}

TEST_CASE("every operation is rounded by itself", "[outer][optimizer]") {
  // With a fused multiply-add, momentum * m + d would be 2^-24 here instead of 0.
  const float m_before = 1.0f + 0x1p-12f;
  const OuterOptimizer optimizer{.learning_rate = 1.0f, .momentum = 1.0f + 0x1p-12f};
  const float product = 1.0f + 0x1p-11f;  // Of the two, rounded.
  std::vector<float> theta(7, 0.0f), m(7, m_before);
  optimizer.step(std::vector<float>(7, -product), theta, m);
  REQUIRE(m == std::vector<float>(7, 0.0f));
  REQUIRE(theta == std::vector<float>(7, product));
}
