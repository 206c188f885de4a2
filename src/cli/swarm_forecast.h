// What `simulate` and `inspect config` say about the outer loop of a config.
#pragma once

#include <string>
#include <vector>

#include "outer/simulation.h"
#include "train/run_config.h"

namespace cli {

// Lists have one entry for all nodes, or one per node.
struct SwarmCase {
  int64_t nodes = 14;
  std::vector<double> rate_mbit{100};  // Of a node's line, in the direction that has less.
  std::vector<double> step_seconds;
  double round_trip_ms = 0;
};

struct SwarmForecast {
  outer::SimulationResult result;
  double floor_mbit = 0;
  double gigabytes_per_day = 0;  // Each way.
};

// Throws bad_input where the case does not fit the config, or a list has another length.
SwarmForecast forecast_swarm(const train::RunConfig& config, const SwarmCase& swarm);

// "83.1 % of the time is training; ...": one line for people, without its end.
std::string text_of(const SwarmForecast& forecast);

}  // namespace cli
