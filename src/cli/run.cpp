// train and coordinate.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/dry_run.h"
#include "train/coordinate.h"
#include "train/node.h"
#include "train/supervise.h"

namespace cli {
namespace {

struct RunOptions {
  std::string config;
  std::vector<std::string> overrides;
  std::vector<std::string> changes;
  std::string listen = "0.0.0.0:29500";
  bool json = false;
};

void add_config_options(CLI::App& command, RunOptions& options) {
  command.add_option("--config", options.config, "The run's JSON config")->required();
  command
      .add_option("--set", options.overrides,
                  "Override one key: --set training.steps=100 (may be given often)")
      ->allow_extra_args(false);
  command
      .add_option("--change", options.changes,
                  "Like --set, for what may change when a run goes on: training.steps, "
                  "optimizer.learning_rate, optimizer.schedule.*; give the coordinator and every "
                  "node the same ones")
      ->allow_extra_args(false);
  command.add_flag("--json", options.json, "Print reports as JSON");
}

constexpr const char* kSupervise = "--supervise";
constexpr const char* kRestartsMax = "--restarts-max";
constexpr const char* kRestartPause = "--restart-pause-seconds";

struct SuperviseCommand {
  bool is_wanted = false;
  train::SuperviseOptions options;
};

std::shared_ptr<SuperviseCommand> add_supervise_options(CLI::App& command) {
  auto supervise = std::make_shared<SuperviseCommand>();
  auto* flag = command.add_flag(kSupervise, supervise->is_wanted,
                                "Start it again when it ends with exit code 3 or is killed "
                                "(SIGKILL), after a pause that grows "
                                "from 1 s to 60 s: for containers, where no service manager does");
  command
      .add_option(kRestartsMax, supervise->options.restarts_max,
                  "Restarts in a row, without 10 minutes of training in between")
      ->needs(flag)
      ->check(CLI::Range(int64_t{0}, int64_t{1'000'000}))
      ->capture_default_str();
  command.add_option(kRestartPause, supervise->options.pause_seconds, "Before the first of them")
      ->needs(flag)
      ->check(CLI::Range(0.001, 60.0))
      ->capture_default_str();
  return supervise;
}

void supervise(const SuperviseCommand& command) {
  train::supervise(train::own_command(kSupervise, {kRestartsMax, kRestartPause}), command.options);
}

train::RunConfig load_config(base::Storage& storage, const RunOptions& options) {
  return train::load_run_config(storage, options.config, options.overrides, options.changes);
}

void print_summary(const train::NodeSummary& summary, bool json) {
  if (!json) {
    base::log_info("{} at step {}: {} tokens, {} rounds, {:.1f} s",
                   summary.finished ? "finished" : "stopped", summary.step, summary.tokens,
                   summary.rounds, summary.seconds);
    return;
  }
  base::JsonWriter out;
  out.begin_object();
  train::write_fields(out, summary);
  out.end_object();
  std::cout << out.text() << std::endl;
}

void print_listening(const net::Endpoint& endpoint, bool json) {
  if (json)
    std::cout
        << base::JsonWriter().begin_object().field("listening", endpoint.text()).end_object().text()
        << std::endl;
  else
    base::log_info("coordinator listening on {}", endpoint.text());
}

void print_coordination(const net::CoordinatorReport& report, bool json) {
  if (!json) {
    base::log_info("{} rounds committed; {} members joined, {} lost", report.rounds_committed,
                   report.members_joined, report.members_lost);
    return;
  }
  base::JsonWriter out;
  out.begin_object()
      .field("finished", report.finished)
      .field("epoch", report.epoch)
      .field("samples", report.samples)
      .field("rounds_committed", report.rounds_committed)
      .field("members_joined", report.members_joined)
      .field("members_lost", report.members_lost)
      .end_object();
  std::cout << out.text() << std::endl;
}

}  // namespace

void add_train(CLI::App& app, const WatchForStop& watch_for_stop) {
  auto* command = app.add_subcommand(
      "train", "Train as one node; goes on from its run directory if there is something to resume");
  auto options = std::make_shared<RunOptions>();
  add_config_options(*command, *options);
  auto dry = std::make_shared<DryRunCommand>();
  add_dry_run_options(*command, *dry);
  const auto supervised = add_supervise_options(*command);
  command->callback([options, dry, supervised, watch_for_stop] {
    if (supervised->is_wanted && !dry->is_wanted) return supervise(*supervised);
    const auto storage = base::make_disk_storage();
    if (dry->is_wanted) {
      const auto config = load_config(*storage, *options);
      return print_dry_run(config, train::dry_run(config, *storage, dry->options), options->json);
    }
    const StopRequested stop_requested = watch_for_stop();
    const auto config = load_config(*storage, *options);
    print_summary(train::run_node(config, *storage, stop_requested), options->json);
  });
}

void add_coordinate(CLI::App& app, const WatchForStop& watch_for_stop) {
  auto* command = app.add_subcommand(
      "coordinate", "Be the meeting point of a run: admits members, opens and commits rounds");
  auto options = std::make_shared<RunOptions>();
  add_config_options(*command, *options);
  command->add_option("--listen", options->listen, "host:port; port 0 picks a free one")
      ->capture_default_str();
  const auto supervised = add_supervise_options(*command);
  command->callback([options, supervised, watch_for_stop] {
    if (supervised->is_wanted) return supervise(*supervised);
    const StopRequested stop_requested = watch_for_stop();
    const auto storage = base::make_disk_storage();
    const auto config = load_config(*storage, *options);
    const auto listen = net::parse_endpoint(options->listen);
    if (!listen) throw base::bad_input("--listen: " + listen.reason(), "write it as host:port");
    base::configure_log({.prefix = "coordinator", .file = {}});
    const auto report = train::run_coordinator(
        config, *storage, *listen,
        [&](const net::Endpoint& endpoint) { print_listening(endpoint, options->json); },
        stop_requested);
    print_coordination(report, options->json);
  });
}

}  // namespace cli
