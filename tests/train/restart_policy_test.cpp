// What is started again, how often and after what pause.
#include "train/restart_policy.h"

#include <csignal>

#include "support/catch.h"

TEST_CASE("RestartPolicy: only what a restart may mend") {
  train::RestartPolicy policy({});
  REQUIRE_FALSE(policy.ended({.exit_code = 0}, 5).is_restart);
  REQUIRE(policy.ended({.exit_code = 0}, 5).why == "it is done");
  for (const int code : {1, 2, 4, 127})
    REQUIRE_FALSE(policy.ended({.exit_code = code}, 5).is_restart);
  for (const int signal : {SIGABRT, SIGSEGV, SIGTERM})
    REQUIRE_FALSE(policy.ended({.signal = signal}, 5).is_restart);
  REQUIRE(policy.restarts() == 0);
  REQUIRE(policy.ended({.exit_code = 3}, 5).is_restart);
  REQUIRE(policy.ended({.signal = SIGKILL}, 5).is_restart);
  REQUIRE(policy.restarts() == 2);
}

TEST_CASE("RestartPolicy: pauses double up to a bound, and are short again after a good while") {
  train::RestartPolicy policy({.restarts_max = 100});
  const train::ProcessEnd lost{.exit_code = 3};
  for (const double pause : {1, 2, 4, 8, 16, 32, 60, 60})
    REQUIRE(policy.ended(lost, 5).pause_seconds == pause);
  for (int i = 0; i < 80; ++i) REQUIRE(policy.ended(lost, 599).pause_seconds == 60);
  REQUIRE(policy.ended(lost, 600).pause_seconds == 1);
  REQUIRE(policy.ended(lost, 5).pause_seconds == 2);
}

TEST_CASE("RestartPolicy: an end to restarts in a row, and none to those of a run that gets on") {
  train::RestartPolicy policy({.restarts_max = 2});
  const train::ProcessEnd lost{.exit_code = 3};
  for (int i = 0; i < 50; ++i) REQUIRE(policy.ended(lost, 700).is_restart);
  REQUIRE(policy.ended(lost, 5).is_restart);
  const auto last = policy.ended(lost, 5);
  REQUIRE_FALSE(last.is_restart);
  REQUIRE(last.why == "it was started again 2 times in a row");
  REQUIRE(policy.restarts() == 51);
  REQUIRE_FALSE(train::RestartPolicy({.restarts_max = 0}).ended(lost, 5).is_restart);
}

TEST_CASE("ProcessEnd: in words") {
  REQUIRE(train::ProcessEnd{.exit_code = 3}.text() == "exit code 3");
  REQUIRE(train::ProcessEnd{.signal = SIGKILL}.text() == "signal 9 (Killed)");
}
