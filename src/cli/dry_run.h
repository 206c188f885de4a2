// `atoll train --dry-run`: its options and how its report is printed.
#pragma once

#include "train/dry_run.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace cli {

struct DryRunCommand {
  bool is_wanted = false;
  train::DryRunOptions options;
};

// All but --dry-run itself are refused without it.
void add_dry_run_options(CLI::App& train, DryRunCommand& command);

// Prints the report; throws bad_input where a start would be refused.
void print_dry_run(const train::RunConfig& config, const train::DryRunReport& report, bool json);

}  // namespace cli
