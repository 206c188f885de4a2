#include "ops/non_finite.h"

#include "cuda/device_under_test.h"

TEST_CASE("numbers that are not finite do no harm") {
  ops_test::require_poison_is_harmless([] { return cuda_test::make_device_under_test(); });
}

TEST_CASE("an infinite loss has no gradient") {
  ops_test::require_no_gradient_of_infinite_loss(cuda_test::make_device_under_test());
}
