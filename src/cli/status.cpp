// status: how runs go, from their run directories.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/status_table.h"
#include "observe/board_text.h"

namespace cli {
namespace {

constexpr int kRefreshMilliseconds = 1000;

struct StatusCommand {
  std::vector<std::string> directories;
  bool is_followed = false;
  bool json = false;
};

size_t terminal_width() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
}

void print_runs(const WatchedRuns& watch, const StatusCommand& command) {
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  if (command.json) {
    for (const WatchedRun& run : watch.list())
      std::cout << observe::status_json(run.board, now, run.directory) << "\n";
  } else {
    // Over what stood there before.
    if (command.is_followed) std::cout << (isatty(STDOUT_FILENO) ? "\x1b[H\x1b[J" : "\n");
    std::cout << status_table(watch.list(), now, terminal_width());
  }
  std::cout.flush();
}

void run_status(const StatusCommand& command) {
  WatchedRuns watch(command.directories);
  watch.refresh(command.is_followed);
  print_runs(watch, command);
  // A terminal also shows how long ago the last line was; a pipe gets what is new.
  const bool is_clock = !command.json && isatty(STDOUT_FILENO);
  while (command.is_followed && std::cout.good()) {
    poll(nullptr, 0, kRefreshMilliseconds);
    if (watch.refresh(true) || is_clock) print_runs(watch, command);
  }
}

}  // namespace

void add_status(CLI::App& app) {
  auto* command = app.add_subcommand(
      "status", "How runs go, from their run directories: also while other processes write them");
  auto state = std::make_shared<StatusCommand>();
  command->add_option("directories", state->directories, "Run directories, shown side by side")
      ->required();
  command->add_flag("--follow", state->is_followed,
                    "Keep it fresh until Ctrl-C; a directory may be still to come");
  command->add_flag("--json", state->json, "A JSON object per run and line (docs/watching.md)");
  command->footer(
      "Example:\n"
      "  atoll status runs/left runs/right --follow\n"
      "node.status_listen has the same as a page over HTTP.");
  command->callback([state] { run_status(*state); });
}

}  // namespace cli
