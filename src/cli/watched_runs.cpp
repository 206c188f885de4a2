#include "cli/watched_runs.h"

#include <filesystem>
#include <fmt/format.h>

#include "base/error.h"

namespace cli {
namespace {

std::string metrics_path_in(const std::string& directory) {
  std::error_code none;
  if (std::filesystem::is_regular_file(directory, none)) return directory;
  for (const char* name : {"metrics.jsonl", "coordinator.jsonl"}) {
    const std::string path = directory + "/" + name;
    if (std::filesystem::exists(path, none)) return path;
  }
  return directory + "/metrics.jsonl";
}

base::Error nothing_there(const std::string& directory) {
  return base::bad_input(
      fmt::format("{}: there is no metrics.jsonl, or it cannot be read", directory),
      "give the run directories of nodes (node.run_directory)");
}

}  // namespace

WatchedRuns::WatchedRuns(const std::vector<std::string>& directories) {
  for (const std::string& directory : directories) {
    runs_.push_back({.directory = directory, .board = {}});
    tails_.emplace_back(metrics_path_in(directory));
  }
}

bool WatchedRuns::refresh(bool may_come) {
  bool is_new = false;
  for (size_t i = 0; i < runs_.size(); ++i) {
    observe::Board& board = runs_[i].board;
    const bool is_there = tails_[i].read(
        [&](std::string_view line) {
          is_new = true;
          board.add(line);
        },
        [&] { board = {}; });
    if (is_there) continue;
    if (!may_come) throw nothing_there(runs_[i].directory);
    tails_[i] = observe::MetricsTail(metrics_path_in(runs_[i].directory));
    board = {};
  }
  return is_new;
}

}  // namespace cli
