// Whatever happens: scenarios with random limits and random faults, one seed each, in short form.
// tools/simulate runs many of them, finds the smallest part of one that fails, and tells which rare
// branches were never reached.
//
//   ATOLL_SEEDS=100000 tests/net/test_net "random faults*"     more of them
#include "net/seeds.h"
#include "net/simulation/trial.h"
#include "support/catch.h"

namespace net {
namespace {

TEST_CASE("random faults: every commit is right, and in the end everybody gets on") {
  const uint64_t count = number_from_environment("ATOLL_SEEDS", 300);
  int64_t round_count = 0;
  for (uint64_t seed = 1; seed <= count; ++seed) {
    const Outcome outcome = Trial(draw_scenario(seed)).run();
    round_count += outcome.rounds;
    INFO("tools/simulate --first " << seed << " --seeds 1");
    REQUIRE(outcome.wrong == "");
  }
  // The faults must not be so many that nothing was tested.
  REQUIRE(round_count >= int64_t(5 * count));
}

TEST_CASE("random faults: a seed decides all that happens") {
  for (const uint64_t seed : {7, 50, 77}) {
    const Outcome once = Trial(draw_scenario(seed)).run();
    const Outcome again = Trial(draw_scenario(seed)).run();
    REQUIRE(once.unseed == again.unseed);
    REQUIRE(once.events == again.events);
    REQUIRE(Trial(draw_scenario(seed + 1)).run().unseed != once.unseed);
  }
}

TEST_CASE("random faults: parts of a scenario can be left out") {
  const Scenario whole = draw_scenario(3);
  REQUIRE(whole.faults.size() > 3);
  const Scenario one = reduce(whole, {.faults = std::set<size_t>{2}});
  REQUIRE(one.faults.size() == 1);
  REQUIRE(one.faults[0].text() == whole.faults[2].text());
  const Scenario early = reduce(whole, {.end = whole.faults[2].at});
  REQUIRE(early.duration == whole.faults[2].at);
  for (const Fault& fault : early.faults) REQUIRE(fault.at < early.duration);
  const Scenario two = reduce(whole, {.nodes = 2});
  REQUIRE(two.cluster.node_count == 2);
  for (const Fault& fault : two.faults) REQUIRE(std::max(fault.a, fault.b) <= 2);
  REQUIRE(Trial(two).run().wrong == "");
}

}  // namespace
}  // namespace net
