// The time-outs of a swarm hang together: each waits for what the one below it finds out. So one
// key, swarm.dead_seconds, says them all, unless others are set; and what cannot work together is
// refused.
//
// Whose they are: the coordinator goes by its own config and tells members its heartbeat_seconds
// and dead_seconds (Welcome). A node's own are coordinator_patience_seconds and
// join_timeout_seconds. A node that takes the run over goes by its config, so the file should say
// the same everywhere; nothing breaks where it does not.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "train/run_config.h"

namespace train {

struct TimeOut {
  std::string_view name;  // In section swarm, "stall_seconds".
  double SwarmConfig::*value;
  double dead_times;  // Unless it is set: so many times swarm.dead_seconds.
  std::string_view help;
};

// "2 times", "1/15 of": what stands before "dead_seconds".
std::string times_text(const TimeOut& one);
// All but dead_seconds itself.
const std::vector<TimeOut>& time_outs();

// Fills in those that are 0, and returns their names, in order.
std::vector<std::string> derive_time_outs(SwarmConfig& config);

// Throws bad_input that names both values and the rule. `source` is the config's file.
void check_time_outs(const SwarmConfig& config, const std::string& source);

}  // namespace train
