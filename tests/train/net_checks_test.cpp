// Judgements of what others answer, for every answer that there is.
#include "train/doctor/net_checks.h"

#include "support/catch.h"

namespace {

using enum train::CheckLevel;

const net::Endpoint kThere{"192.0.2.1", 29500};

std::string text_of_check(const train::Check& check) {
  return check.value + " | " + check.advice;
}

void require_says(const train::Check& check, train::CheckLevel level, const std::string& part) {
  INFO(text_of_check(check));
  REQUIRE(check.level == level);
  REQUIRE(text_of_check(check).find(part) != std::string::npos);
}

train::SwarmConfig usual_patience() {
  return {.dead_seconds = 15, .heartbeat_seconds = 1, .round_timeout_seconds = 300};
}

}  // namespace

TEST_CASE("NetChecks: a coordinator") {
  using train::check_coordinator;
  require_says(check_coordinator(kThere, {.is_reached = true, .answer_seconds = 0.08}), kOk,
               "192.0.2.1:29500 answers after 80.0 ms");
  require_says(check_coordinator(kThere, {.reason = "connection refused"}), kFail,
               "connection refused | is it started");
  require_says(check_coordinator(kThere, {.is_reached = true, .reason = "no answer in time"}),
               kFail, "no answer in time | is it a coordinator of this run");
  require_says(check_coordinator(kThere, {.is_reached = true,
                                          .answer_seconds = 0.1,
                                          .elsewhere = net::Endpoint{"192.0.2.2", 7}}),
               kOk, "goes on at 192.0.2.2:7");
}

TEST_CASE("NetChecks: the shared config, as it was told") {
  const train::RunConfig config;
  net::VisitFinding finding{.is_reached = true, .shared_config = train::shared_config(config)};
  require_says(check_shared_config(config, finding), kOk, "is");
  train::RunConfig other;
  other.seed = 7;
  require_says(check_shared_config(other, finding), kFail, "seed: here 7, there 42");
  finding.shared_config.clear();
  finding.reason = "you speak protocol version 7, this run speaks version 8";
  require_says(check_shared_config(config, finding), kWarn, "version 8");
}

TEST_CASE("NetChecks: ports") {
  require_says(train::check_listening(kThere, ""), kOk, "can listen on 192.0.2.1:29500");
  require_says(train::check_listening(kThere, "in use"), kFail, "node.listen");
  train::PortMap map;
  map.advertise = kThere;
  require_says(check_own_port(map, {.is_node = true}), kOk, "leads to this node");
  require_says(check_own_port(map, {.reason = "timed out"}), kWarn, "--dial-back");
  require_says(train::check_dial_back({.is_dialled_back = true}), kOk, "has dialled");
  require_says(train::check_dial_back({.reason = "connection refused"}), kFail, "refused");
  require_says(train::check_dial_back({}), kFail, "has not dialled");
}

TEST_CASE("NetChecks: time-outs over a line") {
  using train::check_time_outs_over;
  const train::SwarmConfig swarm = usual_patience();
  require_says(check_time_outs_over(swarm, 0.3, 20), kOk, "round trip 300.0 ms");
  require_says(check_time_outs_over(swarm, 0, 0), kOk, "dead after 15 s");
  require_says(check_time_outs_over(swarm, 0.6, 0), kWarn, "raise swarm.dead_seconds");
  require_says(check_time_outs_over(swarm, 0.1, 151), kWarn, "round_timeout_seconds to 453");
  require_says(check_time_outs_over(swarm, 0.1, 301), kFail, "no round would commit");
}
