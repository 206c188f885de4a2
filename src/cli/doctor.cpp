// doctor: is this machine fit to be a node?
#include "train/doctor.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/log.h"
#include "cli/commands.h"

namespace cli {
namespace {

struct DoctorCommand {
  std::string config;
  std::vector<std::string> overrides, changes;
  train::DoctorOptions options;
  bool json = false;
};

const char* level_text(train::CheckLevel level) {
  switch (level) {
    case train::CheckLevel::kOk:
      return "OK";
    case train::CheckLevel::kWarn:
      return "WARN";
    default:
      return "FAIL";
  }
}

void print_checks(const train::Checks& checks) {
  for (const train::Check& check : checks) {
    std::cout << fmt::format("{:<5}{:<20}{}\n", level_text(check.level), check.name, check.value);
    if (!check.advice.empty()) std::cout << fmt::format("{:<25}-> {}\n", "", check.advice);
  }
  std::cout << std::flush;
}

void print_checks_json(const train::Checks& checks, int64_t failed) {
  base::JsonWriter out;
  out.begin_object().field("fit", failed == 0).key("checks").begin_array();
  for (const train::Check& check : checks) {
    out.begin_object()
        .field("name", check.name)
        .field("level", level_text(check.level))
        .field("value", check.value)
        .field("advice", check.advice)
        .end_object();
  }
  out.end_array().end_object();
  std::cout << out.text() << std::endl;
}

void run_doctor(const DoctorCommand& command) {
  base::configure_log({.prefix = {}, .file = {}, .stderr_level = base::LogLevel::kWarning});
  const auto storage = base::make_disk_storage();
  std::optional<train::RunConfig> config;
  if (!command.config.empty())
    config = train::load_run_config(*storage, command.config, command.overrides, command.changes);
  const train::Checks checks = train::examine(config, *storage, command.options);
  const int64_t failed = std::ranges::count(checks, train::CheckLevel::kFail, &train::Check::level);
  command.json ? print_checks_json(checks, failed) : print_checks(checks);
  if (failed > 0) {
    throw base::resource_lost(fmt::format("{} check{} failed", failed, failed == 1 ? "" : "s"),
                              "see the lines that begin with FAIL: after -> stands what to do");
  }
}

}  // namespace

void add_doctor(CLI::App& app) {
  auto* command = app.add_subcommand("doctor",
                                     "Is this machine fit to be a node, and can it reach the run? "
                                     "Each line says OK, WARN or FAIL, "
                                     "and what to do; exit code 3 if one fails");
  auto options = std::make_shared<DoctorCommand>();
  auto* config = command->add_option(
      "--config", options->config, "The run's JSON config; without it only the machine is judged");
  command->add_option("--set", options->overrides, "Override one key")
      ->allow_extra_args(false)
      ->needs(config);
  command->add_option("--change", options->changes, "As given to train")
      ->allow_extra_args(false)
      ->needs(config);
  command
      ->add_flag("--dial-back", options->options.dial_back,
                 "Let the coordinator dial this node's port. For a moment it takes us for a node "
                 "that joins: not while a run waits for its first nodes")
      ->needs(config);
  command
      ->add_option("--rate-mbit", options->options.rate_mbit,
                   "What this machine's line carries: then rounds are held against time-outs")
      ->needs(config)
      ->check(CLI::PositiveNumber);
  command->add_option("--nodes", options->options.nodes, "Nodes of the run")
      ->needs(config)
      ->check(CLI::Range(1, 64));
  command->add_flag("--json", options->json, "Print as JSON");
  command->callback([options] { run_doctor(*options); });
}

}  // namespace cli
