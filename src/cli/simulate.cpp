// simulate: what a run will get out of its machines over the lines that they have.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/math.h"
#include "cli/commands.h"
#include "cli/swarm_forecast.h"
#include "train/memory_plan.h"

namespace cli {
namespace {

struct SimulateCommand {
  std::string config;
  std::vector<std::string> overrides;
  SwarmCase swarm;
  double price_per_gb = -1;  // Negative: not asked for.
  bool json = false;
};

double predicted_step(const train::RunConfig& config) {
  const train::Machine machine{.gpus = 8, .bytes_per_gpu = 78 * base::kGiB};
  return train::predict_step_seconds(config, train::best_plan(config, machine));
}

void print_json(const SimulateCommand& command, const train::RunConfig& config,
                const SwarmForecast& forecast) {
  base::JsonWriter out;
  out.begin_object()
      .field("nodes", command.swarm.nodes)
      .field("fragments", config.outer.fragments)
      .field("inner_steps", config.outer.inner_steps)
      .field("codec", config.outer.codec)
      .field("utilisation", forecast.result.utilisation);
  out.key("node_utilisation").begin_array();
  for (const double share : forecast.result.node_utilisation) out.value(share);
  out.end_array().key("step_seconds").begin_array();
  for (const double seconds : command.swarm.step_seconds) out.value(seconds);
  out.end_array()
      .field("exposed_seconds_per_round", forecast.result.exposed_seconds_per_round)
      .field("gigabytes_per_day", forecast.gigabytes_per_day)
      .field("steps_per_day", forecast.result.steps_per_day)
      .field("floor_mbit", forecast.floor_mbit);
  if (command.price_per_gb >= 0)
    out.field("price_per_day", command.price_per_gb * forecast.gigabytes_per_day);
  out.end_object();
  std::cout << out.text() << std::endl;
}

void print_text(const SimulateCommand& command, const SwarmForecast& forecast) {
  std::cout << fmt::format("{} nodes: {}\n", command.swarm.nodes, text_of(forecast));
  if (command.price_per_gb >= 0) {
    std::cout << fmt::format("what a node sends costs {:.2f} a day\n",
                             command.price_per_gb * forecast.gigabytes_per_day);
  }
}

void add_options(CLI::App& command, SimulateCommand& options) {
  command.add_option("--config", options.config, "The run's JSON config")->required();
  command.add_option("--set", options.overrides, "Override one key")->allow_extra_args(false);
  command.add_option("--nodes", options.swarm.nodes, "Nodes of the run")
      ->required()
      ->check(CLI::Range(1, 64));
  command
      .add_option("--rate-mbit", options.swarm.rate_mbit,
                  "What a node's line carries, in the direction that has less: one for all nodes, "
                  "or one per node")
      ->required()
      ->check(CLI::PositiveNumber);
  command
      .add_option("--step-seconds", options.swarm.step_seconds,
                  "An inner step of a node: one for all, or one per node; by default as predicted "
                  "for eight H100-class GPUs")
      ->check(CLI::PositiveNumber);
  command.add_option("--rtt-ms", options.swarm.round_trip_ms, "Round trip between two nodes")
      ->check(CLI::NonNegativeNumber);
  command
      .add_option("--price-per-gb", options.price_per_gb,
                  "Of what a node sends: then also the price of a day")
      ->check(CLI::NonNegativeNumber);
  command.add_flag("--json", options.json, "Print the report as JSON");
}

}  // namespace

void add_simulate(CLI::App& app) {
  auto* command = app.add_subcommand(
      "simulate",
      "How much of the time the nodes of a run would train, over the lines that they have");
  auto options = std::make_shared<SimulateCommand>();
  add_options(*command, *options);
  command->callback([options] {
    const auto storage = base::make_disk_storage();
    const auto config = train::load_run_config(*storage, options->config, options->overrides);
    if (options->swarm.step_seconds.empty()) options->swarm.step_seconds = {predicted_step(config)};
    const SwarmForecast forecast = forecast_swarm(config, options->swarm);
    options->json ? print_json(*options, config, forecast) : print_text(*options, forecast);
  });
}

}  // namespace cli
