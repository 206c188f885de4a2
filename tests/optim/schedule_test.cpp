// Schedules at the places where their parts meet, against values worked out by hand.
#include "optim/schedule.h"

#include <cmath>

#include "support/catch.h"

using optim::schedule_factor;
using optim::ScheduleConfig;

TEST_CASE("every schedule warms up linearly from 0", "[schedule]") {
  for (const char* kind : {"constant", "cosine", "wsd"}) {
    const ScheduleConfig config{
        .kind = kind, .warmup_steps = 10, .stable_steps = 20, .total_steps = 30};
    REQUIRE(schedule_factor(config, 0) == 0);
    REQUIRE(schedule_factor(config, 3) == Approx(0.3));
    REQUIRE(schedule_factor(config, 10) == 1);
  }
}

TEST_CASE("without warm-up the first step has the peak", "[schedule]") {
  REQUIRE(schedule_factor({.kind = "constant", .warmup_steps = 0}, 0) == 1);
  REQUIRE(schedule_factor({.kind = "cosine", .warmup_steps = 0, .total_steps = 5}, 0) == 1);
}

TEST_CASE("constant stays at the peak", "[schedule]") {
  REQUIRE(schedule_factor({.kind = "constant", .warmup_steps = 1}, 1'000'000'000) == 1);
}

TEST_CASE("cosine falls to its final fraction and stays there", "[schedule]") {
  const ScheduleConfig config{
      .kind = "cosine", .warmup_steps = 100, .total_steps = 300, .final_fraction = 0.1};
  REQUIRE(schedule_factor(config, 150) == Approx(0.1 + 0.9 * (0.5 + 0.25 * std::sqrt(2.0))));
  REQUIRE(schedule_factor(config, 200) == Approx(0.55));
  REQUIRE(schedule_factor(config, 300) == Approx(0.1));
  REQUIRE(schedule_factor(config, 5000) == Approx(0.1));
}

TEST_CASE("wsd is stable, then falls with the square root, then is 0", "[schedule]") {
  // INTELLECT-1's cool-down.
  const ScheduleConfig config{
      .kind = "wsd", .warmup_steps = 1000, .stable_steps = 74'700, .total_steps = 90'400};
  REQUIRE(schedule_factor(config, 1000) == 1);
  REQUIRE(schedule_factor(config, 74'700) == 1);
  REQUIRE(schedule_factor(config, 74'700 + 15'700 / 4) == Approx(0.5));
  REQUIRE(schedule_factor(config, 90'400) == 0);
  REQUIRE(schedule_factor(config, 100'000) == 0);
}

TEST_CASE("schedules whose parts do not fit are refused", "[schedule]") {
  optim::validate({.kind = "wsd", .warmup_steps = 10, .stable_steps = 20, .total_steps = 30});
  optim::validate({.kind = "constant", .warmup_steps = 10, .total_steps = 5});
  REQUIRE_THROWS_AS(
      optim::validate({.kind = "wsd", .warmup_steps = 10, .stable_steps = 5, .total_steps = 30}),
      base::Error);
  REQUIRE_THROWS_AS(
      optim::validate({.kind = "wsd", .warmup_steps = 10, .stable_steps = 30, .total_steps = 30}),
      base::Error);
  REQUIRE_THROWS_AS(optim::validate({.kind = "cosine", .warmup_steps = 10, .total_steps = 10}),
                    base::Error);
}
