#include "cli/swarm_forecast.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/error.h"

namespace cli {
namespace {

double entry(const std::vector<double>& list, int64_t node) {
  return list[list.size() == 1 ? 0 : size_t(node)];
}

void check_length(const std::vector<double>& list, int64_t nodes, const char* what) {
  if (list.size() == 1 || int64_t(list.size()) == nodes) return;
  throw base::bad_input(
      fmt::format("{}: expected one number or {}, found {}", what, nodes, list.size()),
      "give one for all nodes, or one per node");
}

}  // namespace

SwarmForecast forecast_swarm(const train::RunConfig& config, const SwarmCase& swarm) {
  check_length(swarm.rate_mbit, swarm.nodes, "--rate-mbit");
  check_length(swarm.step_seconds, swarm.nodes, "--step-seconds");
  outer::SimulationOptions options =
      outer::simulation_of(config.outer, model::make_layout(config.model));
  options.round_trip_seconds = swarm.round_trip_ms / 1e3;
  for (int64_t node = 0; node < swarm.nodes; ++node) {
    options.nodes.push_back({.step_seconds = entry(swarm.step_seconds, node),
                             .bytes_per_second = entry(swarm.rate_mbit, node) * 1e6 / 8});
  }
  SwarmForecast forecast{.result = outer::simulate(options)};
  forecast.floor_mbit = forecast.result.floor_bytes_per_second * 8 / 1e6;
  forecast.gigabytes_per_day = forecast.result.bytes_per_day / 1e9;
  return forecast;
}

std::string text_of(const SwarmForecast& forecast) {
  return fmt::format(
      "{:.1f} % of the time is training, {:.1f} s a round are not; {:.0f} GB a day each way; "
      "below {:.0f} Mbit/s no overlap helps",
      100 * forecast.result.utilisation, forecast.result.exposed_seconds_per_round,
      forecast.gigabytes_per_day, forecast.floor_mbit);
}

}  // namespace cli
