// Storms (net/simulation/storm.h). One seed, one run.
//
//   ATOLL_SEEDS=2000 tests/net/test_net "fail over faults*"     more of them
//   ATOLL_FIRST_SEED=77 ATOLL_SEEDS=1 ...                       one of them
#include "net/seeds.h"
#include "net/simulation/storm.h"
#include "support/catch.h"

namespace net {
namespace {

TEST_CASE("fail over faults: one history, and in the end everybody gets on") {
  const uint64_t first = number_from_environment("ATOLL_FIRST_SEED", 1);
  const uint64_t count = number_from_environment("ATOLL_SEEDS", 60);
  int64_t rounds = 0, crashes = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    Storm storm(seed);
    INFO("ATOLL_SEEDS=1 ATOLL_FIRST_SEED=" << seed);
    REQUIRE(storm.run() == "");
    rounds += storm.round_count();
    crashes += storm.crash_count();
  }
  // The faults must not be so many that nothing was tested, nor so few.
  REQUIRE(rounds >= int64_t(10 * count));
  if (count >= 60) REQUIRE(crashes >= int64_t(count / 2));
}

}  // namespace
}  // namespace net
