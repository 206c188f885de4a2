#include "ops/non_finite.h"

TEST_CASE("numbers that are not finite do no harm") {
  for (const int threads : {1, 3}) {
    ops_test::require_poison_is_harmless([=] {
      return std::move(backend::make_cpu_backends({.threads_per_rank = threads}).front());
    });
  }
}

TEST_CASE("an infinite loss has no gradient") {
  ops_test::require_no_gradient_of_infinite_loss(
      std::move(backend::make_cpu_backends({.threads_per_rank = 1}).front()));
}
