#include "train/time_outs.h"

#include <algorithm>
#include <fmt/format.h>

namespace train {
namespace {

// The wire has milliseconds, and a coordinator looks at its clock no more often.
constexpr double kHeartbeatMin = 0.01;

struct TimeOutRule {
  std::string_view longer;
  double times;  // At least so many times `shorter`.
  std::string_view shorter;
  std::string_view why;
  bool only_with_fail_over = false;
};

constexpr TimeOutRule kRules[] = {
    {"dead_seconds", 3, "heartbeat_seconds", "two heartbeats may be late before a member is dead"},
    {"stall_seconds", 3, "heartbeat_seconds",
     "who holds up a round is found by what the others' heartbeats say"},
    {"round_timeout_seconds", 1, "stall_seconds",
     "a round must last until who stalls in it has been left out"},
    {"round_timeout_seconds", 1, "dead_seconds",
     "a round must last until it is known who of it is dead"},
    {"coordinator_patience_seconds", 1, "dead_seconds",
     "a coordinator that most cannot reach steps down only after dead_seconds; who gives up before "
     "that misses the one that takes over",
     true},
    {"join_timeout_seconds", 1, "start_grace_seconds",
     "the first nodes wait for the others that long"},
};

double value_of(const SwarmConfig& config, std::string_view name) {
  for (const TimeOut& one : time_outs())
    if (one.name == name) return config.*one.value;
  return config.dead_seconds;
}

}  // namespace

std::string times_text(const TimeOut& one) {
  return one.dead_times < 1 ? fmt::format("1/{:.0f} of", 1 / one.dead_times)
                            : fmt::format("{:.0f} times", one.dead_times);
}

const std::vector<TimeOut>& time_outs() {
  static const std::vector<TimeOut> all = {
      {"heartbeat_seconds", &SwarmConfig::heartbeat_seconds, 1.0 / 15,
       "Interval of the heartbeats."},
      {"stall_seconds", &SwarmConfig::stall_seconds, 2,
       "A member that holds up a round for so long is left out of it."},
      {"ready_grace_seconds", &SwarmConfig::ready_grace_seconds, 2,
       "How long a round waits for the slower members once members_min are ready."},
      {"coordinator_patience_seconds", &SwarmConfig::coordinator_patience_seconds, 4,
       "How long a member dials a coordinator that does not answer before it stops with exit code "
       "3."},
      {"start_grace_seconds", &SwarmConfig::start_grace_seconds, 8,
       "After so long training starts with members_min instead of start_members."},
      {"round_timeout_seconds", &SwarmConfig::round_timeout_seconds, 20,
       "A round closes without those that are not done."},
      {"join_timeout_seconds", &SwarmConfig::join_timeout_seconds, 120,
       "How long a node tries to become an active member."},
  };
  return all;
}

std::vector<std::string> derive_time_outs(SwarmConfig& config) {
  std::vector<std::string> derived;
  for (const TimeOut& one : time_outs()) {
    if (config.*one.value != 0) continue;
    config.*one.value = std::max(kHeartbeatMin, one.dead_times * config.dead_seconds);
    derived.emplace_back(one.name);
  }
  return derived;
}

void check_time_outs(const SwarmConfig& config, const std::string& source) {
  if (config.heartbeat_seconds < kHeartbeatMin) {
    throw base::bad_input(
        fmt::format("{}: swarm.heartbeat_seconds: expected 0 or at least {}, found {}", source,
                    kHeartbeatMin, config.heartbeat_seconds),
        "0: a fifteenth of swarm.dead_seconds");
  }
  for (const TimeOutRule& rule : kRules) {
    if (rule.only_with_fail_over && !config.fail_over) continue;
    const double longer = value_of(config, rule.longer), shorter = value_of(config, rule.shorter);
    // A derived value may miss its rule by a rounding error.
    if (longer >= rule.times * shorter * (1 - 1e-9)) continue;
    const std::string times = rule.times == 1 ? "" : fmt::format("{} times ", rule.times);
    throw base::bad_input(fmt::format("{}: swarm.{} ({}) is less than {}swarm.{} ({}): {}", source,
                                      rule.longer, longer, times, rule.shorter, shorter, rule.why),
                          "set swarm.dead_seconds alone, and all others follow from it");
  }
}

}  // namespace train
