// One knob for all time-outs of a swarm, and what cannot work together.
#include "train/time_outs.h"

#include "support/catch.h"

namespace {

train::SwarmConfig derived(double dead_seconds) {
  train::SwarmConfig config{.dead_seconds = dead_seconds};
  train::derive_time_outs(config);
  return config;
}

std::string refusal(const train::SwarmConfig& config) {
  try {
    train::check_time_outs(config, "run.json");
  } catch (const base::Error& error) {
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    REQUIRE(error.hint().find("swarm.dead_seconds") != std::string::npos);
    return error.what();
  }
  return "none";
}

}  // namespace

TEST_CASE("TimeOuts: all follow from dead_seconds, in the hierarchy that each needs") {
  const train::SwarmConfig usual = derived(15);
  REQUIRE(usual.heartbeat_seconds == 1);
  REQUIRE(usual.stall_seconds == 30);
  REQUIRE(usual.ready_grace_seconds == 30);
  REQUIRE(usual.coordinator_patience_seconds == 60);
  REQUIRE(usual.start_grace_seconds == 120);
  REQUIRE(usual.round_timeout_seconds == 300);
  REQUIRE(usual.join_timeout_seconds == 1800);
  REQUIRE(derived(60).round_timeout_seconds == 1200);
  // The smallest, the largest, and what does not come out even.
  for (const double seconds : {0.03, 0.1, 0.7, 7.7, 15.0, 1e6}) {
    INFO(seconds);
    REQUIRE(refusal(derived(seconds)) == "none");
  }
}

TEST_CASE("TimeOuts: what is set stays") {
  train::SwarmConfig config{.dead_seconds = 30, .stall_seconds = 45};
  const auto names = train::derive_time_outs(config);
  REQUIRE(config.stall_seconds == 45);
  REQUIRE(config.heartbeat_seconds == 2);
  REQUIRE(names.size() == train::time_outs().size() - 1);
  REQUIRE(std::ranges::find(names, "stall_seconds") == names.end());
}

TEST_CASE("TimeOuts: a refusal names both values and the rule") {
  struct Case {
    double train::SwarmConfig::*value;
    double seconds;
    const char* text;
  };
  using C = train::SwarmConfig;
  const Case cases[] = {
      {&C::heartbeat_seconds, 5.5,
       "run.json: swarm.dead_seconds (15) is less than 3 times swarm.heartbeat_seconds (5.5): two "
       "heartbeats may be late before a member is dead"},
      {&C::stall_seconds, 2.5, "swarm.stall_seconds (2.5) is less than 3 times"},
      {&C::stall_seconds, 301,
       "swarm.round_timeout_seconds (300) is less than swarm.stall_seconds"},
      {&C::round_timeout_seconds, 29, "swarm.round_timeout_seconds (29) is less than swarm.stall"},
      {&C::coordinator_patience_seconds, 14,
       "swarm.coordinator_patience_seconds (14) is less than "},
      {&C::start_grace_seconds, 1801,
       "swarm.join_timeout_seconds (1800) is less than swarm.start_"},
      {&C::heartbeat_seconds, 0.001, "swarm.heartbeat_seconds: expected 0 or at least 0.01"},
  };
  for (const Case& one : cases) {
    train::SwarmConfig config = derived(15);
    config.*one.value = one.seconds;
    INFO(one.text);
    REQUIRE(refusal(config).find(one.text) != std::string::npos);
  }
  // A round that is over before the dead are known, where who stalls is left out sooner.
  train::SwarmConfig config = derived(15);
  config.stall_seconds = 3;
  config.round_timeout_seconds = 14;
  REQUIRE(refusal(config).find("swarm.round_timeout_seconds (14) is less than swarm.dead_seconds "
                               "(15)") != std::string::npos);
}

TEST_CASE("TimeOuts: without fail-over nobody takes over, so nobody has to be waited for") {
  train::SwarmConfig config = derived(15);
  config.coordinator_patience_seconds = 1;
  config.fail_over = false;
  REQUIRE(refusal(config) == "none");
}
